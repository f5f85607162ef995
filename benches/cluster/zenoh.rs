//! Zenoh: its bare session with the settings of our transport, a subscriber for each topic. Knows no measurement.

use std::thread;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use zenoh::Config;
use zenoh::Session;
use zenoh::Wait;
use zenoh::key_expr::KeyExpr;
use zenoh::qos::CongestionControl;
use zenoh::qos::Priority;
use zenoh::sample::Sample;

use crate::engine::topic;
use crate::tally::Tally;
use crate::window::Sends;

pub(crate) struct Zenoh {
    session: Session,
    keys: Vec<KeyExpr<'static>>,
}

impl Zenoh {
    /// On a thread without a runtime.
    pub(crate) fn connect(place: &str, topics: usize) -> Self {
        let session = open(None, Some(place));
        let keys: Vec<_> = (0..topics).map(key).collect();
        for key in &keys {
            let publisher = session.declare_publisher(key.clone()).wait().expect("a publisher");
            while !publisher.matching_status().wait().expect("a status").matching() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Self { session, keys }
    }
}

impl Sends for Zenoh {
    async fn send(&mut self, topic: usize, note: &[u8]) {
        let put = self.session.put(self.keys[topic].clone(), note);
        put.congestion_control(CongestionControl::Drop).priority(Priority::Data).wait().expect("it sends");
    }

    async fn flush(&mut self) {}
}

pub(crate) fn receive(place: &str, topics: usize, tally: &Tally) {
    let session = open(Some(place), None);
    let subscribers: Vec<_> = (0..topics)
        .map(|number| {
            let tally = tally.clone();
            let take = move |sample: Sample| tally.take(&sample.payload().to_bytes());
            session.declare_subscriber(key(number)).callback(take).wait().expect("it subscribes")
        })
        .collect();
    tally.ready();
    loop {
        thread::park();
        assert_eq!(subscribers.len(), topics, "they stay");
    }
}

fn key(number: usize) -> KeyExpr<'static> {
    // In folders: its routing compares a declaration with each of its siblings.
    KeyExpr::try_from(format!("bench/{}/{}", number % 64, topic(number))).expect("a key")
}

fn open(listen: Option<&str>, connect: Option<&str>) -> Session {
    let listen: Vec<_> = listen.into_iter().chain(connect.map(|_| "tcp/127.0.0.1:0")).collect();
    let connect: Vec<_> = connect.into_iter().collect();
    let keys: [(&str, Value); 16] = [
        ("mode", json!("peer")),
        ("listen/endpoints", json!(listen)),
        ("connect/endpoints", json!(connect)),
        ("connect/timeout_ms", json!(-1)),
        ("connect/exit_on_failure", json!(false)),
        ("connect/retry", json!({ "period_init_ms": 100, "period_max_ms": 1_000, "period_increase_factor": 2.0 })),
        ("scouting/multicast/enabled", json!(false)),
        ("scouting/gossip/enabled", json!(true)),
        ("transport/unicast/lowlatency", json!(false)),
        ("transport/link/tx/lease", json!(5_000)),
        ("transport/link/tx/keep_alive", json!(4)),
        ("transport/link/tx/queue/size/data", json!(16)),
        ("transport/link/tx/queue/size/control", json!(16)),
        ("transport/link/tx/queue/congestion_control/drop/wait_before_drop", json!(10_000)),
        ("transport/link/tx/queue/congestion_control/block/wait_before_close", json!(1_000_000)),
        ("transport/link/tx/queue/batching/enabled", json!(true)),
    ];
    let mut config = Config::default();
    for (key, value) in keys {
        config.insert_json5(key, &value.to_string()).expect("a setting");
    }
    zenoh::open(config).wait().expect("a session")
}
