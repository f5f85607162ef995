//! Measure: what this process holds: live bytes, exactly; memory, threads and descriptors, as the system sees them. Knows no pub/sub.

use std::alloc::System as Heap;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use std::time::Instant;

use stats_alloc::StatsAlloc;

use crate::cluster_site::resident_kib;

#[global_allocator]
static HEAP: &StatsAlloc<Heap> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// What is held at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) at: Instant,
    pub(crate) live_bytes: usize,
    pub(crate) resident_kib: u64,
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
}

impl Held {
    pub(crate) fn now() -> Self {
        let heap = HEAP.stats();
        Self {
            at: Instant::now(),
            live_bytes: heap.bytes_allocated - heap.bytes_deallocated,
            resident_kib: resident_kib(),
            threads: threads().values().sum(),
            descriptors: descriptors().values().sum(),
        }
    }
}

/// By name.
pub(crate) fn threads() -> BTreeMap<String, usize> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    // One that has ended since has no name any more.
    count(tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()))
}

/// By what they are of, without their numbers.
pub(crate) fn descriptors() -> BTreeMap<String, usize> {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    count(links.map(|link| link.to_string_lossy().split(':').next().unwrap_or_default().to_owned()))
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    names.for_each(|name| *counts.entry(name.trim().to_owned()).or_default() += 1);
    counts
}

/// Of a third of the points, the first or the last.
fn median(of: &[Held], last: bool, value: impl Fn(&Held) -> u64) -> u64 {
    let third = of.len() / 3;
    let some = if last { &of[of.len() - third..] } else { &of[..third] };
    let mut values: Vec<_> = some.iter().map(value).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Nothing grows from the first third of the quiet points to the last, but by what is allowed: those left out that came before everything was as full as it gets.
pub(crate) fn assert_flat(points: &[Held]) {
    let full: Vec<_> = points.iter().filter(|held| held.at - points[0].at > FILLS).copied().collect();
    let (points, live_bytes, resident_kib) = if full.len() >= POINTS_MIN {
        (full.as_slice(), 512 << 10, 16 << 10)
    } else {
        println!("too short to see whether memory is flat: it may grow as long as rings, histories and the log fill");
        (points, 8 << 20, 64 << 10)
    };
    if points.len() < POINTS_MIN {
        println!("NOT SHOWN in this run: what is held at {} quiet points is not compared, it takes {POINTS_MIN}", points.len());
        return;
    }
    let flat = |what: &str, allowed: u64, value: fn(&Held) -> u64| {
        let (first, last) = (median(points, false, value), median(points, true, value));
        println!("{what} at {} quiet points: {first} at first, {last} at last, allowed {allowed} more", points.len());
        assert!(last <= first + allowed, "{what} grew from {first} to {last}, allowed were {allowed} more");
    };
    flat("live bytes", live_bytes, |held| held.live_bytes as u64);
    flat("resident KiB", resident_kib, |held| held.resident_kib);
    flat("threads", THREADS_MORE, |held| held.threads as u64);
    flat("descriptors", DESCRIPTORS_MORE, |held| held.descriptors as u64);
}

/// Two in each third.
const POINTS_MIN: usize = 6;
/// Until the log has as much as is kept of it, incidents and the dashboard's history have what they keep, and every ring and map its room.
const FILLS: Duration = Duration::from_secs(180);
/// Of a pool that ends its threads after some idle seconds.
const THREADS_MORE: u64 = 4;
/// Connections that a client or a store has in reserve.
const DESCRIPTORS_MORE: u64 = 12;
