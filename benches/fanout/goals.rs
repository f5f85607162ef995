//! Goals: what this crate promises of its speed, checked against a report. Ratios only, never times.

use crate::common::numbers;
use crate::peers::LOOP;
use crate::peers::OURS;
use crate::report::Medians;
use crate::report::Report;
use crate::rig::Placement;
use crate::rig::Placement::OneThread;
use crate::rig::Placement::TwoThreads;

pub(crate) fn print(report: &Report) {
    println!("Goals against the do_send loop:");
    against_the_loop(report);
    println!("Goals against every other peer:");
    against_the_others(report);
}

fn against_the_loop(report: &Report) {
    for placement in Placement::ALL {
        let check = |n: usize, what: &str, least: f64, ratio: fn(Medians, Medians) -> f64| {
            if let (Some(base), Some(ours)) = (report.get(n, placement, LOOP), report.get(n, placement, OURS)) {
                line(ratio(base, ours), least, &format!("{what}, {} {}", numbers::count(n), placement.name()));
            }
        };
        check(100_000, "publish returns sooner", 500.0, |base, ours| base.publish / ours.publish);
        check(100_000, "last handled sooner", 3.0, |base, ours| base.last / ours.last);
        check(1_000, "deliveries", 4.0, |base, ours| ours.rate / base.rate);
        check(10_000, "deliveries", 8.0, |base, ours| ours.rate / base.rate);
        check(100_000, "deliveries", 8.0, |base, ours| ours.rate / base.rate);
        let alone = if placement == OneThread { 1.0 / 1.1 } else { 1.0 };
        check(1, "last handled, alone", alone, |base, ours| base.last / ours.last);
        check(1, "deliveries, alone", alone, |base, ours| ours.rate / base.rate);
        for small in [1_000, 10_000] {
            let (few, many) = (report.get(small, placement, OURS), report.get(100_000, placement, OURS));
            if let (Some(few), Some(many)) = (few, many) {
                let what = format!("publish is flat from {} to 100k, {}", numbers::count(small), placement.name());
                line(few.publish / many.publish, FLAT, &what);
            }
        }
    }
}

fn against_the_others(report: &Report) {
    for (n, placement) in report.sizes().filter(|(_, placement)| [OneThread, TwoThreads].contains(placement)) {
        let Some(ours) = report.get(n, placement, OURS) else { continue };
        let others = || report.peers(n, placement).filter(|(name, _)| ![LOOP, OURS].contains(name));
        let at = format!("{} {}", numbers::count(n), placement.name());
        if let Some((name, best)) = others().max_by(|(_, a), (_, b)| a.rate.total_cmp(&b.rate))
            && n >= 10
        {
            line(ours.rate / best.rate, 1.0, &format!("deliveries against {name}, {at}"));
        }
        if let Some((name, best)) = others().min_by(|(_, a), (_, b)| a.last.total_cmp(&b.last)) {
            let least = if n >= 10_000 { 1.0 } else { NOT_BEHIND };
            line(best.last / ours.last, least, &format!("last handled against {name}, {at}"));
        }
    }
}

fn line(ratio: f64, least: f64, what: &str) {
    let verdict = if ratio >= least { "pass" } else { "FAIL" };
    println!("  {verdict}  {:>7} (at least {:.2})  {what}", numbers::times(ratio), least);
}

/// Publish may take twice as long with a hundred times the subscribers: its caches are colder.
const FLAT: f64 = 0.5;
/// Level within what two runs differ.
const NOT_BEHIND: f64 = 0.95;
