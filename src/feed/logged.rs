//! Logged: an entry of the log as followers of its topic receive it live, and how it gets to them. Knows no store and no actor.

use std::any::TypeId;
use std::sync::Arc;

use crate::event::Body;
use crate::event::Head;
use crate::ids::EntryId;
use crate::local::interest::TopicPorts;
use crate::local::port::Pushed;
use crate::local::shard::Shared;
use crate::topic::Topic;

/// An event of the log with what lies before it. It has a ring of its own beside that of `M`, for those who follow the log and only it.
pub(crate) struct Logged<M> {
    /// `None`: the entry is no message of type `M`, though its name says so.
    pub(crate) head: Option<Arc<Head<M>>>,
    pub(crate) id: EntryId,
    /// No entry of this type lies between this id and that of the event. It need not be that of an entry.
    pub(crate) prev: EntryId,
    /// Which log this is: ids of two epochs do not compare.
    pub(crate) epoch: u32,
}

/// Gives an event to these followers. `true`: a port was full. A follower sees by the `prev` of what comes next that it missed one, and reads it from the
/// store; but nothing need come next.
pub(crate) fn publish<M: Send + Sync + 'static>(shared: &Shared, ports: &TopicPorts, logged: Logged<M>) -> bool {
    let body = Arc::new(Body::new(logged));
    let mut full = false;
    for port in ports.iter() {
        let pushed = port.shard().publish(port, None, Head::shared(port.topic().clone(), shared.node, &body, None));
        full |= matches!(pushed, Pushed::Full);
    }
    full
}

/// Tells the followers of a topic that there was an entry of this id, for those who have not got it. `false`: a port is full.
pub(crate) fn remind<M: Send + Sync + 'static>(shared: &Shared, topic: &Topic, id: EntryId, epoch: u32) -> bool {
    let Some(ports) = shared.interest.ports(topic, TypeId::of::<Logged<M>>()) else { return true };
    // Its own `prev`: who has it skips this, who has not sees that something is missing.
    !publish(shared, &ports, Logged::<M> { head: None, id, prev: id, epoch })
}
