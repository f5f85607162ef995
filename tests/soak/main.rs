//! Soak: all features at once in one process, under chaos drawn from a seed; again and again all becomes quiet, and everything must add up.
//!
//! ```text
//!   a test ── unshare, tmpfs ──► this program again: four sides, each a pub/sub with everything
//!                                  memory     log in memory          listeners of each temper and policy on 4 arbiters, threads that broadcast,
//!                                  embedded   log on the tmpfs       followers, workers, an HTTP server with clients over SSE and WebSocket,
//!                                  redis      log and cluster ─┐     dashboards, metrics
//!                                  nats       log and cluster ─┴──► redis-server, nats-server, two nodes each in processes of their own
//!
//!   rounds:  chaos for some seconds ─► all is mended ─► nobody does anything new ─► all is handled ─► it adds up, and is measured
//! ```
//! `cargo test --test soak --all-features` takes some minutes; `SOAK_MINUTES=120` hours, `SOAK_SECONDS=40` less. It prints its `SEED`, and reads it back.
#![allow(missing_docs)]

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Stdio;
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use std::time::Instant;

use actix::prelude::*;

use crate::gate::assert_nothing_wrong;
use crate::gate::hear_panics;
use crate::gate::settles;
use crate::measure::Held;
use crate::measure::assert_flat;
use crate::measure::descriptors;
use crate::measure::threads;
use crate::side::Base;
use crate::side::Side;
use crate::support::Folder;
use crate::web_support::Random;
use crate::web_support::size;

#[allow(dead_code, unused_imports, unused_macros, reason = "the tests of clusters need more of it")]
#[path = "../it/cluster_site.rs"]
mod cluster_site;
mod disk;
mod edge;
mod gate;
mod locals;
mod logs;
mod measure;
mod nodes;
#[allow(dead_code, unreachable_pub, reason = "the tests of clusters need more of it")]
#[path = "../it/proxy.rs"]
mod proxy;
#[allow(dead_code, unreachable_pub, reason = "the tests of stores need more of it")]
#[path = "../it/servers.rs"]
mod servers;
mod side;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../it/support.rs"]
mod support;
#[allow(dead_code, reason = "the tests of the edge need more of it")]
#[path = "../it/web_support.rs"]
mod web_support;

#[test]
fn everything_at_once_under_chaos_adds_up_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let path = folder.file();
    std::fs::create_dir(&path).unwrap();
    let mut command = disk::inside(&path);
    command.args(["--exact", "inside", "--nocapture"]).env("SOAK_INSIDE", "1");
    let mut inside = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // It ends with this process, when its input does.
    let input = inside.stdin.take();
    let (mut done, mut out) = (false, std::io::stdout());
    for line in BufReader::new(inside.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        done |= line.starts_with(DONE);
        // Said at once, not only when it has failed.
        writeln!(out, "{line}").unwrap();
    }
    let ended = inside.wait().unwrap();
    drop(input);
    // One that did nothing is no success.
    assert!(ended.success() && done, "see above: {ended}, done: {done}");
}

/// No test: the process that the test starts.
#[test]
fn inside() {
    if std::env::var_os("SOAK_INSIDE").is_none() {
        return;
    }
    cluster_site::obey(|_| {});
    hear_panics();
    let length = Duration::from_secs(size("SOAK_SECONDS", size("SOAK_MINUTES", 2) * 60));
    let (random, system, begun) = (Random::seeded(), System::new(), Instant::now());
    let there = || (threads(), descriptors());
    let first = there();
    let as_at_first = || format!("{:?} were {first:?}", there());
    println!("a short one first, which makes what lives as long as the process");
    soak(&system, &random, begun);
    settles(&system, "threads and descriptors are as at first", || there() == first, as_at_first);
    let before = Held::now();
    println!("after it: {before:?}");
    let points = soak(&system, &random, begun + length);
    settles(&system, "threads and descriptors are as at first", || there() == first, as_at_first);
    let held = Held::now();
    println!("at the end: {held:?}");
    let more = held.live_bytes.saturating_sub(before.live_bytes);
    assert!(more <= LEFT_BYTES, "{more} bytes are left behind, allowed are {LEFT_BYTES}");
    assert_flat(&points);
    assert_nothing_wrong();
    println!("{DONE}, at {} quiet points in {:?}", points.len(), begun.elapsed());
}

/// Makes everything, has round after round of chaos until then, at least one, and ends everything. Gives what was held at the quiet points.
fn soak(system: &SystemRunner, random: &Random, until: Instant) -> Vec<Held> {
    // To find whose it is what was found.
    let asked = std::env::var("SOAK_SIDES").unwrap_or_default().to_lowercase();
    let all = [Base::Memory, Base::Embedded, Base::Redis, Base::Nats].into_iter();
    let wanted = all.filter(|base| asked.is_empty() || asked.contains(&format!("{base:?}").to_lowercase()));
    let mut sides: Vec<_> = wanted.map(|base| Side::new(base, random)).collect();
    let mut points = Vec::new();
    while points.is_empty() || Instant::now() < until {
        let chaos = Duration::from_millis(CHAOS_MS_MIN + random.below(CHAOS_MS_MORE));
        for side in &mut sides {
            side.begin(system);
        }
        std::thread::scope(|scope| {
            let mut suffering = Vec::new();
            for side in &mut sides {
                suffering.push(scope.spawn(move || side.suffer(chaos)));
            }
            // What lives on this thread goes on meanwhile.
            while !suffering.iter().all(ScopedJoinHandle::is_finished) {
                system.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
            }
        });
        let suffered = Instant::now();
        for side in &mut sides {
            side.calm(system);
        }
        for side in &mut sides {
            side.assert_well(system);
        }
        assert_nothing_wrong();
        let held = Held::now();
        println!("quiet point {} after {chaos:?} of chaos and {:?}: {held:?}", points.len(), suffered.elapsed());
        points.push(held);
    }
    for side in sides {
        side.end(system);
    }
    points
}

/// The last that is said.
const DONE: &str = "everything adds up";
/// Chaos between two quiet points.
const CHAOS_MS_MIN: u64 = 1_500;
const CHAOS_MS_MORE: u64 = 3_000;
/// What a second run of everything may leave in memory: room that maps and queues of the process keep.
const LEFT_BYTES: usize = 256 << 10;
