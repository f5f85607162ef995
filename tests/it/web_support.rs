//! What the tests of the web edge share: servers on threads and in processes, a client that writes its own frames, a proxy that cuts connections.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::ops::Range;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use actix_pubsub::PubSub;
use actix_pubsub::web::Edge;
use actix_web::App;
use actix_web::web;
use serde_json::Value;

/// How long anything may take, with other tests on the same cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

// ---- randomness ------------------------------------------------------------------------------------------------------

/// `SplitMix64`: the same numbers for the same seed.
#[derive(Clone)]
pub(crate) struct Random(Arc<AtomicU64>);

impl Random {
    /// Of the variable `SEED`, else another one at each run; printed.
    pub(crate) fn seeded() -> Self {
        let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| getrandom::u64().unwrap());
        println!("SEED={seed}");
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// Numbers of its own, for a thread of its own.
    pub(crate) fn fork(&self) -> Self {
        Self(Arc::new(AtomicU64::new(self.below(u64::MAX))))
    }

    pub(crate) fn below(&self, max: u64) -> u64 {
        let mut mixed = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % max
    }
}

/// A size of the run, larger by an environment variable.
pub(crate) fn size(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

pub(crate) fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

// ---- servers ---------------------------------------------------------------------------------------------------------

/// Serves what `routes` sets up, on a thread of its own with one worker, until the test ends.
pub(crate) fn serve(pubsub: &PubSub, routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static) -> SocketAddr {
    let pubsub = pubsub.clone();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let edge = Edge::of(&pubsub);
            let app = move || App::new().app_data(web::Data::new(pubsub.clone())).configure(routes.clone());
            let server = actix_web::HttpServer::new(app).workers(1).on_connect(edge.on_connect()).h1_allow_half_closed(false);
            let server = server.disable_signals().bind(("127.0.0.1", 0)).unwrap();
            tell.send(server.addrs()[0]).unwrap();
            server.run().await.unwrap();
        });
    });
    told.recv().unwrap()
}

