//! Report: one table for each measure, all servers beside ours. Prints; measures nothing.

use crate::child;
use crate::common::machine;
use crate::common::numbers;
use crate::common::numbers::median;
use crate::common::numbers::quantile;
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

/// A number of a turn; `None` if it was not measured, or not well.
struct Measure {
    title: String,
    of: fn(&Took) -> Option<f64>,
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
        println!(
            "{} clients over loopback, 100 bytes of JSON, {pinned}. Medians of the rounds that count;",
            numbers::count(self.clients)
        );
        println!(
            "`of ours` is the median of the ratios within the rounds. Memory is the server's RSS, without the kernel's buffers."
        );
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

    fn measures(&self) -> Vec<Measure> {
        let pace = 1.0 / (PER_CLIENT * self.clients as u32).as_secs_f64();
        let measure = |title: String, of, print| Measure { title, of, print };
        vec![
            measure("Memory of an idle connection".to_owned(), |took| Some(took.idle), bytes),
            measure("Memory of a connection after all bursts".to_owned(), |took| took.bursts.map(|_| took.after), bytes),
            measure(
                format!("From broadcast to client at {pace:.0} broadcasts/s, p50"),
                |took| calm(took.paced).map(|it| it.p50),
                numbers::time,
            ),
            measure(
                format!("From broadcast to client at {pace:.0} broadcasts/s, p99"),
                |took| calm(took.paced).map(|it| it.p99),
                numbers::time,
            ),
            measure(
                "Frames per second of the server's processor time, one broadcast at a time".to_owned(),
                |took| sound(took.singles).map(|it| it.frames / it.server * 1e9),
                numbers::rate,
            ),
            measure(
                "Frames per second, one broadcast at a time".to_owned(),
                |took| calm(took.singles).map(|it| it.frames / it.active * 1e9),
                numbers::rate,
            ),
            measure(
                format!("Frames per second of the server's processor time, bursts of {BURST}"),
                |took| sound(took.bursts).map(|it| it.frames / it.server * 1e9),
                numbers::rate,
            ),
            measure(
                format!("Frames per second, bursts of {BURST}"),
                |took| calm(took.bursts).map(|it| it.frames / it.active * 1e9),
                numbers::rate,
            ),
            measure(
                format!("For comparison: share of its core that the load needed, bursts of {BURST}"),
                |took| took.bursts.map(|it| it.percent(it.load)),
                |percent| format!("{percent:.0} %"),
            ),
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
            let values: Vec<f64> = turns.iter().filter_map(measure.of).collect();
            let print = measure.print;
            let (middle, range) = if values.is_empty() {
                ("-".to_owned(), "-".to_owned())
            } else {
                (print(median(&values)), format!("{} .. {}", print(quantile(&values, 0.0)), print(quantile(&values, 1.0))))
            };
            let (share, rounds) =
                (numbers::times(self.share(measure, server, turns)), format!("{}/{}", values.len(), turns.len()));
            if markdown {
                println!("| {} | {middle} | {range} | {share} | {rounds} |", server.name);
            } else {
                println!("  {:width$} {middle:>12} {range:>24} {share:>8} {rounds:>7}", server.name);
            }
        }
    }

    /// The median of the rounds in which both count; `NaN` if there is none.
    fn share(&self, measure: &Measure, server: &Server, turns: &[Took]) -> f64 {
        let Some((_, ours)) = self.rows.iter().find(|(other, _)| other.name == server.against) else { return f64::NAN };
        let both = turns.iter().zip(ours).filter_map(|(it, ours)| Some((measure.of)(it)? / (measure.of)(ours)?));
        let shares: Vec<f64> = both.collect();
        if shares.is_empty() { f64::NAN } else { median(&shares) }
    }
}

/// A phase whose processor times count.
fn sound(phase: Option<Phase>) -> Option<Phase> {
    phase.filter(|phase| phase.flaw().is_none())
}

/// A phase whose times count, too.
fn calm(phase: Option<Phase>) -> Option<Phase> {
    sound(phase).filter(|phase| phase.delay().is_none())
}

fn bytes(bytes: f64) -> String {
    format!("{:.1} KiB", bytes / 1024.0)
}
