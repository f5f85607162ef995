//! NATS: its bare client, a subscription for each topic, each read by a task of its own. Knows no measurement.

use async_nats::Client;
use async_nats::Subject;
use bytes::Bytes;
use futures::StreamExt;

use crate::engine::topic;
use crate::tally::Tally;
use crate::window::Sends;

pub(crate) struct Nats {
    client: Client,
    subjects: Vec<Subject>,
}

impl Nats {
    pub(crate) async fn connect(url: &str, topics: usize) -> Self {
        let client = async_nats::connect(url).await.expect("it connects");
        Self { client, subjects: (0..topics).map(|number| Subject::from(topic(number))).collect() }
    }
}

impl Sends for Nats {
    async fn send(&mut self, topic: usize, note: &[u8]) {
        let published = self.client.publish(self.subjects[topic].clone(), Bytes::copy_from_slice(note)).await;
        published.expect("it publishes");
    }

    async fn flush(&mut self) {
        self.client.flush().await.expect("it is written");
    }
}

pub(crate) fn receive(url: &str, topics: usize, tally: &Tally) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(url).await.expect("it connects");
        for number in 0..topics {
            let mut subscriber = client.subscribe(topic(number)).await.expect("it subscribes");
            let tally = tally.clone();
            tokio::spawn(async move {
                while let Some(message) = subscriber.next().await {
                    tally.take(&message.payload);
                }
            });
        }
        // A request is answered behind the subscriptions.
        client.request("nobody", Bytes::new()).await.expect_err("nobody answers");
        tally.ready();
        std::future::pending::<()>().await;
    });
}
