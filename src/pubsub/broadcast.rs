//! Broadcast: the verbs that send, and their receipt. Knows ports and the way to other nodes, no subscribers.

use std::any::TypeId;
use std::borrow::Cow;
use std::future::poll_fn;

use crate::cluster::Crossing;
use crate::cluster::hub::Hub;
use crate::cluster::hub::Unsendable;
use crate::event::Body;
use crate::event::Head;
use crate::event::Payload;
use crate::event::Traced;
use crate::event::within;
use crate::feed::types::NameTaken;
use crate::ids::NodeId;
use crate::ids::SubscriberId;
use crate::local::error::BroadcastError;
use crate::local::interest::TopicPort;
use crate::local::port::Pushed;
use crate::local::route::Route;
use crate::pubsub::PubSub;
use crate::sync::Arc;
use crate::topic::ToTopic;
use crate::topic::Topic;

/// What became of one broadcast. It may be ignored: no loss is silent, `Event::missed` tells the subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Receipt {
    /// Arbiters that took the event for their subscribers. 0: nobody is subscribed.
    pub ports: usize,
    /// Arbiters whose port was full: their subscribers do not get it, and will see it in `missed()`.
    pub full: usize,
    /// What happens towards the other nodes; of several topics, the worst.
    pub cluster: Crossing,
}

impl PubSub {
    /// Sends a message to every subscriber of a topic, on every node.
    ///
    /// Never waits. Ok does not mean that a handler ran: the event is queued for each subscriber, and one that is too slow
    /// loses it as its [`Overflow`](crate::Overflow) says. No subscriber is no error.
    ///
    /// # Cost
    /// That of the arbiters with a subscriber, not of the subscribers.
    ///
    /// # Errors
    /// [`BroadcastError::Topic`], [`BroadcastError::Closed`]; in a cluster also [`BroadcastError::TooLarge`], [`BroadcastError::Encode`] and [`BroadcastError::NameTaken`].
    /// Nothing was sent, here or elsewhere, and the message is given back. That other nodes cannot be reached is no error: the [`Receipt`] says so.
    pub fn broadcast<M: Payload>(&self, topic: impl ToTopic, message: M) -> Result<Receipt, BroadcastError<M>> {
        self.send_wide(&topic, None, message)
    }

    /// As [`broadcast`](Self::broadcast), to all but `from` (an `&Addr`, a `&Subscription`, a [`SubscriberId`]).
    pub fn broadcast_from<M: Payload>(
        &self,
        from: impl Into<SubscriberId>,
        topic: impl ToTopic,
        message: M,
    ) -> Result<Receipt, BroadcastError<M>> {
        self.send_wide(&topic, Some(from.into()), message)
    }

    /// Sends a message to the subscribers of a topic on one node, which may be this one.
    ///
    /// # Errors
    /// Those of `broadcast`, and [`BroadcastError::UnknownNode`].
    pub fn direct_broadcast<M: Payload>(
        &self,
        node: NodeId,
        topic: impl ToTopic,
        message: M,
    ) -> Result<Receipt, BroadcastError<M>> {
        if node == self.node() {
            return self.send(&topic, None, message);
        }
        let (topic, message) = self.parse(&topic, message)?;
        match self.hub() {
            Some(hub) if hub.nodes().iter().any(|known| known.id == node) => {
                let span = self.span(&topic);
                let (prepared, _) = within(&span, || prepare(hub, message, |message| hub.prepare(&topic, Some(node), message)))?;
                Ok(Receipt { cluster: hub.send(prepared), ..Receipt::default() })
            }
            Some(_) | None => Err(BroadcastError::UnknownNode { node, message }),
        }
    }

