//! Report: what was measured, as one table. Knows no goals.

use std::collections::BTreeMap;

use crate::common::machine;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::record::Record;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::peers::LOOP;
use crate::peers::OURS;
use crate::rig::Placement;

/// The samples of one peer at one size in one placement.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples {
    pub(crate) publish: Vec<f64>,
    pub(crate) last: Vec<f64>,
    pub(crate) rate: Vec<f64>,
}

impl Samples {
    /// As rows of the record.
    pub(crate) fn record(&self, record: &Record, n: usize, placement: Placement, peer: &str) {
        for (measure, unit, samples) in
            [(PUBLISH, Unit::Nanos, &self.publish), (LAST, Unit::Nanos, &self.last), (DELIVERIES, Unit::PerSecond, &self.rate)]
        {
            if !samples.is_empty() {
                let row = Row::new("fanout", measure, peer, unit, samples).base(LOOP);
                record.row(&row.setting(placement.name()).at("subscribers", n as f64));
            }
        }
    }
}

/// Their medians: ns, ns, deliveries per second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Medians {
    pub(crate) publish: f64,
    pub(crate) last: f64,
    pub(crate) rate: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    /// In the order of the peers' list.
    cells: BTreeMap<(usize, Placement), Vec<(&'static str, Medians)>>,
}

impl Report {
    pub(crate) fn add(&mut self, n: usize, placement: Placement, peer: &'static str, samples: &Samples) {
        let medians = Medians { publish: median(&samples.publish), last: median(&samples.last), rate: median(&samples.rate) };
        self.cells.entry((n, placement)).or_default().push((peer, medians));
    }

    pub(crate) fn get(&self, n: usize, placement: Placement, peer: &str) -> Option<Medians> {
        self.peers(n, placement).find(|(name, _)| *name == peer).map(|(_, medians)| medians)
    }

    pub(crate) fn peers(&self, n: usize, placement: Placement) -> impl Iterator<Item = (&'static str, Medians)> {
        self.cells.get(&(n, placement)).into_iter().flatten().copied()
    }

    pub(crate) fn sizes(&self) -> impl Iterator<Item = (usize, Placement)> {
        self.cells.keys().copied()
    }

    pub(crate) fn print(&self, markdown: bool) {
        println!("{}", machine::line());
        println!(
            "Medians; in brackets how many times as good as the `do_send` loop. 1t: publisher and subscribers on one thread,"
        );
        println!("2t: subscribers on another thread, spread: half of them on each.");
        println!();
        if markdown {
            println!("| subscribers | | {} |", HEADINGS.join(" | "));
            println!("|--:|:--|:--|--:|--:|--:|");
        } else {
            println!("{:>6} {:6} {:18} {:>20} {:>20} {:>22}", "n", "", HEADINGS[0], HEADINGS[1], HEADINGS[2], HEADINGS[3]);
        }
        for ((n, placement), peers) in &self.cells {
            let base = self.get(*n, *placement, LOOP);
            for (peer, it) in peers {
                let times = |ratio: fn(Medians, Medians) -> f64| match base {
                    Some(base) if *peer != LOOP => format!(" ({})", numbers::times(ratio(base, *it))),
                    _ => String::new(),
                };
                let publish = numbers::time(it.publish) + &times(|base, it| base.publish / it.publish);
                let last = numbers::time(it.last) + &times(|base, it| base.last / it.last);
                let rate = numbers::rate(it.rate) + &times(|base, it| it.rate / base.rate);
                let (n, placement) = (numbers::count(*n), placement.name());
                if markdown {
                    let strong = if *peer == OURS { "**" } else { "" };
                    println!("| {n} | {placement} | {strong}{peer}{strong} | {publish} | {last} | {rate} |");
                } else {
                    println!("{n:>6} {placement:6} {peer:18} {publish:>20} {last:>20} {rate:>22}");
                }
            }
            if !markdown {
                println!();
            }
        }
    }
}

const PUBLISH: &str = "publish returns";
const LAST: &str = "last handled";
const DELIVERIES: &str = "deliveries";
const HEADINGS: [&str; 4] = ["peer", PUBLISH, LAST, DELIVERIES];
