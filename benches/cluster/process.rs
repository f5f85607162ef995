//! Process: what a process has used of the machine, as Linux tells it, and what has passed over its sockets. Knows no peer.

use std::fs;
use std::process::Command;

/// The time that all threads of a process have computed, in ns.
pub(crate) fn cpu(id: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanos.sum()
}

/// The same for a server, found by its name and its port.
pub(crate) fn server_cpu(name: &str, port: u16) -> u64 {
    let port = port.to_string();
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        (line.contains(name) && line.contains(&port)).then_some(id)
    });
    ids.map(cpu).sum()
}

/// KiB in memory.
pub(crate) fn resident_kib(id: u32) -> u64 {
    let sizes = fs::read_to_string(format!("/proc/{id}/statm")).unwrap_or_default();
    sizes.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4
}

/// Bytes that were sent over the established TCP connections from or to a port of this machine, in both directions; `None` without `ss`.
pub(crate) fn wire_bytes(port: u16) -> Option<u64> {
    let filter = format!("( sport = :{port} or dport = :{port} )");
    let output = Command::new("ss").args(["-tinOH", "state", "established", &filter]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let sent = text.split_whitespace().filter_map(|word| word.strip_prefix("bytes_sent:")?.parse::<u64>().ok());
    Some(sent.sum())
}
