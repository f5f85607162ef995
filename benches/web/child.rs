//! Child: this bench as a process of its own, a server or the load, on a core of its own, that is talked to line by line. Knows no measurement.

use std::env;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;

use crate::load;
use crate::server;
use crate::servers;

/// A running one; ends with its input, which ends with this.
pub(crate) struct Child {
    what: String,
    process: process::Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Child {
    pub(crate) fn server(name: &str) -> Self {
        Self::start(format!("server {name}"), "0")
    }

    pub(crate) fn load(name: &str, port: u16, clients: usize) -> Self {
        Self::start(format!("load {port} {clients} {name}"), "1")
    }

    /// Clients that can be told to read no more.
    pub(crate) fn crowd(name: &str, port: u16, clients: usize) -> Self {
        Self::start(format!("crowd {port} {clients} {name}"), "1")
    }

    fn start(what: String, core: &str) -> Self {
        let this = env::current_exe().expect("a program");
        let mut command = if are_pinned() {
            let mut pinned = Command::new("taskset");
            pinned.arg("-c").arg(core).arg(this);
            pinned
        } else {
            Command::new(this)
        };
        command.env(ASKED, &what).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let (orders, output) = (process.stdin.take(), process.stdout.take().expect("a pipe"));
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody may be left who wants to know.
                let _ = sender.send(line);
            }
        });
        Self { what, process, orders, answers }
    }

    /// As `/proc` names it.
    pub(crate) fn id(&self) -> String {
        self.process.id().to_string()
    }

    pub(crate) fn tell(&mut self, order: &str) {
        let told = self.orders.as_mut().is_some_and(|orders| writeln!(orders, "{order}").is_ok());
        assert!(told, "the {} ended early", self.what);
    }

    /// The next line that begins so, without this beginning.
    pub(crate) fn answer(&self, begin: &str) -> String {
        loop {
            let answer = self.answers.recv_timeout(load::PATIENCE);
            let line = answer.unwrap_or_else(|error| panic!("no {begin:?} from the {}: {error}", self.what));
            if let Some(rest) = line.strip_prefix(begin) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It ends with its input; if it already has, or does not, there is nothing left to be done.
        let _ = self.process.wait();
    }
}

pub(crate) fn is_one() -> bool {
    env::var_os(ASKED).is_some()
}

/// The child's work.
pub(crate) fn run() {
    let asked = env::var(ASKED).expect("it was asked");
    let (role, rest) = asked.split_once(' ').expect("a role");
    if role == "server" {
        server::run(servers::named(rest));
        return;
    }
    let mut words = rest.splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).expect("a number");
    let (port, clients) = (number(), number());
    let server = servers::named(words.next().expect("a server"));
    load::run(server.dialect, u16::try_from(port).expect("a port"), clients, role == "crowd");
}

/// Whether server and load have a core each.
pub(crate) fn are_pinned() -> bool {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    cores > 1 && Command::new("taskset").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The variable that makes a process a child.
const ASKED: &str = "ACTIX_PUBSUB_BENCH_WEB";
