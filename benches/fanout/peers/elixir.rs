//! Elixir: its `Registry` with `dispatch` and `send`, which Phoenix.PubSub is made of on one node, in a process of its own. On one thread its virtual machine
//! has one scheduler; spread, it has two and puts its processes where it likes.

use std::time::Duration;

use crate::common::beam::Beam;
use crate::rig::Placement;
use crate::rig::Stage;
use crate::rig::Took;
use crate::rig::Turn;

pub(crate) fn run(stage: Stage) {
    let schedulers = if stage.placement == Placement::OneThread { "+S 1:1" } else { "+S 2:2" };
    let mut beam = Beam::start("fanout.exs", &["--erl", schedulers], &[&stage.n.to_string()], &[]);
    beam.answer("ready");
    let (n, mut sent) = (stage.n, 0);
    stage.delegate(|turn| {
        // Enough for a rate; a longer burst takes it minutes.
        let burst = turn.burst.min((DELIVERIES_MAX / n).max(1));
        let took = take(&mut beam, Turn { burst, ..turn });
        sent += (turn.singles + turn.burst * turn.bursts) as u64;
        let times = turn.burst as f64 / burst as f64;
        Took { burst_seconds: took.burst_seconds * times, handled: [sent * n as u64; 2], ..took }
    });
}

/// The script ends a burst when each subscriber has handled its last event, and counts those that were not the next one: with none, all were handled.
fn take(beam: &mut Beam, turn: Turn) -> Took {
    beam.tell(&format!("{} {} {}", turn.singles, turn.burst, turn.bursts));
    let line = beam.answer("took");
    let [published, last, nanos, faults] = line.split("; ").collect::<Vec<_>>()[..] else { panic!("{line:?} is no answer") };
    let list = |text: &str| text.split(',').filter_map(|n| n.trim().parse().ok()).collect::<Vec<f64>>();
    let (publish, last) = (list(published), list(last));
    assert_eq!((publish.len(), last.len()), (turn.singles, turn.singles), "{line:?}");
    Took {
        publish,
        last,
        burst_seconds: Duration::from_nanos(nanos.parse().expect("a number")).as_secs_f64(),
        faults: faults.parse().expect("a number"),
        handled: [0; 2],
    }
}

/// Of a burst: more events are not sent, and it counts as if they had been, at the same rate.
const DELIVERIES_MAX: usize = 1_000_000;
