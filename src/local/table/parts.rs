//! Parts: what the table holds of a topic and of a seat, and their small bookkeeping. Knows no other topic and no other seat.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use crate::event::Erased;
use crate::ids::SubscriberId;
use crate::local::clock::Tick;
use crate::local::hash::BuildPrehashed;
use crate::local::interest::TopicPort;
use crate::local::member::Deadlines;
use crate::local::member::Member;
use crate::local::member::Place;
use crate::local::ring::Ring;
use crate::local::slab::Slab;
use crate::local::table::Took;

pub(crate) struct TopicState {
    pub(crate) shared: Arc<TopicPort>,
    pub(super) ring: Ring,
    /// Members to wake at the next event. Those below `fan_left` still have to learn of the last one.
    pub(super) armed: SmallVec<[u32; 4]>,
    pub(super) fan_left: usize,
    pub(super) members: u32,
    /// Of them, those with a cursor: the others are still joining.
    pub(super) active: u32,
    pub(super) capacities: SmallVec<[(u32, u32); 1]>,
    /// When to look whether a `Disconnect` member is too far behind: head position, member.
    pub(super) deadlines: Option<Box<Deadlines>>,
    /// When an overflow here was last told.
    pub(super) told_at: Option<Tick>,
    /// Members that left while they stood in `deadlines`, since it was last tidied.
    pub(super) unwatched: usize,
}

pub(crate) struct Seat {
    pub(crate) id: SubscriberId,
    pub(super) waker: Option<Waker>,
    pub(super) ready: Ready,
    pub(super) subscriptions: Subscriptions,
    /// Members with `keep_alive`.
    pub(super) keepers: u32,
    /// When it last took something.
    pub(crate) taken_at: Option<Tick>,
    pub(crate) actor: fn() -> &'static str,
    pub(super) extra: Option<Box<SeatExtra>>,
}

/// Whether a subscriber that can only be seen from outside still lives. Asked without the lock.
pub(crate) type Alive = Arc<dyn Fn() -> bool + Send + Sync>;

/// What few seats have.
#[derive(Default)]
pub(crate) struct SeatExtra {
    /// `Vec<D>`: the handlers with index 1 and up; whoever polls the seat knows the type.
    pub(super) handlers: Option<Box<dyn Any + Send>>,
    pub(super) alive: Option<Alive>,
}

pub(super) enum Ready {
    None,
    One(u32),
    Many(Box<Vec<u32>>),
}

pub(super) enum Subscriptions {
    None,
    One { topic: u32, member: u32 },
    Many(Box<HashMap<u32, u32, BuildPrehashed>>),
}

impl TopicState {
    pub(super) fn new(shared: Arc<TopicPort>) -> Self {
        Self {
            shared,
            ring: Ring::default(),
            armed: SmallVec::new(),
            fan_left: 0,
            members: 0,
            active: 0,
            capacities: SmallVec::new(),
            deadlines: None,
            told_at: None,
            unwatched: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members == 0
    }

    pub(super) fn arm(&mut self, index: u32, member: &mut Member) {
        member.set_place(Place::Armed(self.armed.len() as u32));
        self.armed.push(index);
    }

    /// Takes the member at `at` out of the armed list, which keeps those of the current fan-out in front.
    pub(super) fn disarm(&mut self, at: u32, members: &mut Slab<Member>) {
        let mut hole = at as usize;
        let mut moved = |armed: &mut SmallVec<[u32; 4]>, to: usize| {
            if let Some(member) = armed.get(to).and_then(|index| members.get_mut(*index)) {
                member.set_place(Place::Armed(to as u32));
            }
        };
        if hole < self.fan_left {
            self.fan_left -= 1;
            if hole != self.fan_left {
                self.armed[hole] = self.armed[self.fan_left];
                moved(&mut self.armed, hole);
                hole = self.fan_left;
            }
        }
        self.armed.swap_remove(hole);
        moved(&mut self.armed, hole);
    }

    /// A member with a cursor is gone.
    pub(super) fn forget(&mut self, member: &Member, garbage: &mut Vec<Erased>) {
        self.active -= 1;
        self.ring.leave(member.cursor);
        self.ring.trim(garbage);
        if let Some(at) = self.capacities.iter().position(|(capacity, _)| *capacity == member.capacity) {
            self.capacities[at].1 -= 1;
            if self.capacities[at].1 == 0 {
                self.capacities.swap_remove(at);
            }
        }
    }

    /// What the ring may hold: the largest capacity among the members.
    pub(super) fn capacity(&self) -> usize {
        self.capacities.iter().map(|(capacity, _)| *capacity as usize).max().unwrap_or(0)
    }
}

impl Ready {
    pub(super) fn push(&mut self, index: u32, member: &mut Member) {
        match self {
            Self::None => {
                member.set_place(Place::Ready(0));
                *self = Self::One(index);
            }
            Self::One(first) => {
                member.set_place(Place::Ready(1));
                *self = Self::Many(Box::new(vec![*first, index]));
            }
            Self::Many(members) => {
                member.set_place(Place::Ready(members.len() as u32));
                members.push(index);
            }
        }
    }