/// A server in a process of its own: a test of this binary, told by the environment what to do. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Process {
    /// Begins `test`, which calls [`child_of`], and waits until it listens. Port 0: any.
    pub(crate) fn start(test: &str, port: u16, file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env("ACTIX_PUBSUB_EDGE_PORT", port.to_string())
            .env("ACTIX_PUBSUB_EDGE_FILE", file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut out, mut said) = (child.stdout.take().unwrap(), String::new());
        let port = loop {
            let mut byte = [0];
            assert!(out.read(&mut byte).unwrap() > 0, "it ended with {said:?}");
            said.push(char::from(byte[0]));
            // The harness writes its own words before.
            if let Some(port) = said.strip_suffix('\n').and_then(|said| said.rsplit_once("PORT ")) {
                break port.1.parse::<u16>().unwrap();
            }
        };
        // What it says later is not to block it.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Self { child, addr: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how long it took to end.
    pub(crate) fn terminate(mut self) -> Duration {
        let begun = Instant::now();
        assert!(Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap().success());
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        begun.elapsed()
    }

    /// A number of `/proc/<pid>/status`, kilobytes for `VmRSS:`.
    pub(crate) fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the process that [`Process::start`] began: its port and its file. Ends the process when the test that began it does.
pub(crate) fn child_of() -> Option<(u16, std::path::PathBuf)> {
    let port = std::env::var("ACTIX_PUBSUB_EDGE_PORT").ok()?.parse().unwrap();
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    Some((port, std::env::var_os("ACTIX_PUBSUB_EDGE_FILE").unwrap().into()))
}

/// A port that nobody has at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// One HTTP request on a connection of its own: its status and body.
pub(crate) fn http(addr: SocketAddr, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    write!(socket, "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

// ---- frames ----------------------------------------------------------------------------------------------------------

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FIN: u8 = 0x80;

/// A client's frame: its first byte, and a payload with the shortest length.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let form = match payload.len() {
        0..=125 => 7,
        126..=65_535 => 16,
        _ => 64,
    };
    frame_in(form, first, payload)
}

/// A client's frame with its length in 7, 16 or 64 bits.
pub(crate) fn frame_in(bits: u8, first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match bits {
        7 => bytes.push(0x80 | payload.len() as u8),
        16 => {
            bytes.push(0xfe);
            bytes.extend((payload.len() as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let mask = [0x12, 0xf4, 0x56, 0x9a];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A WebSocket client that says what it is told to, right or wrong.
pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::connect_with(addr, "")
    }

    /// After the handshake and the welcome.
    pub(crate) fn connect_with(addr: SocketAddr, headers: &str) -> Self {
        let mut raw = Self::handshake(addr, headers);
        let (first, payload) = raw.next().unwrap();
        assert!(first == FIN | TEXT && String::from_utf8_lossy(&payload).contains("welcome"), "{first} {payload:?}");
        raw
    }

    pub(crate) fn handshake(addr: SocketAddr, headers: &str) -> Self {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let head = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        write!(socket, "GET /ws HTTP/1.1\r\nHost: {addr}\r\n{head}{headers}\r\n").unwrap();
        let mut raw = Self { socket, read: Vec::new() };
        let end = loop {
            match raw.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end,
                None => assert!(raw.fill(), "no answer to the handshake"),
            }
        };
        let head = String::from_utf8(raw.read.drain(..end + 4).collect()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        raw
    }

    /// `false`: the other side is gone.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16_384];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.read.extend_from_slice(&buffer[..read]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(crate) fn say(&mut self, text: &Value) {
        self.send(&frame(FIN | TEXT, text.to_string().as_bytes()));
    }

    /// The next frame, its first byte and its payload. `None`: the connection is closed.
    pub(crate) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = self.whole() {
                return Some(frame);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn whole(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, length, ..] = self.read[..] else { return None };
        assert_eq!(length & 0x80, 0, "a server does not mask");
        let (at, length) = match length {
            126 => (4, usize::from(u16::from_be_bytes(*self.read.get(2..)?.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*self.read.get(2..)?.first_chunk()?) as usize),
            short => (2, usize::from(short)),
        };
        let payload = self.read.get(at..at + length)?.to_vec();
        self.read.drain(..at + length);
        Some((first, payload))
    }

    /// The next text, other frames left out.
    pub(crate) fn json(&mut self) -> Value {
        loop {
            let (first, payload) = self.next().expect("a frame before the end");
            if first == FIN | TEXT {
                return serde_json::from_slice(&payload).unwrap();
            }
        }
    }

    pub(crate) fn ask(&mut self, text: &Value) -> Value {
        self.say(text);
        self.json()
    }

    /// The code of the close frame, after whatever else comes; 1005 for one without; 1006 if there is none.
    pub(crate) fn closed(&mut self) -> u16 {
        let code = loop {
            match self.next() {
                Some((first, payload)) if first == FIN | CLOSE => {
                    break payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                }
                Some(_) => {}
                None => return 1006,
            }
        };
        // Else the server waits a while for the client's end.
        let _ = self.socket.shutdown(Shutdown::Write);
        assert!(self.next().is_none(), "after a close frame there is nothing");
        code
    }
}

// ---- the cutting proxy -----------------------------------------------------------------------------------------------

/// A TCP proxy that cuts each connection after some bytes, half of them by a reset.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// To `to`. Connections are cut after so many bytes of what the server says.
    pub(crate) fn start(to: SocketAddr, random: &Random, bytes: Range<u64>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (addr, cuts, random) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)), random.clone());
        let counted = Arc::clone(&cuts);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((client, _)) = listener.accept().await {
                    let (budget, reset) = (bytes.start + random.below(bytes.end - bytes.start), random.below(2) == 0);
                    let counted = Arc::clone(&counted);
                    tokio::spawn(async move {
                        // Nobody there: the client sees the end.
                        let Ok(server) = tokio::net::TcpStream::connect(to).await else { return };
                        if relay(&client, &server, budget as usize).await {
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                        for half in [client, server] {
                            let half = half.into_std().unwrap();
                            if reset {
                                // Not the end of the stream, but an error.
                                let _ = socket2::SockRef::from(&half).set_linger(Some(Duration::ZERO));
                            } else {
                                let _ = half.shutdown(Shutdown::Both);
                            }
                        }
                    });
                }
            });
        });
        Self { addr, cuts }
    }
}

/// Copies both ways. `true`: until the budget was spent.
async fn relay(client: &tokio::net::TcpStream, server: &tokio::net::TcpStream, mut budget: usize) -> bool {
    let up = async {
        let mut buffer = vec![0; 8_192];
        while let Some(read) = read(client, &mut buffer).await {
            if !write(server, &buffer[..read]).await {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 8_192];
        while let Some(read) = read(server, &mut buffer).await {
            let now = read.min(budget);
            if !write(client, &buffer[..now]).await {
                return false;
            }
            budget -= now;
            if budget == 0 {
                return true;
            }
        }
        false
    };
    tokio::select! {
        () = up => false,
        cut = down => cut,
    }
}

async fn read(from: &tokio::net::TcpStream, buffer: &mut [u8]) -> Option<usize> {
    loop {
        from.readable().await.ok()?;
        match from.try_read(buffer) {
            Ok(0) => return None,
            Ok(read) => return Some(read),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

async fn write(to: &tokio::net::TcpStream, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        if to.writable().await.is_err() {
            return false;
        }
        match to.try_write(bytes) {
            Ok(wrote) => bytes = &bytes[wrote..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}
