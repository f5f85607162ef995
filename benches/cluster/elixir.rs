//! Elixir: two nodes of the Erlang distribution with `:pg` and `Registry`, which Phoenix.PubSub is made of between nodes. Knows no measurement.

use std::net::Ipv4Addr;
use std::net::TcpStream;
use std::process;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::common::beam;
use crate::common::beam::Beam;
use crate::engine;

/// Two nodes, and the daemon by which they find each other, on a port of its own; all end with this.
pub(crate) struct Pair {
    pub(crate) sender: Beam,
    pub(crate) receiver: Beam,
    /// On which the receiving node listens.
    pub(crate) port: u16,
    epmd: Child,
}

/// Whether there is all that it needs.
pub(crate) fn is_there() -> bool {
    beam::is_there() && Command::new("epmd").arg("-help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

impl Pair {
    /// The receiving node is interested in so many topics.
    pub(crate) fn start(topics: usize) -> Self {
        let (meeting, port) = (engine::free_port(), engine::free_port());
        let variables = [("ERL_EPMD_PORT", &*meeting.to_string()), ("ERL_EPMD_ADDRESS", "127.0.0.1")];
        let epmd = Command::new("epmd").envs(variables).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, meeting)).is_err() {
            assert!(Instant::now() < patience, "epmd does not start");
            thread::sleep(Duration::from_millis(5));
        }
        let name = |side: &str| format!("{side}{}@127.0.0.1", process::id());
        let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
        let listens = format!("{loopback} -kernel inet_dist_listen_min {port} -kernel inet_dist_listen_max {port}");
        let node = |side, erl: &str, arguments: &[&str]| {
            let beam = Beam::start("pg.exs", &["--name", &name(side), "--cookie", "bench", "--erl", erl], arguments, &variables);
            beam.answer("ready");
            beam
        };
        let receiver = node("receiver", &listens, &["receive", &topics.to_string()]);
        let sender = node("sender", loopback, &["send", &name("receiver")]);
        Self { sender, receiver, port, epmd }
    }

    /// An order, and the numbers that answer it.
    pub(crate) fn ask(&mut self, order: &str, begin: &str) -> Vec<f64> {
        self.sender.tell(order);
        self.told(begin)
    }

    pub(crate) fn told(&self, begin: &str) -> Vec<f64> {
        let answer = self.sender.answer(begin);
        answer.split([' ', ',']).filter(|word| !word.is_empty()).map(|word| word.parse().expect("a number")).collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // It may have ended by itself; the nodes end with their input.
        let _ = self.epmd.kill();
        let _ = self.epmd.wait();
    }
}