    pub(super) fn remove(&mut self, at: u32, members: &mut Slab<Member>) {
        match self {
            Self::None | Self::One(_) => *self = Self::None,
            Self::Many(list) => {
                list.swap_remove(at as usize);
                if let Some(member) = list.get(at as usize).and_then(|index| members.get_mut(*index)) {
                    member.set_place(Place::Ready(at));
                }
                if let [last] = list[..] {
                    *self = Self::One(last);
                }
            }
        }
    }
}

impl Subscriptions {
    pub(super) fn find(&self, topic: u32) -> Option<u32> {
        match self {
            Self::None => None,
            Self::One { topic: t, member } => (*t == topic).then_some(*member),
            Self::Many(map) => map.get(&topic).copied(),
        }
    }

    pub(super) fn add(&mut self, topic: u32, member: u32) {
        match self {
            Self::None => *self = Self::One { topic, member },
            Self::One { topic: t, member: m } => {
                *self = Self::Many(Box::new(HashMap::from_iter([(*t, *m), (topic, member)])));
            }
            Self::Many(map) => {
                map.insert(topic, member);
            }
        }
    }

    /// Returns whether none is left.
    pub(super) fn remove(&mut self, topic: u32) -> bool {
        match self {
            Self::One { topic: t, .. } if *t == topic => *self = Self::None,
            Self::None | Self::One { .. } => {}
            Self::Many(map) => {
                map.remove(&topic);
                if map.is_empty() {
                    *self = Self::None;
                }
            }
        }
        matches!(self, Self::None)
    }

    /// Some of the members, to look for one like them.
    pub(super) fn some(&self) -> SmallVec<[u32; 8]> {
        match self {
            Self::None => SmallVec::new(),
            Self::One { member, .. } => smallvec::smallvec![*member],
            Self::Many(map) => map.values().copied().take(8).collect(),
        }
    }

    pub(super) fn members(&self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One { member, .. } => vec![*member],
            Self::Many(map) => map.values().copied().collect(),
        }
    }
}

impl Seat {
    pub(super) fn new(id: SubscriberId, actor: fn() -> &'static str) -> Self {
        Self {
            id,
            waker: None,
            ready: Ready::None,
            subscriptions: Subscriptions::None,
            keepers: 0,
            taken_at: None,
            actor,
            extra: None,
        }
    }

    pub(super) fn has_read_all(&self) -> bool {
        matches!(self.ready, Ready::None)
    }

    /// Nothing waits: whoever polls the seat is woken at the next event.
    pub(super) fn sleep(&mut self, waker: &Waker, replaced: &mut Vec<Waker>) -> Took {
        if let Some(old) = self.waker.replace(waker.clone())
            && !old.will_wake(waker)
        {
            // Dropping the last waker of a task may drop its future, which is user code: woken instead, outside of the lock.
            replaced.push(old);
        }
        if self.keepers > 0 { Took::Idle } else { Took::Loose }
    }

    /// The index of a handler beyond the first. `D` is one type per seat: how its poller calls a handler.
    pub(super) fn further_handler<D: Copy + Send + 'static>(&mut self, handler: D, address: impl Fn(&D) -> usize) -> u16 {
        let more = self.extra.get_or_insert_default().handlers.get_or_insert_with(|| Box::new(Vec::<D>::new()));
        let Some(more) = more.downcast_mut::<Vec<D>>() else { return 0 };
        let at = more.iter().position(|known| address(known) == address(&handler)).unwrap_or_else(|| {
            more.push(handler);
            more.len() - 1
        });
        at as u16 + 1
    }

    /// All handlers with index 1 and up.
    pub(crate) fn handlers<D: Copy + 'static>(&self) -> Vec<D> {
        let more = self.extra.as_ref().and_then(|extra| extra.handlers.as_ref()?.downcast_ref::<Vec<D>>());
        more.cloned().unwrap_or_default()
    }
}
