//! Servers: the real redis-server and nats-server on loopback ports of their own, to be killed, paused and started again. Ends only what it started.

use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// A server process with a port and a folder; killed and its folder removed on drop.
pub struct Server {
    kind: Kind,
    pub port: u16,
    folder: PathBuf,
    /// What its configuration file says, if it has one.
    config: Option<String>,
    child: Option<Child>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// With an append-only file, synced at every write: what was answered survives a kill.
    Redis,
    /// Over TLS, and keeps nothing.
    RedisTls,
    /// With `JetStream`.
    Nats,
}

impl Server {
    pub fn redis() -> Self {
        Self::start(Kind::Redis, None)
    }

    pub fn nats() -> Self {
        Self::start(Kind::Nats, None)
    }

    /// That speaks TLS only, with these files, and wants this password.
    pub fn redis_with_tls(certificate: &str, key: &str, password: &str) -> Self {
        let config = format!("tls-cert-file {certificate}\ntls-key-file {key}\ntls-auth-clients no\nrequirepass {password}\n");
        Self::start(Kind::RedisTls, Some(&config))
    }

    /// With this in its configuration file.
    pub fn nats_with(config: &str) -> Self {
        Self::start(Kind::Nats, Some(config))
    }

    fn start(kind: Kind, config: Option<&str>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pubsub-server-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // Between finding a free port and the server's bind another process may take it: then the next one.
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let mut server = Self { kind, port, folder: folder.clone(), config: config.map(str::to_owned), child: None };
            if server.up() {
                return server;
            }
            // Its drop has removed the folder.
            drop(server);
            std::fs::create_dir_all(&folder).unwrap();
            assert!(Instant::now() < deadline, "the server does not start");
        }
    }

    fn up(&mut self) -> bool {
        let port = self.port.to_string();
        let mut command = match self.kind {
            Kind::Redis => {
                let mut command = Command::new("redis-server");
                command.args([
                    "--port",
                    &port,
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "always",
                    "--dir",
                ]);
                command.arg(&self.folder);
                command
            }
            Kind::RedisTls => {
                let path = self.folder.join("redis.conf");
                std::fs::write(&path, self.config.as_deref().unwrap_or_default()).unwrap();
                let mut command = Command::new("redis-server");
                command.arg(path).args(["--port", "0", "--tls-port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"]);
                command.arg(&self.folder);
                command
            }
            Kind::Nats => {
                let mut command = Command::new("nats-server");
                command.args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"]).arg(&self.folder);
                if let Some(config) = &self.config {
                    let path = self.folder.join("nats.conf");
                    std::fs::write(&path, config).unwrap();
                    command.arg("-c").arg(path);
                }
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child =
            Some(child.unwrap_or_else(|error| panic!("the server is not installed, `sh tests/run.sh` does it: {error}")));
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            if self.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut answer = [0; 5];
        let asked = match self.kind {
            Kind::Redis => stream.write_all(b"PING\r\n"),
            Kind::Nats => Ok(()),
            // What comes then is not for us.
            Kind::RedisTls => return true,
        };
        asked.is_ok() && stream.read_exact(&mut answer).is_ok() && matches!(&answer, b"+PONG" | b"INFO ")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// On the same port, with what it had kept.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.up() {
            self.kill();
            assert!(Instant::now() < deadline, "the server does not come back on port {}", self.port);
        }
    }

    /// `SIGSTOP`: it holds its connections and answers nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
        // A signal that was sent has not stopped its threads yet, and one of them may still answer.
        let tasks = format!("/proc/{}/task", self.child.as_ref().expect("it runs").id());
        let is_stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        let runs = || {
            let mut tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
            tasks.any(|task| !std::fs::read_to_string(task.path().join("stat")).is_ok_and(is_stopped))
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while runs() {
            assert!(Instant::now() < deadline, "the server does not stop");
            std::thread::yield_now();
        }
    }

    /// `SIGCONT`.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn url(&self) -> String {
        match self.kind {
            Kind::Redis => format!("redis://127.0.0.1:{}", self.port),
            Kind::RedisTls => format!("rediss://localhost:{}", self.port),
            Kind::Nats => format!("nats://127.0.0.1:{}", self.port),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // It is in the temporary folder either way.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
