//! Load: thousands of clients in one process and one loop, that count and check every broadcast and measure when it comes.
//!
//! ```text
//! bench ── begin, await N, end ──> stdin ──> loop ── epoll ──> Conn, Conn, Conn ... ──> server
//!       <── ready, begun, reached, name=number ──  Tally
//! ```
//! It knows no server: a `Dialect` says how to open a connection. It measures itself, too: a phase counts only if the loop had time left.
//! One broadcast that is lost, doubled or out of order ends the process.

pub(crate) mod dialect;
pub(crate) mod said;
pub(crate) mod wire;
mod conn;
mod tally;

use std::io;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::process;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Token;
use mio::Waker;
use mio::net::TcpStream;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::load::conn::Conn;
use crate::load::dialect::Dialect;
use crate::load::tally::Tally;

/// The process: connects so many clients to the server on this port, then does as it is told until its input ends.
pub(crate) fn run(dialect: Dialect, port: u16, clients: usize, small: bool) {
    if let Err(error) = Load::new(dialect, port, clients, small).and_then(Load::serve) {
        eprintln!("load: {error}");
        process::exit(1);
    }
}

struct Load {
    dialect: Dialect,
    address: SocketAddr,
    request: String,
    clients: usize,
    /// They have little room for what they do not read.
    small: bool,
    poll: Poll,
    orders: Receiver<String>,
    conns: Vec<Conn>,
    ready: usize,
    tally: Tally,
    /// Says so when every client got so many broadcasts.
    awaited: Option<u64>,
}

impl Load {
    fn new(dialect: Dialect, port: u16, clients: usize, small: bool) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), ORDERS)?;
        Ok(Self {
            dialect,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            request: dialect.wire.request(dialect.path, port),
            clients,
            small,
            poll,
            orders: orders(waker),
            conns: Vec::with_capacity(clients),
            ready: 0,
            tally: Tally::new(clients),
            awaited: None,
        })
    }

    fn serve(mut self) -> io::Result<()> {
        let (mut events, mut buffer) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        loop {
            while self.conns.len() < self.clients && self.conns.len() - self.ready < CONNECTING {
                self.connect()?;
            }
            match self.poll.poll(&mut events, Some(self.tally.rest())) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if event.token() == ORDERS {
                    self.obey()?;
                    continue;
                }
                let conn = &mut self.conns[event.token().0];
                let was_ready = conn.is_ready();
                if event.is_writable() {
                    conn.writable(self.request.as_bytes())?;
                }
                conn.readable(self.dialect, &mut buffer, &mut |mark| self.tally.got(mark))?;
                if !was_ready && conn.is_ready() {
                    self.ready += 1;
                    if self.ready == self.clients {
                        println!("ready");
                    }
                }
            }
            self.tally.tick();
            if self.awaited.is_some_and(|broadcasts| self.tally.reached(broadcasts)) {
                self.awaited = None;
                println!("reached");
            }
        }
    }

    /// Ports do not run out: they are free again for each server, which listens on a port of its own.
    fn connect(&mut self) -> io::Result<()> {
        let mut conn = Conn::new(if self.small { narrow(self.address)? } else { TcpStream::connect(self.address)? });
        let token = Token(self.conns.len());
        self.poll.registry().register(conn.socket(), token, Interest::READABLE | Interest::WRITABLE)?;
        self.conns.push(conn);
        Ok(())
    }

    /// Nobody reads anything any more.
    fn stall(&mut self) -> io::Result<()> {
        for conn in &mut self.conns {
            self.poll.registry().deregister(conn.socket())?;
        }
        println!("stalled");
        Ok(())
    }

    fn obey(&mut self) -> io::Result<()> {
        while let Ok(order) = self.orders.try_recv() {
            match order.split_once(' ').unwrap_or((&order, "")) {
                ("begin", _) => {
                    self.tally.begin();
                    println!("begun");
                }
                ("await", broadcasts) => self.awaited = Some(broadcasts.parse().expect("a number of broadcasts")),
                ("end", _) => println!("{}", self.tally.end()),
                ("stall", _) => self.stall()?,
                ("look", _) => println!("looked {}", self.conns.iter().filter(|conn| conn.is_stalled()).count()),
                _ => panic!("no order: {order:?}"),
            }
        }
        Ok(())
    }
}

/// A connection whose window is as small as the system lets it be.
fn narrow(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(1)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// The lines of the input, each announced by the waker; its end ends the process.
fn orders(waker: Waker) -> Receiver<String> {
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            // The loop ends only with the process.
            let _ = sender.send(line);
            let _ = waker.wake();
        }
        process::exit(0);
    });
    orders
}

/// `EINPROGRESS` of Linux.
const IN_PROGRESS: i32 = 115;
const ORDERS: Token = Token(usize::MAX);
/// Sockets read between two looks around; about 0.5 ms.
const EVENTS: usize = 256;
const READ_BYTES: usize = 64 << 10;
/// Connections that are not ready yet: fewer than a listener's backlog takes.
const CONNECTING: usize = 100;
/// The bench waits no longer for an answer than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
