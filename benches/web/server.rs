//! Server: what all servers under test share: the port, the orders to broadcast, and a publisher that keeps to its schedule. Knows no server.

use std::any::Any;
use std::io;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::process;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use actix_web::App;
use actix_web::HttpServer;
use actix_web::dev::Extensions;
use actix_web::web::ServiceConfig;
use tokio::sync::mpsc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::load::dialect::Dialect;
use crate::load::said::Said;

/// One under test.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) dialect: Dialect,
    /// Which of ours it is measured against.
    pub(crate) against: &'static str,
    /// Nobody can broadcast to its clients.
    pub(crate) idle: bool,
    pub(crate) run: fn(Stage),
}

/// What a server gets to start from.
pub(crate) struct Stage {
    pub(crate) listener: TcpListener,
    pub(crate) orders: Orders,
}

/// What is to be broadcast, and when. To be carried out by the thread that serves the clients: no server pays for a thread more than another.
pub(crate) struct Orders {
    blasts: UnboundedReceiver<Blast>,
    next: u64,
}

struct Blast {
    count: u32,
    /// Zero: at once.
    gap: Duration,
}

/// The process: serves until its input ends.
pub(crate) fn run(server: &Server) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("a port").port();
    let (sender, blasts) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            let mut numbers = line.split(' ').map(|number| number.parse().expect("a number"));
            let mut number = || numbers.next().expect("a number");
            let blast = Blast { count: number(), gap: Duration::from_micros(number().into()) };
            // The publisher ends only with the process.
            let _ = sender.send(blast);
        }
        process::exit(0);
    });
    println!("port {port}");
    (server.run)(Stage { listener, orders: Orders { blasts, next: 0 } });
}

impl Orders {
    /// Broadcasts as ordered. A broadcast that is late does not move those after it; the latest is reported.
    pub(crate) async fn carry_out(mut self, mut publish: impl AsyncFnMut(Said)) {
        while let Some(blast) = self.blasts.recv().await {
            let (start, mut late) = (Instant::now(), Duration::ZERO);
            for at in 0..blast.count {
                if !blast.gap.is_zero() {
                    let due = start + blast.gap * at;
                    sleep_until(due).await;
                    late = late.max(due.elapsed());
                }
                publish(Said::new(self.next)).await;
                self.next += 1;
            }
            println!("blasted {}", late.as_nanos());
        }
    }
}

impl Stage {
    /// A server of actix-web with one worker, whose thread also publishes.
    pub(crate) fn actix(
        self,
        on_connect: impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static,
        configure: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
        publish: impl Fn(Said) + Clone + Send + 'static,
    ) {
        let orders = Arc::new(Mutex::new(Some(self.orders)));
        let app = move || {
            let taken = orders.lock().expect("no one panics with it").take();
            if let Some(orders) = taken {
                let publish = publish.clone();
                actix::spawn(orders.carry_out(async move |said| publish(said)));
            }
            App::new().configure(configure.clone())
        };
        let serve =
            async { HttpServer::new(app).workers(1).on_connect(on_connect).disable_signals().listen(self.listener)?.run().await };
        actix::System::new().block_on(serve).expect("it serves");
    }

    /// A server of axum on one thread, which also publishes.
    pub(crate) fn axum(self, app: axum::Router, publish: impl AsyncFnMut(Said) + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let serve = async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let publisher = self.orders.carry_out(publish);
            futures::future::join(axum::serve(listener, app).into_future(), publisher).await.0
        };
        runtime.block_on(serve).expect("it serves");
    }
}
