//! Plots: which rows are drawn, and how. Knows no drawing.

use crate::plot;
use crate::plot::Axis;
use crate::plot::Axis::Linear;
use crate::plot::Axis::Log;
use crate::plot::Axis::Percentile;
use crate::plot::Curve;
use crate::plot::Frame;
use crate::read::Row;
use crate::read::Section;

/// One that is drawn.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) section: &'static str,
    pub(crate) name: String,
    pub(crate) title: &'static str,
    pub(crate) svg: String,
}

/// Curves of all peers of one measure in one setting.
struct Plot {
    section: &'static str,
    part: &'static str,
    measure: &'static str,
    setting: &'static str,
    /// Of its file, after the section's.
    name: &'static str,
    title: &'static str,
    x: (&'static str, Axis),
    y: (&'static str, Axis),
}

const PLOTS: &[Plot] = &[
    Plot {
        section: "fanout",
        part: "fanout",
        measure: "publish returns",
        setting: "1t",
        name: "return",
        title: "Publish returns, publisher and subscribers on one thread",
        x: ("subscribers", Log),
        y: ("one event", Log),
    },
    Plot {
        section: "fanout",
        part: "fanout",
        measure: "publish returns",
        setting: "2t",
        name: "return-2t",
        title: "Publish returns, subscribers on another thread",
        x: ("subscribers", Log),
        y: ("one event", Log),
    },
    Plot {
        section: "fanout",
        part: "fanout",
        measure: "last handled",
        setting: "1t",
        name: "last",
        title: "Last handler has run, one thread",
        x: ("subscribers", Log),
        y: ("one event", Log),
    },
    Plot {
        section: "fanout",
        part: "fanout",
        measure: "deliveries",
        setting: "1t",
        name: "deliveries",
        title: "Deliveries per second, one thread",
        x: ("subscribers", Log),
        y: ("sustained", Log),
    },
    Plot {
        section: "fanout",
        part: "fanout",
        measure: "deliveries",
        setting: "spread",
        name: "deliveries-spread",
        title: "Deliveries per second, subscribers spread over two threads",
        x: ("subscribers", Log),
        y: ("sustained", Log),
    },
    Plot {
        section: "table",
        part: "cleanup",
        measure: "until all are gone",
        setting: "stop",
        name: "cleanup",
        title: "All n subscribers of a topic end at once: until all are gone",
        x: ("deaths", Log),
        y: ("time", Log),
    },
    Plot {
        section: "table",
        part: "topics",
        measure: "publish returns",
        setting: "",
        name: "topics",
        title: "A broadcast to one of n topics",
        x: ("topics", Log),
        y: ("returns after", Linear),
    },
    Plot {
        section: "table",
        part: "arbiters",
        measure: "publish returns",
        setting: "",
        name: "arbiters",
        title: "A broadcast to one subscriber on each of n sleeping arbiters",
        x: ("arbiters", Log),
        y: ("returns after", Linear),
    },
    Plot {
        section: "log",
        part: "append",
        measure: "durable entries",
        setting: "",
        name: "append",
        title: "Durable appends per second",
        x: ("appenders", Log),
        y: ("entries", Log),
    },
    Plot {
        section: "log",
        part: "latency",
        measure: "one entry, from its append on",
        setting: "",
        name: "latency",
        title: "From append to handler, one entry at a time",
        x: ("percentile", Percentile),
        y: ("latency", Log),
    },
    Plot {
        section: "cluster",
        part: "crossing",
        measure: "one way, 100 B, 1,000 notes a second",
        setting: "",
        name: "latency",
        title: "From one process to the other, 100 B at 1,000/s",
        x: ("percentile", Percentile),
        y: ("latency", Log),
    },
    Plot {
        section: "cluster",
        part: "nodes",
        measure: "the last node has handled it",
        setting: "",
        name: "nodes",
        title: "A broadcast to n nodes in one process: the last has handled it",
        x: ("nodes", Log),
        y: ("time", Log),
    },
    Plot {
        section: "web",
        part: "web",
        measure: "Frames per second",
        setting: "bursts of 16",
        name: "bursts",
        title: "Frames per second to n connections, bursts of 16 broadcasts",
        x: ("connections", Log),
        y: ("frames", Log),
    },
    Plot {
        section: "web",
        part: "web",
        measure: "Frames per second",
        setting: "one broadcast at a time",
        name: "singles",
        title: "Frames per second to n connections, one broadcast at a time",
        x: ("connections", Log),
        y: ("frames", Log),
    },
    Plot {
        section: "web",
        part: "web latency",
        measure: "from broadcast to client",
        setting: "10k connections",
        name: "latency",
        title: "From broadcast to client, 10,000 connections, 2 broadcasts a second",
        x: ("percentile", Percentile),
        y: ("latency", Log),
    },
];

pub(crate) fn draw(sections: &[Section]) -> Vec<Drawn> {
    let mut drawn = Vec::new();
    for plot in PLOTS {
        let Some(section) = sections.iter().find(|section| section.name == plot.section) else { continue };
        let rows: Vec<&Row> = section
            .rows
            .iter()
            .filter(|row| (&*row.part, &*row.measure, &*row.setting) == (plot.part, plot.measure, plot.setting))
            .collect();
        push(&mut drawn, plot, &rows, |row| row.peer.clone(), |row| row.value);
    }
    costs(&mut drawn, sections);
    throughput(&mut drawn, sections);
    drawn
}

fn push(drawn: &mut Vec<Drawn>, plot: &Plot, rows: &[&Row], name: impl Fn(&Row) -> String, x: impl Fn(&Row) -> f64) {
    let mut curves: Vec<Curve> = Vec::new();
    for row in rows.iter().filter(|row| !row.median().is_nan()) {
        let (name, point) = (name(row), [x(row), row.median(), row.min(), row.max()]);
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name, points: vec![point] }),
        }
    }
    // There is no room for the hundredth of a hundred on an axis of nines.
    if plot.x.1 == Percentile {
        for curve in &mut curves {
            curve.points.retain(|point| point[0] < 100.0);
        }
    }
    let Some(first) = rows.first() else { return };
    let frame =
        Frame { title: plot.title, x_title: plot.x.0, y_title: plot.y.0, unit: &first.unit, x_axis: plot.x.1, y_axis: plot.y.1 };
    let svg = plot::curves(&frame, &curves);
    drawn.push(Drawn { section: plot.section, name: format!("{}-{}", plot.section, plot.name), title: plot.title, svg });
}

