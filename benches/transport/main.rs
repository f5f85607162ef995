//! Transport: what a link carries and weighs, beside the bare client. `cargo bench --features redis,nats --bench transport`; it prints a table.
//!
//! Who sends and who reads take turns with those of the other peers. `--test` (tiny), `--rounds R`, `--json FILE`.

#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "measured times and counts are far below 2^52")]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../tests/it/servers.rs"]
mod servers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use actix_pubsub::Topic;
use actix_pubsub::cluster::ClusterName;
use actix_pubsub::cluster::Nats;
use actix_pubsub::cluster::Outgoing;
use actix_pubsub::cluster::Redis;
use actix_pubsub::cluster::Subject;
use actix_pubsub::cluster::Transport;
use actix_pubsub::testing::transport::identity;
use actix_pubsub::testing::transport::inbound;
use futures::StreamExt;
use redis::AsyncConnectionConfig;
use redis::IntoConnectionInfo;
use redis::ProtocolVersion;

use crate::common::args::Args;
use crate::common::record::Row;
use crate::common::record::Unit;

/// Bytes of a frame.
const FRAME: &[u8] = &[7; 100];
/// Frames given at once, pipelines that are not answered.
const BATCH: usize = 1_024;
const PIPELINES: usize = 16;

fn main() {
    // `cargo test --benches -- --test` sees only that it runs.
    let args = Args::read();
    let (small, rounds) = (args.test, if args.test { 1 } else { args.rounds.unwrap_or(5) });
    // Less than 32 MB on the wire: beyond that Redis cuts a reader that is not as fast as who sends.
    let (frames, subjects) = if small { (1_000, 1_000) } else { (150_000, 100_000) };
    let (redis, nats) = (servers::Server::redis(), servers::Server::nats());
    let (redis_url, nats_url) = (redis.url(), nats.url());
    let transports: [(&str, Arc<dyn Transport>); 2] =
        [("redis", Arc::new(Redis::new(&redis_url))), ("nats", Arc::new(Nats::new(&nats_url)))];

    let peers = ["redis, the bare client, pipelined", "redis, a link", "nats, the bare client", "nats, a link"];
    let mut rates = [const { [const { Vec::new() }; 2] }; 4];
    for round in 0..rounds {
        for turned in 0..peers.len() {
            let at = (turned + round) % peers.len();
            let transport = &transports[at / 2].1;
            let (sent, received) = turn(peers[at], frames, |ready| match at {
                0 => (
                    bare_redis_reads(redis_url.clone(), frames, ready),
                    Box::new(|| runtime().block_on(bare_redis_sends(&redis_url, frames))),
                ),
                2 => (
                    bare_nats_reads(nats_url.clone(), frames, ready),
                    Box::new(|| runtime().block_on(bare_nats_sends(&nats_url, frames))),
                ),
                _ => (link_reads(Arc::clone(transport), frames, ready), Box::new(|| link_sends(transport, frames))),
            });
            rates[at][0].push(sent);
            rates[at][1].push(received);
        }
    }
    for ((at, peer), rates) in peers.into_iter().enumerate().zip(&rates) {
        for (measure, samples) in ["frames sent", "frames received"].into_iter().zip(rates) {
            args.record.row(&Row::new("transport", measure, peer, Unit::PerSecond, samples).base(peers[at / 2 * 2]));
        }
    }
    for (engine, transport) in transports {
        weigh(&args, engine, &transport, subjects);
    }
    args.record.end();
}

type Reader = std::thread::JoinHandle<()>;

