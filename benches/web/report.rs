//! Report: one table for each measure, all servers beside ours. Prints; measures nothing.

use crate::child;
use crate::common::machine;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::numbers::quantile;
use crate::common::record::PERCENTILES;
use crate::common::record::Record;
use crate::common::record::Row;
use crate::common::record::Unit;
use crate::server::Server;
use crate::turn::BURST;
use crate::turn::PER_CLIENT;
use crate::turn::Phase;
use crate::turn::Took;

/// What all servers did in all rounds.
#[derive(Default)]
pub(crate) struct Report {
    clients: usize,
    rows: Vec<(&'static Server, Vec<Took>)>,
}

/// A number of a turn, and whether it counts.
struct Measure {
    title: String,
    /// What it is, and in what, for the record.
    name: &'static str,
    setting: &'static str,
    unit: Unit,
    of: fn(&Took) -> Option<f64>,
    counts: fn(&Took) -> bool,
    print: fn(f64) -> String,
}

impl Report {
    pub(crate) fn new(servers: &[&'static Server], clients: usize) -> Self {
        Self { clients, rows: servers.iter().map(|server| (*server, Vec::new())).collect() }
    }

    /// Of the next round.
    pub(crate) fn add(&mut self, at: usize, took: Took) {
        self.rows[at].1.push(took);
    }

    pub(crate) fn print(&self, markdown: bool) {
        println!("{}", machine::line());
        let pinned = if child::are_pinned() { "server and load on a core each (taskset)" } else { "nothing is pinned" };
        println!("{} clients over loopback, 100 bytes of JSON, {pinned}.", numbers::count(self.clients));
        println!(
            "Medians of the rounds that count, or `~` of all if none does. `of ours` is the median of the ratios within the rounds."
        );
        println!("Memory is the server's RSS, without the kernel's buffers.");
        for measure in self.measures() {
            self.table(&measure, markdown);
        }
        println!();
        for (server, turns) in &self.rows {
            for (round, took) in turns.iter().enumerate() {
                for (name, phase) in [("paced", &took.paced), ("singles", &took.singles), ("bursts", &took.bursts)] {
                    if let Some(flaw) = phase.as_ref().and_then(Phase::flaw) {
                        println!("does not count: {}, round {}, {name}: {flaw}", server.name, round + 1);
                    } else if let Some(delay) = phase.as_ref().and_then(Phase::delay) {
                        println!("counts by its processor time alone: {}, round {}, {name}: {delay}", server.name, round + 1);
                    }
                }
            }
        }
    }

    /// All of it; a round that does not count is none.
    pub(crate) fn record(&self, record: &Record) {
        for measure in self.measures() {
            for (server, turns) in &self.rows {
                let counted = |took: &Took| (measure.of)(took).filter(|_| (measure.counts)(took)).unwrap_or(f64::NAN);
                let (counted, all) = (turns.iter().map(counted), turns.iter().filter_map(measure.of));
                // Of a server that nobody can broadcast to.
                if all.count() > 0 {
                    let row = Row::new("web", measure.name, server.name, measure.unit, &counted.collect::<Vec<_>>());
                    record.row(&row.base(server.against).setting(measure.setting).at("connections", self.clients as f64));
                }
            }
        }
        for (server, turns) in &self.rows {
            for (at, percentile) in PERCENTILES.into_iter().enumerate() {
                let of = |took: &Took| took.paced.map(|phase| if calm(took.paced) { phase.percentiles[at] } else { f64::NAN });
                let samples: Vec<f64> = turns.iter().filter_map(of).collect();
                if !samples.is_empty() {
                    let clients = format!("{} connections", numbers::count(self.clients));
                    let row = Row::new("web latency", "from broadcast to client", server.name, Unit::Nanos, &samples);
                    record.row(&row.base(server.against).setting(&clients).at("percentile", percentile));
                }
            }
        }
    }

    fn measures(&self) -> Vec<Measure> {
        let pace = 1.0 / (PER_CLIENT * self.clients as u32).as_secs_f64();
        let paced = format!("From broadcast to client at {pace:.0} broadcasts/s");
        let measure = |title: &str, of, counts, print| Measure {
            title: title.to_owned(),
            name: "",
            setting: "",
            unit: Unit::Count,
            of,
            counts,
            print,
        };
        let named = |measure: Measure, name, setting, unit| Measure { name, setting, unit, ..measure };
        let singles = |name: &'static str, of, counts, print, unit| {
            named(measure(&format!("{name}, one broadcast at a time"), of, counts, print), name, "one broadcast at a time", unit)
        };
        let bursts = |name: &'static str, of, counts, print, unit| {
            named(measure(&format!("{name}, bursts of {BURST}"), of, counts, print), name, "bursts of 16", unit)
        };
        let (idle, after) = ("Memory of an idle connection", "Memory of a connection after all bursts");
        let (p50, p99) = (format!("{paced}, p50"), format!("{paced}, p99"));
        vec![
            named(measure(idle, |it| Some(it.idle), |_| true, bytes), idle, "", Unit::Bytes),
            named(measure(after, |it| it.bursts.map(|_| it.after), |_| true, bytes), after, "", Unit::Bytes),
            named(measure(&p50, |it| Some(it.paced?.p50), |it| calm(it.paced), numbers::time), CROSSING, "p50", Unit::Nanos),
            named(measure(&p99, |it| Some(it.paced?.p99), |it| calm(it.paced), numbers::time), CROSSING, "p99", Unit::Nanos),
            singles(PER_CORE, |it| Some(it.singles?.per_core()), |it| sound(it.singles), numbers::rate, Unit::PerSecond),
            singles(PER_SECOND, |it| Some(it.singles?.per_second()), |it| calm(it.singles), numbers::rate, Unit::PerSecond),
            bursts(PER_CORE, |it| Some(it.bursts?.per_core()), |it| sound(it.bursts), numbers::rate, Unit::PerSecond),
            bursts(PER_SECOND, |it| Some(it.bursts?.per_second()), |it| calm(it.bursts), numbers::rate, Unit::PerSecond),
            singles(LOAD_SHARE, |it| Some(it.singles?.load_percent()), |_| true, percent, Unit::Count),
            bursts(LOAD_SHARE, |it| Some(it.bursts?.load_percent()), |_| true, percent, Unit::Count),
        ]
    }

