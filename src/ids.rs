//! Ids: who a subscriber is, which node an event came from, where an entry stands in its log. Plain values; knows no table and no network.

use std::fmt;
use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::hash::RandomState;
use std::str::FromStr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use actix::Actor;
use actix::Addr;

/// One running `PubSub`: drawn at random when it is made, so that a restarted process is a new node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

/// As everywhere else, so that one is found in a log however it was written there.
impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl NodeId {
    pub(crate) fn random() -> Self {
        // Two draws: `RandomState` seeds itself from the system once per thread and counts up from there, SipHash mixes.
        Self(RandomState::new().hash_one(std::process::id()))
    }

    /// The id of these 64 bits: what [`to_bits`](Self::to_bits) gave, perhaps in another process.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The id as a number, for who sends it somewhere.
    pub const fn to_bits(self) -> u64 {
        self.0
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

    /// Where the mailbox of an actor lies: that is its identity.
    pub(crate) fn address(self) -> Option<usize> {
        usize::try_from(self.0).ok().filter(|address| address.is_multiple_of(2))
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

/// Where an entry stands in its topic's log: `ms-seq`, milliseconds since 1970 and a number within that millisecond.
///
/// Strictly increasing within a topic, and nothing more: two topics may give the same id. The form and the order are those of a Redis Stream id
/// ([Redis: entry IDs](https://redis.io/docs/latest/develop/data-types/streams/#entry-ids)). A store whose engine counts instead puts the count in
/// `seq` and 0 in `ms`.
///
/// ```
/// use actix_pubsub::EntryId;
///
/// let id: EntryId = "1700000000000-3".parse()?;
/// assert_eq!((id.ms(), id.seq()), (1_700_000_000_000, 3));
/// assert!(id > EntryId::MIN);
/// assert_eq!("17-x".parse::<EntryId>().unwrap_err().to_string(), "entry id \"17-x\" is not of the form ms-seq");
/// # Ok::<(), actix_pubsub::EntryIdError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    ms: u64,
    seq: u64,
}

impl EntryId {
    /// `0-0`: before every entry, and the id of none.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The last id there is.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };
    /// The longest text form: two numbers of 20 digits and a dash.
    pub const TEXT_BYTES_MAX: usize = 41;

    /// The id of these two numbers.
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// Milliseconds since 1970, by the clock of whoever keeps the log, which may step: compare ids, not times.
    pub const fn ms(self) -> u64 {
        self.ms
    }

    /// The number within the millisecond.
    pub const fn seq(self) -> u64 {
        self.seq
    }

    /// The id right after this one; `None` after [`MAX`](Self::MAX).
    pub const fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => match self.ms.checked_add(1) {
                Some(ms) => Some(Self { ms, seq: 0 }),
                None => None,
            },
        }
    }

    /// The id right before this one; `None` before [`MIN`](Self::MIN).
    pub const fn prev(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => match self.ms.checked_sub(1) {
                Some(ms) => Some(Self { ms, seq: u64::MAX }),
                None => None,
            },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = EntryIdError;

    fn from_str(text: &str) -> Result<Self, EntryIdError> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(EntryIdError::TooLong { bytes: text.len(), max: Self::TEXT_BYTES_MAX });
        }
        let malformed = || EntryIdError::Malformed { text: text.to_owned() };
        let (ms, seq) = text.split_once('-').ok_or_else(malformed)?;
        let number = |digits: &str| {
            // `u64::from_str` takes a plus sign, which no id has.
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(malformed());
            }
            digits.parse().map_err(|_| EntryIdError::TooLarge { text: text.to_owned() })
        };
        Ok(Self { ms: number(ms)?, seq: number(seq)? })
    }
}

/// Why a text is no [`EntryId`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryIdError {
    /// It is longer than any id.
    TooLong {
        /// Length of the refused text in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// It is not two decimal numbers with a dash between them.
    Malformed {
        /// The refused text.
        text: String,
    },
    /// A number in it is above 2^64 - 1.
    TooLarge {
        /// The refused text.
        text: String,
    },
}

impl fmt::Display for EntryIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, max } => write!(f, "entry id is {bytes} bytes, the limit is {max}"),
            Self::Malformed { text } => write!(f, "entry id {text:?} is not of the form ms-seq"),
            Self::TooLarge { text } => write!(f, "entry id {text:?} holds a number above {}", u64::MAX),
        }
    }
}

impl std::error::Error for EntryIdError {}

// As text: a JSON number holds 53 bits.
impl serde::Serialize for EntryId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for EntryId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

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
    fn an_entry_id_is_the_same_after_a_way_through_text() {
        for id in [EntryId::MIN, EntryId::new(0, 1), EntryId::new(1_700_000_000_000, 0), EntryId::MAX] {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(serde_json::from_str::<EntryId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        }
        assert_eq!(EntryId::MAX.to_string().len(), EntryId::TEXT_BYTES_MAX);
    }

    #[test]
    fn a_malformed_entry_id_is_refused_with_its_text() {
        for bad in ["", "-", "1", "1-", "-1", "+1-1", "1-+1", " 1-1", "1-1 ", "1-1-1", "1_0-1", "a-b", "1.0-1", "0x1-1", "１-1"]
        {
            assert_eq!(bad.parse::<EntryId>(), Err(EntryIdError::Malformed { text: bad.to_owned() }));
        }
        let over = "18446744073709551616-0";
        assert_eq!(over.parse::<EntryId>(), Err(EntryIdError::TooLarge { text: over.to_owned() }));
        let long = "1".repeat(42);
        assert_eq!(long.parse::<EntryId>(), Err(EntryIdError::TooLong { bytes: 42, max: 41 }));
    }

    #[test]
    fn ids_step_over_the_edge_of_a_millisecond_and_stop_at_the_ends() {
        assert_eq!(EntryId::new(1, u64::MAX).next(), Some(EntryId::new(2, 0)));
        assert_eq!(EntryId::new(2, 0).prev(), Some(EntryId::new(1, u64::MAX)));
        assert_eq!(EntryId::MAX.next(), None);
        assert_eq!(EntryId::MIN.prev(), None);
    }

    #[test]
    fn two_nodes_differ() {
        assert_ne!(NodeId::random(), NodeId::random());
    }

    #[test]
    fn an_identity_that_is_fed_as_bytes_is_a_digest_of_all_of_them_and_even() {
        let of = |bytes: &[u8]| {
            let mut identity = AddrIdentity(0);
            identity.write(bytes);
            identity.finish()
        };
        let all: Vec<_> = [b"12345678a".as_slice(), b"12345678b", b"22345678a", b"a12345678"].map(of).into();
        for (at, one) in all.iter().enumerate() {
            assert!(one % 2 == 0 && *one != 0 && !all[..at].contains(one), "{all:?}");
        }
    }
}
