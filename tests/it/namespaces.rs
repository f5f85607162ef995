//! Namespaces: a network of Linux's own namespaces, with bridges, cables and programs in it. Pull a cable, and packets vanish: nothing is reset, nothing ends.
//!
//! ```text
//!  this process                    one process that waits: the namespaces are gone with it, however the test ended
//!                                 ┌────────────────────────────────────────────────────────────────────┐
//!   Other ── stdin, stdout ──────►│ node-0 ══ bridge "left" ══ trunk ══ bridge "right" ══ node-2       │
//!                                 │ node-1 ══╝                                        ╚══ node-3       │
//!                                 └────────────────────────────────────────────────────────────────────┘
//! ```
//! It needs `ip` (iproute2) and the right to make namespaces: of root, or of a user where the system allows user namespaces.

use std::io::BufRead;
use std::io::BufReader;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

/// A network of its own. Its names are seen by nobody outside, so any number of them may be there at once.
pub(crate) struct Network {
    /// Whose namespaces these are; it ends with its input.
    holder: Child,
    enter: Vec<String>,
    programs: Vec<Child>,
}

impl Network {
    /// With these bridges, each joined to the one before it by a cable of the name of the later.
    pub(crate) fn new(bridges: &[&str]) -> Self {
        // As a user who is root in there, or as root where there are no user namespaces.
        let network =
            Self::hold("-Urnm", &["-U", "--preserve-credentials", "-m", "-n"]).or_else(|_| Self::hold("-nm", &["-m", "-n"]));
        let network = network.unwrap_or_else(|why| panic!("{why}\n{NOT_ALLOWED}"));
        for (at, bridge) in bridges.iter().enumerate() {
            network.ip(&format!("link add {bridge} type bridge"));
            network.ip(&format!("link set {bridge} up"));
            if at > 0 {
                network.ip(&format!("link add to-{bridge} type veth peer name of-{bridge}"));
                network.ip(&format!("link set to-{bridge} master {} up", bridges[at - 1]));
                network.ip(&format!("link set of-{bridge} master {bridge} up"));
            }
        }
        network
    }

    fn hold(unshare: &str, enter: &[&str]) -> Result<Self, String> {
        // `ip netns` keeps its names in /run, which is this network's own in there.
        let script = "mount -t tmpfs tmpfs /run && mkdir /run/netns && echo ready && exec cat";
        let mut command = Command::new("unshare");
        command.args([unshare, "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said != "ready\n" {
            let output = holder.wait_with_output().unwrap();
            return Err(format!("unshare {unshare}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let target = holder.id().to_string();
        let enter = ["-t", &target].iter().chain(enter).map(ToString::to_string).collect();
        Ok(Self { holder, enter, programs: Vec::new() })
    }

    /// `ip` with these words, from where the bridges are.
    fn ip(&self, words: &str) {
        let mut command = Command::new("nsenter");
        command.args(&self.enter).arg("ip").args(words.split(' '));
        let output = command.output().expect("nsenter, of util-linux");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {words}: {}\nIs iproute2 installed? `sh tests/run.sh` does it.", said.trim());
    }

    /// A namespace with this address, by a cable of its name to a bridge.
    pub(crate) fn place(&self, name: &str, bridge: &str, address: &str) {
        self.ip(&format!("netns add {name}"));
        self.ip(&format!("link add {name} type veth peer name eth0 netns {name}"));
        self.ip(&format!("link set {name} master {bridge} up"));
        self.ip(&format!("-n {name} address add {address}/24 dev eth0"));
        self.ip(&format!("-n {name} link set lo up"));
        self.ip(&format!("-n {name} link set eth0 up"));
    }

    /// From now on nothing passes by this cable.
    pub(crate) fn pull(&self, cable: &str) {
        self.ip(&format!("link set {cable} down"));
    }

    pub(crate) fn plug(&self, cable: &str) {
        self.ip(&format!("link set {cable} up"));
    }

    /// From now on this place sends nothing to that address, and takes nothing from it that waits for an answer.
    pub(crate) fn part(&self, place: &str, address: &str) {
        self.ip(&format!("-n {place} route add blackhole {address}"));
    }

    pub(crate) fn join(&self, place: &str, address: &str) {
        self.ip(&format!("-n {place} route del blackhole {address}"));
    }

    /// A program in a namespace, without its arguments.
    pub(crate) fn command(&self, place: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(&self.enter).args(["nsenter", &format!("--net=/run/netns/{place}"), program]);
        command
    }

    /// Runs a program with its arguments in a namespace until this is dropped, or its thread ends.
    pub(crate) fn run(&mut self, place: &str, words: &str) {
        let mut command = self.command(place, "setpriv");
        command.args(["--pdeathsig", "KILL"]).args(words.split(' '));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.programs.push(command.spawn().unwrap());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in self.programs.iter_mut().chain([&mut self.holder]) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const NOT_ALLOWED: &str = "This machine may not make network namespaces, so nothing is shown about links that go down. Run it as root with CAP_SYS_ADMIN and \
CAP_NET_ADMIN, or allow user namespaces (kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, docker run --privileged).";
