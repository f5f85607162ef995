//! Beam: a script of `benches/elixir` as a child process that is talked to line by line. Knows no measurement.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

/// A running one; it ends with its input, which ends with this.
pub(crate) struct Beam {
    script: String,
    process: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

/// Whether there is Elixir; says so if not.
pub(crate) fn is_there() -> bool {
    let found = Command::new("elixir").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        eprintln!("Elixir is left out: there is no `elixir` on PATH (Debian has it: apt-get install elixir)");
    }
    there
}

impl Beam {
    /// `options` are those of `elixir` and of its virtual machine, `arguments` those of the script.
    pub(crate) fn start(script: &str, options: &[&str], arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let path = format!("{}/benches/elixir/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("elixir");
        command.args(options).arg(path).args(arguments).envs(variables.iter().copied());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (orders, output) = (process.stdin.take(), process.stdout.take().expect("a pipe"));
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody may be left who wants to know.
                let _ = sender.send(line);
            }
        });
        Self { script: script.to_owned(), process, orders, answers }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn tell(&mut self, order: &str) {
        let told = self.orders.as_mut().is_some_and(|orders| writeln!(orders, "{order}").is_ok());
        assert!(told, "{} ended early", self.script);
    }

    /// The next line that begins so, without this beginning.
    pub(crate) fn answer(&self, begin: &str) -> String {
        loop {
            let answer = self.answers.recv_timeout(PATIENCE);
            let line = answer.unwrap_or_else(|error| panic!("no {begin:?} from {}: {error}", self.script));
            if let Some(rest) = line.strip_prefix(begin) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It ends with its input; one that hangs does not.
        for _ in 0..100 {
            if self.process.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Longer than any turn takes.
const PATIENCE: Duration = Duration::from_secs(300);
