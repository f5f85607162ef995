//! Redis: its bare client, pipelined from one connection, read by one subscribed connection. Knows no measurement.

use std::sync::Arc;

use redis::AsyncConnectionConfig;
use redis::Client;
use redis::IntoConnectionInfo;
use redis::Pipeline;
use redis::ProtocolVersion;
use redis::PushInfo;
use redis::PushKind;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::engine::topic;
use crate::tally::Tally;
use crate::window::Sends;

pub(crate) struct Redis {
    connection: MultiplexedConnection,
    channels: Vec<String>,
    pipeline: Pipeline,
    /// A permit for each pipeline that is not answered.
    room: Arc<Semaphore>,
}

impl Redis {
    pub(crate) async fn connect(url: &str, topics: usize) -> Self {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let client = Client::open(url).expect("a url");
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.expect("it connects");
        let room = Arc::new(Semaphore::new(PIPELINES));
        Self { connection, channels: (0..topics).map(topic).collect(), pipeline: redis::pipe(), room }
    }
}

impl Sends for Redis {
    async fn send(&mut self, topic: usize, note: &[u8]) {
        self.pipeline.cmd("PUBLISH").arg(&self.channels[topic]).arg(note);
        if self.pipeline.len() >= BATCH {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        let commands = self.pipeline.len();
        if commands == 0 {
            return;
        }
        let permit: OwnedSemaphorePermit = Arc::clone(&self.room).acquire_owned().await.expect("it is open");
        let (mut connection, pipeline) = (self.connection.clone(), std::mem::replace(&mut self.pipeline, redis::pipe()));
        let answered = tokio::spawn(async move {
            let answers = connection.send_packed_commands(&pipeline, 0, commands).await.expect("it publishes");
            assert_eq!(answers.len(), commands, "each publish is answered");
            drop(permit);
        });
        if commands == 1 {
            // One at a time: who sends does nothing else meanwhile, so it brings it out itself.
            answered.await.expect("it is answered");
        }
    }
}

pub(crate) fn receive(url: &str, topics: usize, tally: &Tally) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let info = url.into_connection_info().expect("a url");
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).expect("a url");
        let taken = tally.clone();
        let push = move |push: PushInfo| {
            if push.kind == PushKind::Message
                && let Some(Value::BulkString(note)) = push.data.get(1)
            {
                taken.take(note);
            }
            Ok::<(), ()>(())
        };
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(push);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.expect("it connects");
        connection.subscribe((0..topics).map(topic).collect::<Vec<_>>()).await.expect("it subscribes");
        tally.ready();
        std::future::pending::<()>().await;
    });
}

const BATCH: usize = 512;
const PIPELINES: usize = 16;
