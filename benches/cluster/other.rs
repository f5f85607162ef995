//! Other: the second process, from the side of the first one, and what it does where this process is the second one. Knows no measurement.

use std::env;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::Peer;
use crate::interest;
use crate::nats;
use crate::ours;
use crate::redis;
use crate::tally;
use crate::tally::Said;
use crate::tally::Tally;
use crate::tcp;
use crate::window::Window;
use crate::zenoh;

/// A running one; it ends when this is dropped.
pub(crate) struct Other {
    process: Child,
    listener: TcpListener,
    asks: TcpStream,
    said: Receiver<Said>,
    pub(crate) window: Arc<Window>,
}

impl Other {
    /// One that receives what a peer sends on so many topics.
    pub(crate) fn receiver(peer: Peer, place: &str, topics: usize) -> Self {
        let (side, engine) = match peer {
            Peer::Ours(engine) => ("ours", engine.name()),
            Peer::Bare(engine) => ("bare", engine.name()),
            Peer::Tcp => ("tcp", "-"),
            Peer::Elixir => unreachable!("its nodes are processes of its own"),
        };
        Self::start(&format!("{side} {engine} {place} {topics}"))
    }

    /// One that is interested in so many topics, in a cluster or alone.
    pub(crate) fn interested(engine: Option<Engine>, place: &str, topics: usize) -> Self {
        Self::start(&format!("interest {} {place} {topics}", engine.map_or("-", Engine::name)))
    }

    fn start(what: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let this = env::current_exe().expect("a program");
        let process = Command::new(this)
            .env(ASKED, format!("{what} {port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let (asks, _) = listener.accept().expect("it connects");
        asks.set_nodelay(true).expect("an option");
        let window = Arc::new(Window::default());
        let (told, said) = mpsc::channel();
        let (mut reads, got) = (asks.try_clone().expect("a handle"), Arc::clone(&window));
        thread::spawn(move || {
            let mut bytes = [0; 32];
            while reads.read_exact(&mut bytes).is_ok() {
                let number = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
                let said = [0, 1, 2, 3].map(number);
                if said[0] == tally::GOT {
                    got.set(said[1], said[2]);
                }
                // Nobody may be left who wants to know.
                let _ = told.send(said);
            }
        });
        let ticks = asks.try_clone().expect("a handle");
        thread::spawn(move || {
            // Until it has ended.
            while (&ticks).write_all(&[tally::ASK_GOT]).is_ok() {
                thread::sleep(TICK);
            }
        });
        Self { process, listener, asks, said, window }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The connection of [`tcp`], which comes second.
    pub(crate) fn accept(&self) -> TcpStream {
        self.listener.accept().expect("it connects").0
    }

    pub(crate) fn ask(&self, what: u8) {
        (&self.asks).write_all(&[what]).expect("it runs");
    }

    /// Waits until it says something of this kind.
    pub(crate) fn wait(&self, kind: u64) -> Said {
        loop {
            let said = self.said.recv_timeout(PATIENCE).expect("the other process is silent");
            if said[0] == kind {
                return said;
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn is_one() -> bool {
    env::var_os(ASKED).is_some()
}

/// What the second process does, until the first one ends it.
pub(crate) fn run() {
    let asked = env::var(ASKED).expect("it was asked");
    let words: Vec<&str> = asked.split(' ').collect();
    let [side, engine, place, topics, port] = words[..] else { panic!("{asked:?} is no order") };
    let (topics, port) = (topics.parse().expect("a number"), port.parse().expect("a port"));
    let tally = Tally::connect(port);
    match (side, engine) {
        ("ours", engine) => ours::receive(Engine::of(engine), place, topics, tally),
        ("interest", "-") => interest::alone(topics, &tally),
        ("interest", engine) => interest::node(Engine::of(engine), place, topics, tally),
        ("tcp", _) => tcp::receive(port, &tally),
        (_, "redis") => redis::receive(place, topics, &tally),
        (_, "nats") => nats::receive(place, topics, &tally),
        (_, _) => zenoh::receive(place, topics, &tally),
    }
}

/// The variable that makes a process the second one.
const ASKED: &str = "ACTIX_PUBSUB_BENCH_CLUSTER";
/// How often it is asked what it has got.
const TICK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);
