//! Web: broadcasts to thousands of WebSocket and SSE clients, this crate beside its peers. Run it by `cargo bench --bench web`.
//!
//! ```text
//! bench ──┬── server (a process, core 0): one thread that serves and publishes
//!         └── load   (a process, core 1): all clients in one loop, see benches/load
//! ```
//! Servers take turns, each round another one first; each turn starts a new server. Its clients connect and are left alone (memory), then come
//! broadcasts on a schedule (latency), one at a time, and in bursts (frames per second, and per second of processor time). Every client
//! checks the number of every broadcast: one lost, doubled or out of order ends the bench. A phase in which the load was the bottleneck
//! does not count; one in which another process had one of the cores is done again, and if that does not help, only its processor times count.
//! The report says which.
//!
//! `--measure stalled`: what 1,000 clients that read nothing cost 1,000 that do.
//!
//! `--test` (50 clients), `--n 100,10k` (clients, one number after the other), `--only NAME,..` (servers), `--rounds R`, `--markdown`, `--json FILE`. 10,000 clients need `ulimit -n` above that.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "measured times and counts are far below 2^52")]

mod child;
#[path = "../common/mod.rs"]
mod common;
#[path = "../load/mod.rs"]
mod load;
mod ours;
mod peers;
mod process;
mod report;
mod server;
mod servers;
mod stalled;
mod turn;

use std::time::Instant;

use crate::common::args::Args;
use crate::common::machine;
use crate::report::Report;
use crate::turn::Plan;

fn main() {
    if child::is_one() {
        child::run();
        return;
    }
    let args = Args::read();
    let start = Instant::now();
    let (mut plan, rounds) = if args.test { (TEST, 1) } else { (FULL, args.rounds.unwrap_or(5)) };
    if args.measure.iter().any(|measure| measure == "stalled") || args.test {
        stalled::compare(&args, rounds);
        if !args.test {
            args.record.end();
            return;
        }
    }
    let servers: Vec<_> = servers::all().filter(|server| args.wants(server.name)).collect();
    let sizes = if args.n.is_empty() { vec![plan.clients] } else { args.n.clone() };
    for clients in sizes {
        plan.clients = clients;
        let mut report = Report::new(&servers, clients);
        for round in 0..rounds {
            for turned in 0..servers.len() {
                let at = (turned + round) % servers.len();
                report.add(at, turn::take(servers[at], plan));
                eprintln!(
                    "{:4.0} s, load {:.2}: {clients} clients, round {}, {}",
                    start.elapsed().as_secs_f64(),
                    machine::load(),
                    round + 1,
                    servers[at].name
                );
            }
        }
        report.record(&args.record);
        if !args.test {
            report.print(args.markdown);
        }
    }
    args.record.end();
    if args.test {
        println!("web: every client of every server got every broadcast, once and in order");
    }
}

const TEST: Plan = Plan { clients: 50, paced: 5, singles: 5, bursts: 5 };
const FULL: Plan = Plan { clients: 10_000, paced: 10, singles: 20, bursts: 5 };