/// Rates of the log over the number of entries, one curve for each measure.
fn costs(drawn: &mut Vec<Drawn>, sections: &[Section]) {
    const COSTS: Plot = Plot {
        section: "log",
        part: "cost",
        measure: "",
        setting: "1 topics",
        name: "size",
        title: "Append, read and replay over the size of the log",
        x: ("entries", Log),
        y: ("entries", Log),
    };
    let Some(section) = sections.iter().find(|section| section.name == COSTS.section) else { return };
    let of = |row: &&Row| row.part == COSTS.part && row.setting == COSTS.setting && row.unit == "/s";
    let rows: Vec<&Row> = section.rows.iter().filter(of).collect();
    push(drawn, &COSTS, &rows, |row| row.measure.clone(), |row| row.value);
}

/// What crosses between two processes, by engine.
fn throughput(drawn: &mut Vec<Drawn>, sections: &[Section]) {
    const TITLE: &str = "Notes per second from one process to the other, by engine";
    let Some(section) = sections.iter().find(|section| section.name == "cluster") else { return };
    let mut peers: Vec<(String, Vec<[f64; 3]>)> = Vec::new();
    // Beside a bare TCP connection all bars would be stumps: it is in the tables only.
    let drawn_rows = section.rows.iter().filter(|row| row.part == "crossing" && row.measure == "notes at full speed");
    for row in drawn_rows.filter(|row| row.peer != "bare TCP pair") {
        let value = [row.median(), row.min(), row.max()];
        match peers.iter_mut().find(|(name, _)| *name == row.peer) {
            Some((_, values)) => values.push(value),
            None => peers.push((row.peer.clone(), vec![value])),
        }
    }
    if peers.is_empty() {
        return;
    }
    let frame = Frame { title: TITLE, x_title: "", y_title: "", unit: "/s", x_axis: Linear, y_axis: Linear };
    let svg = plot::bars(&frame, &["100 B", "1 KiB"], &peers);
    drawn.push(Drawn { section: "cluster", name: "cluster-throughput".to_owned(), title: TITLE, svg });
}