    fn table(&self, measure: &Measure, markdown: bool) {
        println!("\n{}:\n", measure.title);
        let width = self.rows.iter().map(|(server, _)| server.name.len()).max().unwrap_or(0);
        if markdown {
            println!("| server | median | min .. max | of ours | rounds |\n|:--|--:|--:|--:|--:|");
        } else {
            println!("  {:width$} {:>12} {:>24} {:>8} {:>7}", "server", "median", "min .. max", "of ours", "rounds");
        }
        for (server, turns) in &self.rows {
            let [median, range, share, rounds] = self.cells(measure, server, turns);
            if markdown {
                println!("| {} | {median} | {range} | {share} | {rounds} |", server.name);
            } else {
                println!("  {:width$} {median:>12} {range:>24} {share:>8} {rounds:>7}", server.name);
            }
        }
    }

    fn cells(&self, measure: &Measure, server: &Server, turns: &[Took]) -> [String; 4] {
        let all: Vec<f64> = turns.iter().filter_map(measure.of).collect();
        if all.is_empty() {
            return ["-"; 4].map(str::to_owned);
        }
        let counted: Vec<f64> = turns.iter().filter(|it| (measure.counts)(it)).filter_map(measure.of).collect();
        let rounds = format!("{}/{}", counted.len(), all.len());
        let (values, mark) = if counted.is_empty() { (all, "~") } else { (counted, "") };
        let print = measure.print;
        let range = format!("{} .. {}", print(quantile(&values, 0.0)), print(quantile(&values, 1.0)));
        [format!("{mark}{}", print(median(&values))), range, self.share(measure, server, turns), rounds]
    }

    /// How much of ours, within the rounds in which both count; within all rounds if there is none.
    fn share(&self, measure: &Measure, server: &Server, turns: &[Took]) -> String {
        let ours = self.rows.iter().find(|(other, _)| other.name == server.against).map_or(&[][..], |(_, turns)| turns);
        let share = |(it, ours): (&Took, &Took)| Some((measure.of)(it)? / (measure.of)(ours)?);
        let count = |(it, ours): &(&Took, &Took)| (measure.counts)(it) && (measure.counts)(ours);
        let counted: Vec<f64> = turns.iter().zip(ours).filter(count).filter_map(share).collect();
        if !counted.is_empty() {
            return numbers::times(median(&counted));
        }
        let all: Vec<f64> = turns.iter().zip(ours).filter_map(share).collect();
        if all.is_empty() { "-".to_owned() } else { format!("~{}", numbers::times(median(&all))) }
    }
}

/// Whether its processor times count.
fn sound(phase: Option<Phase>) -> bool {
    phase.is_some_and(|phase| phase.flaw().is_none())
}

/// Whether its times count, too.
fn calm(phase: Option<Phase>) -> bool {
    phase.is_some_and(|phase| phase.flaw().or_else(|| phase.delay()).is_none())
}

fn bytes(bytes: f64) -> String {
    format!("{:.1} KiB", bytes / 1024.0)
}

fn percent(percent: f64) -> String {
    format!("{percent:.0} %")
}

const CROSSING: &str = "From broadcast to client, 20,000 frames/s in all";
const PER_CORE: &str = "Frames per second of the server's processor time";
const PER_SECOND: &str = "Frames per second";
const LOAD_SHARE: &str = "Share of its core that the load needed";
