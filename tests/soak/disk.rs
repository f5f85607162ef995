//! Disk: a small tmpfs of this process's own, which is filled and freed. Its mount is in a namespace that ends with the process.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The ways to have mounts of one's own: as root, or as a user who is root in there.
const WAYS: [&str; 2] = ["-m", "-Urm"];

/// A command that runs this program again, in a namespace where `folder` is a small tmpfs.
pub(crate) fn inside(folder: &Path) -> Command {
    let mount = format!("mount -t tmpfs -o size={SIZE_MIB}m tmpfs \"$SOAK_DISK\"");
    let program = std::env::current_exe().unwrap();
    for way in WAYS {
        let tried = Command::new("unshare").args([way, "sh", "-c", &mount]).env("SOAK_DISK", folder).output();
        if tried.is_ok_and(|output| output.status.success()) {
            let mut command = Command::new("unshare");
            command.args([way, "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")]).arg(program);
            command.env("SOAK_DISK", folder).env("SOAK_DISK_SMALL", "1");
            return command;
        }
    }
    assert!(std::env::var("WITHOUT_NAMESPACES").is_ok_and(|without| without == "1"), "{NOT_ALLOWED}");
    println!("NOT SHOWN in this run: a disk that is full, as this machine may not mount a tmpfs (WITHOUT_NAMESPACES=1)");
    let mut command = Command::new(program);
    command.env("SOAK_DISK", folder);
    command
}

/// Where the embedded store lies.
pub(crate) struct Disk {
    folder: PathBuf,
    /// Whether it can be filled.
    pub(crate) is_small: bool,
}

impl Disk {
    pub(crate) fn of_this_process() -> Self {
        let folder = PathBuf::from(std::env::var_os("SOAK_DISK").unwrap());
        Self { folder, is_small: std::env::var_os("SOAK_DISK_SMALL").is_some() }
    }

    /// A new one: what was there before is gone.
    pub(crate) fn file(&self) -> PathBuf {
        for file in fs::read_dir(&self.folder).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        self.folder.join("log")
    }

    /// Until there is not a byte left.
    pub(crate) fn fill(&self) {
        let mut filler = File::options().append(true).create(true).open(self.folder.join("filler")).unwrap();
        for piece in [64 << 10, 4 << 10, 1] {
            while filler.write_all(&vec![1; piece]).is_ok() {}
        }
    }

    pub(crate) fn free(&self) {
        // There may be none.
        let _ = fs::remove_file(self.folder.join("filler"));
    }
}

/// Room for some thousand entries.
const SIZE_MIB: u32 = 24;
const NOT_ALLOWED: &str = "This machine may not mount a tmpfs, so nothing would be shown about a disk that is full. Run it as root with CAP_SYS_ADMIN, allow user namespaces \
(kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, docker run --privileged), or leave it out: WITHOUT_NAMESPACES=1.";
