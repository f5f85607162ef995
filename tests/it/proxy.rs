//! Proxy: a TCP proxy on the loopback that cuts, swallows, delays and throttles as it is told. Knows no protocol.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;

/// A proxy on a port of its own, on a thread of its own; its connections are cut on drop.
pub struct Proxy {
    pub addr: SocketAddr,
    how: watch::Sender<How>,
}

/// How bytes pass now.
#[derive(Clone, Copy, Default)]
struct How {
    /// Connections of another generation are cut.
    generation: u64,
    is_black_hole: bool,
    delay: Duration,
    bytes_per_s: Option<u32>,
}

impl Proxy {
    /// To this port of the loopback. Nobody has to listen there yet.
    pub fn start(to_port: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let (how, told) = watch::channel(How::default());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(accept(listener, to_port, told));
        });
        Self { addr, how }
    }

    /// Cuts every connection, half of what is under way included. New ones pass.
    pub fn cut(&self) {
        self.how.send_modify(|how| how.generation += 1);
    }

    /// From now on no byte passes in either direction, on any connection, and no end of one either.
    pub fn black_hole(&self) {
        self.how.send_modify(|how| how.is_black_hole = true);
    }

    /// Each byte arrives so much later, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.how.send_modify(|how| how.delay = delay);
    }

    /// So many bytes a second on each connection, in each direction.
    pub fn throttle(&self, bytes_per_s: u32) {
        self.how.send_modify(|how| how.bytes_per_s = Some(bytes_per_s));
    }

    /// Bytes pass as they come; what a black hole held back passes, too.
    pub fn heal(&self) {
        self.how.send_modify(|how| *how = How { generation: how.generation, ..How::default() });
    }
}

async fn accept(listener: std::net::TcpListener, to_port: u16, mut told: watch::Receiver<How>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            // Ends with the `Proxy`, and the connections with it.
            changed = told.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        tokio::spawn(connection(client, to_port, told.clone()));
    }
}

async fn connection(client: TcpStream, to_port: u16, mut told: watch::Receiver<How>) {
    let generation = told.borrow().generation;
    let both = async {
        // Nobody there: the client sees the end.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to_port)).await else { return };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let (one, other) = (pump(from_client, to_server, told.clone()), pump(from_server, to_client, told.clone()));
        tokio::join!(one, other);
    };
    let mut cut = told.clone();
    tokio::select! {
        () = both => {}
        // An error is the end of the proxy.
        _ = cut.wait_for(|how| how.generation != generation) => {}
    }
    let _ = told.borrow_and_update();
}

/// Copies one way; what waits to be due is bounded, so that a slow way slows the sender.
async fn pump(mut from: OwnedReadHalf, to: OwnedWriteHalf, how: watch::Receiver<How>) {
    let (due, queued) = mpsc::channel(CHUNKS_MAX);
    let reads = {
        let how = how.clone();
        async move {
            let mut buffer = vec![0; CHUNK_BYTES];
            // An error ends it as the end does.
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let at = Instant::now() + how.borrow().delay;
                if due.send((at, buffer[..read].to_vec())).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::join!(reads, write(to, queued, how));
}

async fn write(mut to: OwnedWriteHalf, mut queued: mpsc::Receiver<(Instant, Vec<u8>)>, mut how: watch::Receiver<How>) {
    let passes = |how: &How| !how.is_black_hole;
    while let Some((at, bytes)) = queued.recv().await {
        tokio::time::sleep_until(at).await;
        let Ok(now) = how.wait_for(passes).await.map(|how| *how) else { return };
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        if let Some(bytes_per_s) = now.bytes_per_s {
            tokio::time::sleep(Duration::from_secs(1) * bytes.len() as u32 / bytes_per_s).await;
        }
    }
    // The end of a stream does not pass a black hole either.
    if how.wait_for(passes).await.is_ok() {
        // It may be gone already.
        let _ = to.shutdown().await;
    }
}

const CHUNK_BYTES: usize = 16 * 1_024;
const CHUNKS_MAX: usize = 64;