/// Starts who reads, then who sends, each on a thread with a runtime of its own; prints how many went out and came in each second.
fn turn<'a>(what: &str, frames: usize, start: impl FnOnce(mpsc::Sender<()>) -> (Reader, Box<dyn FnOnce() + 'a>)) -> (f64, f64) {
    let (ready, is_ready) = mpsc::channel();
    let (reader, send) = start(ready);
    is_ready.recv().expect("it subscribes");
    let begin = Instant::now();
    send();
    let sent = begin.elapsed();
    reader.join().expect("it reads");
    let rate = |took: Duration| frames as f64 / took.as_secs_f64();
    let (sent, received) = (rate(sent), rate(begin.elapsed()));
    println!("{what:<40} {sent:>9.0} sent/s {received:>9.0} received/s");
    (sent, received)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn cluster() -> ClusterName {
    "bench".parse().expect("a name")
}

fn topic(name: &str) -> Subject {
    Subject::Topic(Topic::parse(name).expect("a topic"))
}

fn link_reads(transport: Arc<dyn Transport>, frames: usize, ready: mpsc::Sender<()>) -> Reader {
    std::thread::spawn(move || {
        runtime().block_on(async {
            let (inbound, mut arrivals) = inbound(frames);
            let link = transport.connect(&identity(&cluster()), inbound).await.expect("it connects");
            link.subscribe(vec![topic("t")]).await.expect("it subscribes");
            ready.send(()).expect("it is waited for");
            for _ in 0..frames {
                arrivals.frame().await;
            }
        });
    })
}

fn link_sends(transport: &Arc<dyn Transport>, frames: usize) {
    runtime().block_on(async {
        let (inbound, _arrivals) = inbound(1);
        let link = transport.connect(&identity(&cluster()), inbound).await.expect("it connects");
        let topic = topic("t");
        let frame = Outgoing { subject: topic, frame: FRAME.into() };
        for first in (0..frames).step_by(BATCH) {
            link.send(vec![frame.clone(); BATCH.min(frames - first)]).await.expect("it sends");
        }
        link.close().await;
    });
}

fn bare_redis_reads(url: String, frames: usize, ready: mpsc::Sender<()>) -> Reader {
    std::thread::spawn(move || {
        runtime().block_on(async {
            let info = url.into_connection_info().expect("a url");
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            let client = redis::Client::open(info.set_redis_settings(settings)).expect("a url");
            let (push, mut pushed) = tokio::sync::mpsc::unbounded_channel();
            let config = AsyncConnectionConfig::new().set_push_sender(push);
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.expect("it connects");
            connection.subscribe("bare").await.expect("it subscribes");
            pushed.recv().await.expect("that it has");
            ready.send(()).expect("it is waited for");
            for _ in 0..frames {
                pushed.recv().await.expect("a frame");
            }
        });
    })
}

async fn bare_redis_sends(url: &str, frames: usize) {
    let client = redis::Client::open(url).expect("a url");
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await.expect("it connects");
    let mut unanswered = VecDeque::new();
    for first in (0..frames).step_by(BATCH) {
        let mut connection = connection.clone();
        unanswered.push_back(tokio::spawn(async move {
            let mut pipeline = redis::pipe();
            for _ in 0..BATCH.min(frames - first) {
                pipeline.cmd("PUBLISH").arg("bare").arg(FRAME);
            }
            pipeline.query_async::<Vec<i64>>(&mut connection).await.expect("it publishes");
        }));
        if unanswered.len() >= PIPELINES {
            unanswered.pop_front().expect("there are some").await.expect("it is answered");
        }
    }
    for answer in unanswered {
        answer.await.expect("it is answered");
    }
}

fn bare_nats_reads(url: String, frames: usize, ready: mpsc::Sender<()>) -> Reader {
    std::thread::spawn(move || {
        runtime().block_on(async {
            let options = async_nats::ConnectOptions::new().subscription_capacity(frames);
            let client = options.connect(url).await.expect("it connects");
            let mut subscriber = client.subscribe("bare").await.expect("it subscribes");
            // A request is answered behind the subscription.
            client.request("bare.nobody", "".into()).await.expect_err("nobody answers");
            ready.send(()).expect("it is waited for");
            for _ in 0..frames {
                subscriber.next().await.expect("a frame");
            }
        });
    })
}

async fn bare_nats_sends(url: &str, frames: usize) {
    let client = async_nats::connect(url).await.expect("it connects");
    let subject = async_nats::Subject::from("bare");
    for _ in 0..frames {
        client.publish(subject.clone(), FRAME.into()).await.expect("it publishes");
    }
    client.flush().await.expect("it is written");
}

/// Prints what a subscription takes of this process' memory, its topic's name not counted.
fn weigh(args: &Args, engine: &str, transport: &Arc<dyn Transport>, subjects: usize) {
    runtime().block_on(async {
        let (inbound, _arrivals) = inbound(1);
        let link = transport.connect(&identity(&cluster()), inbound).await.expect("it connects");
        let topics: Vec<_> = (0..subjects).map(|n| topic(&format!("room:{n:08}"))).collect();
        let (before, begin) = (resident_bytes(), Instant::now());
        for some in topics.chunks(10_000) {
            link.subscribe(some.to_vec()).await.expect("it subscribes");
        }
        let (took, each) = (begin.elapsed(), resident_bytes().saturating_sub(before) / subjects);
        let row = |measure, unit, sample| {
            let row = Row::new("subscriptions", measure, engine, unit, &[sample]);
            args.record.row(&row.at("subscriptions", subjects as f64));
        };
        row("memory of each", Unit::Bytes, each as f64);
        row("all confirmed", Unit::Nanos, took.as_secs_f64() * 1e9);
        println!("{engine}, {subjects} subscriptions: {each} bytes each, confirmed in {took:?}");
    });
}

fn resident_bytes() -> usize {
    let sizes = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    sizes.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4_096
}