    /// As [`broadcast`](Self::broadcast), to the subscribers on this node only: the message needs no serialized form.
    pub fn local_broadcast<M: Send + Sync + 'static>(
        &self,
        topic: impl ToTopic,
        message: M,
    ) -> Result<Receipt, BroadcastError<M>> {
        self.send(&topic, None, message)
    }

    /// As [`local_broadcast`](Self::local_broadcast), to all but `from`.
    pub fn local_broadcast_from<M: Send + Sync + 'static>(
        &self,
        from: impl Into<SubscriberId>,
        topic: impl ToTopic,
        message: M,
    ) -> Result<Receipt, BroadcastError<M>> {
        self.send(&topic, Some(from.into()), message)
    }

    /// As [`broadcast`](Self::broadcast), but waits where a port, or the queue for other nodes, is full: a publisher that only uses this one loses nothing there.
    /// A subscriber that is too slow still overflows; who must lose nothing needs acknowledgements.
    ///
    /// # Cancel safety
    /// Dropped while it waits, the arbiters that had room have got the event and the others have not; the queue for other nodes comes first.
    pub async fn broadcast_async<M: Payload>(&self, topic: impl ToTopic, message: M) -> Result<Receipt, BroadcastError<M>> {
        let Some(hub) = self.hub() else { return self.local_broadcast_async(topic, message).await };
        let (topic, message) = self.parse(&topic, message)?;
        let span = self.span(&topic);
        let (prepared, message) = within(&span, || prepare(hub, message, |message| hub.prepare(&topic, None, message)))?;
        let cluster = hub.send_async(prepared).await;
        let (_, message) = self.parse(&*topic, message)?;
        let receipt = self.send_async(&self.route::<M>(&topic), message, &span).await;
        Ok(Receipt { cluster, ..receipt })
    }

    /// As [`broadcast_async`](Self::broadcast_async), to the subscribers on this node only.
    pub async fn local_broadcast_async<M: Send + Sync + 'static>(
        &self,
        topic: impl ToTopic,
        message: M,
    ) -> Result<Receipt, BroadcastError<M>> {
        let (topic, message) = self.parse(&topic, message)?;
        let span = self.span(&topic);
        let ports = self.route::<M>(&topic);
        Ok(self.send_async(&ports, message, &span).await)
    }

    /// Sends one message to several topics; its payload, and what is encoded from it, is shared by all. A subscriber of two of them
    /// receives it twice, with two topics.
    ///
    /// # Errors
    /// As `broadcast`; one bad name among the topics, and nothing is sent.
    pub fn broadcast_many<M, T>(&self, topics: impl IntoIterator<Item = T>, message: M) -> Result<Receipt, BroadcastError<M>>
    where
        M: Payload,
        T: ToTopic,
    {
        if self.shared().is_closed() {
            return Err(BroadcastError::Closed { message });
        }
        let parsed: Result<Vec<Topic>, _> = topics.into_iter().map(|topic| topic.to_topic().map(Cow::into_owned)).collect();
        let topics = match parsed {
            Ok(topics) => topics,
            Err(source) => return Err(BroadcastError::Topic { source, message }),
        };
        // One for all, by the name of the first.
        let span = topics.first().and_then(|topic| self.span(topic));
        let (prepared, message) = match self.hub() {
            Some(hub) => within(&span, || prepare(hub, message, |message| hub.prepare_many(&topics, message)))?,
            None => (Vec::new(), message),
        };
        let (body, mut receipt) = (Arc::new(Body::new(message)), Receipt::default());
        for topic in &topics {
            self.send_shared(&self.route::<M>(topic), None, &body, &span, &mut receipt);
        }
        if let Some(hub) = self.hub() {
            receipt.cluster = prepared.into_iter().map(|prepared| hub.send(prepared)).max().unwrap_or_default();
        }
        Ok(receipt)
    }

    /// To this node's subscribers and to other nodes.
    fn send_wide<M: Payload>(
        &self,
        topic: &impl ToTopic,
        from: Option<SubscriberId>,
        message: M,
    ) -> Result<Receipt, BroadcastError<M>> {
        let Some(hub) = self.hub() else { return self.send(topic, from, message) };
        let (topic, message) = self.parse(topic, message)?;
        // Before the first event goes anywhere: a message that cannot cross is refused as a whole.
        let span = self.span(&topic);
        let (prepared, message) = within(&span, || prepare(hub, message, |message| hub.prepare(&topic, None, message)))?;
        let (_, message) = self.parse(&*topic, message)?;
        let receipt = self.send_to(&self.route::<M>(&topic), from, message, &span);
        Ok(Receipt { cluster: hub.send(prepared), ..receipt })
    }

    fn send<M: Send + Sync + 'static>(
        &self,
        topic: &impl ToTopic,
        from: Option<SubscriberId>,
        message: M,
    ) -> Result<Receipt, BroadcastError<M>> {
        let (topic, message) = self.parse(topic, message)?;
        let span = self.span(&topic);
        Ok(self.send_to(&self.route::<M>(&topic), from, message, &span))
    }

    fn send_to<M: Send + Sync + 'static>(
        &self,
        ports: &[Arc<TopicPort>],
        from: Option<SubscriberId>,
        message: M,
        span: &Traced,
    ) -> Receipt {
        let mut receipt = Receipt::default();
        match ports {
            [] => {}
            [port] => {
                let event = Head::sole(port.topic().clone(), self.node(), message, port.delivery(span));
                receipt.add(port.shard().publish(port, from, event));
            }
            ports => self.send_shared(ports, from, &Arc::new(Body::new(message)), span, &mut receipt),
        }
        receipt
    }

    /// One payload to several ports.
    fn send_shared<M: Send + Sync + 'static>(
        &self,
        ports: &[Arc<TopicPort>],
        from: Option<SubscriberId>,
        body: &Arc<Body<M>>,
        span: &Traced,
        receipt: &mut Receipt,
    ) {
        for port in ports {
            let event = Head::shared(port.topic().clone(), self.node(), body, port.delivery(span));
            receipt.add(port.shard().publish(port, from, event));
        }
    }

    async fn send_async<M: Send + Sync + 'static>(&self, ports: &[Arc<TopicPort>], message: M, span: &Traced) -> Receipt {
        let (body, mut receipt) = (Arc::new(Body::new(message)), Receipt::default());
        for port in ports {
            let event = Head::shared(port.topic().clone(), self.node(), &body, port.delivery(span));
            receipt.add(poll_fn(|cx| port.shard().poll_publish(cx, port, None, &event)).await);
        }
        receipt
    }

    /// Where a message goes.
    fn route<M: 'static>(&self, topic: &Topic) -> Route {
        Route::find(&self.shared().interest, topic, TypeId::of::<M>())
    }

    fn parse<'a, M>(&self, topic: &'a impl ToTopic, message: M) -> Result<(Cow<'a, Topic>, M), BroadcastError<M>> {
        if self.shared().is_closed() {
            return Err(BroadcastError::Closed { message });
        }
        match topic.to_topic() {
            Ok(topic) => Ok((topic, message)),
            Err(source) => Err(BroadcastError::Topic { source, message }),
        }
    }
}

impl Receipt {
    fn add(&mut self, pushed: Pushed) {
        match pushed {
            Pushed::Queued => self.ports += 1,
            Pushed::Full => self.full += 1,
            // Its arbiter is stopping: its subscribers are as good as gone.
            Pushed::Closed => {}
        }
    }
}

/// Makes a message ready to cross, or gives it back with what is wrong with it.
fn prepare<M: Payload, T>(
    hub: &Hub,
    message: M,
    prepare: impl FnOnce(&M) -> Result<T, Unsendable>,
) -> Result<(T, M), BroadcastError<M>> {
    const { assert!(M::NAME.len() <= NAME_BYTES_MAX, "Payload::NAME is longer than 255 bytes") };
    if let Err(NameTaken { name, by }) = hub.types.add::<M>() {
        return Err(BroadcastError::NameTaken { name, by, message });
    }
    match prepare(&message) {
        Ok(prepared) => Ok((prepared, message)),
        Err(Unsendable::Encode(source)) => Err(BroadcastError::Encode { source, message }),
        Err(Unsendable::TooLarge { bytes, max }) => Err(BroadcastError::TooLarge { bytes, max, message }),
    }
}

/// What a field of a frame should take.
const NAME_BYTES_MAX: usize = 255;
