//! Ids: who a subscriber is and which node an event came from. Plain values; knows no table and no network.

use std::fmt;
use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::hash::RandomState;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use actix::Actor;
use actix::Addr;

/// One running `PubSub`: drawn at random when it is made, so that a restarted process is a new node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    pub(crate) fn random() -> Self {
        // Two draws: `RandomState` seeds itself from the system once per thread and counts up from there, SipHash mixes.
        Self(RandomState::new().hash_one(std::process::id()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who a subscriber is: the identity of an actor's [`Addr`], or of one stream.
///
/// Two `Addr`s of one actor give the same id. An id means nothing after its subscriber is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubscriberId(u64);

impl SubscriberId {
    /// The identity of the actor behind `addr`. Costs no allocation.
    pub fn of<A: Actor>(addr: &Addr<A>) -> Self {
        let mut identity = AddrIdentity(0);
        addr.hash(&mut identity);
        Self(identity.0)
    }

    /// An id that no `Addr` has: mailboxes are aligned, so theirs are even.
    pub(crate) fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self((NEXT.fetch_add(1, Ordering::Relaxed) << 1) | 1)
    }
}

impl Hash for SubscriberId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Addresses share their low and high bits. Multiplying spreads what differs upwards, the fold brings it back down, so
        // that a map may use any of the bits as they are.
        let spread = u128::from(self.0) * 0x9E37_79B9_7F4A_7C15;
        state.write_u64((spread as u64) ^ ((spread >> 64) as u64));
    }
}

impl<A: Actor> From<&Addr<A>> for SubscriberId {
    fn from(addr: &Addr<A>) -> Self {
        Self::of(addr)
    }
}

impl fmt::Display for SubscriberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

// As text: a JSON number holds 53 bits.
impl serde::Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl serde::Serialize for SubscriberId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `Addr` implements `Hash` by feeding the one pointer that also decides its `Eq`; this hasher keeps it.
struct AddrIdentity(u64);

impl Hasher for AddrIdentity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not how actix feeds it today; should it change, the identity is a digest instead of the pointer itself.
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95) & !1;
        }
    }

    fn write_usize(&mut self, pointer: usize) {
        self.0 = pointer as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Quiet;
    impl Actor for Quiet {
        type Context = actix::Context<Self>;
    }

    #[test]
    fn two_addrs_of_one_actor_are_one_subscriber_and_two_actors_are_two() {
        actix::System::new().block_on(async {
            let (one, other) = (Quiet.start(), Quiet.start());
            assert_eq!(SubscriberId::of(&one), SubscriberId::of(&one.clone()));
            assert_ne!(SubscriberId::of(&one), SubscriberId::of(&other));
            assert_eq!(SubscriberId::of(&one).0 % 2, 0, "a mailbox is aligned");
            assert_ne!(SubscriberId::unique(), SubscriberId::unique());
            assert_eq!(SubscriberId::unique().0 % 2, 1);
        });
    }

    #[test]
    fn two_nodes_differ() {
        assert_ne!(NodeId::random(), NodeId::random());
    }
}
