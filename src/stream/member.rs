//! Member: a consumer's place in its group, and what is to be said to the store from there, even after its actor is gone. Knows no handler.

use std::sync::Arc;
use std::time::Duration;

use crate::feed::Feed;
use crate::feed::backoff::store_backoff;
use crate::feed::stats::GroupCounters;
use crate::log::DEAD_LETTER_GROUP;
use crate::log::DEAD_LETTER_TOPIC;
use crate::log::Fetched;
use crate::log::Group;
use crate::log::Name;
use crate::log::Position;
use crate::log::StoreError;
use crate::log::Token;
use crate::observe;
use crate::topic::Topic;

pub(crate) struct Member {
    pub(crate) feed: Arc<Feed>,
    pub(crate) group: Arc<Group>,
    pub(crate) name: Name,
    /// Nobody else can have this name: it was made for this consumer.
    pub(crate) own_name: bool,
    pub(crate) dead_letter: Topic,
    pub(crate) counters: Arc<GroupCounters>,
}

/// What becomes of entries. Doing it twice is doing it once.
#[derive(Debug, Clone)]
pub(crate) enum Settle {
    Ack(Vec<Token>),
    Nack(Vec<Token>, Duration),
    Bury(Fetched, String),
}

impl Member {
    /// Makes the group, if there is none, and clears away consumers that are long gone and have nothing.
    pub(crate) async fn join(self: Arc<Self>, start: Position, visibility: Duration) {
        let mut tries = Tries::new("make the group of");
        while tries.again(&self, self.feed.store.create_group(&self.group, start).await.err()).await {}
        let store = &self.feed.store;
        if !store.caps().pending {
            return;
        }
        let gone = GONE_AFTER.max(visibility.saturating_mul(10));
        // A failure here leaves them listed, no more.
        if let Ok(consumers) = store.consumers(&self.group).await {
            for consumer in consumers.into_iter().filter(|of| of.pending == 0 && of.idle > gone && of.name != self.name) {
                let _ = store.remove_consumer(&self.group, &consumer.name).await;
            }
        }
    }

    /// What it still has is anyone's again, at once.
    pub(crate) async fn leave(self: Arc<Self>) {
        if self.feed.store.caps().pending {
            // A failure here leaves it listed, no more.
            let _ = self.feed.store.remove_consumer(&self.group, &self.name).await;
        }
    }

    pub(crate) async fn settle(self: Arc<Self>, settle: Settle) {
        let (store, group) = (&self.feed.store, &*self.group);
        match settle {
            Settle::Ack(tokens) => {
                let mut tries = Tries::new("ack in");
                while tries.again(&self, store.ack(group, tokens.clone()).await.err()).await {}
            }
            Settle::Nack(tokens, delay) => {
                let mut tries = Tries::new("nack in");
                while tries.again(&self, store.nack(group, tokens.clone(), delay).await.err()).await {}
            }
            Settle::Bury(fetched, reason) => {
                let entry = fetched.entry.as_ref();
                let header = |name| entry.and_then(|entry| entry.header(name));
                // A dead letter that this group of that topic has made comes from there: to send it back would be a loop without end.
                if header(DEAD_LETTER_TOPIC) == Some(self.dead_letter.as_str()) && header(DEAD_LETTER_GROUP).is_some() {
                    observe::dead_letter_loop(&group.topic, group.name.as_str(), fetched.id, &self.dead_letter);
                    let mut tries = Tries::new("nack in");
                    while tries.again(&self, store.nack(group, vec![fetched.token.clone()], LOOP_REST).await.err()).await {}
                    return;
                }
                let mut tries = Tries::new("write a dead letter of");
                let trim = self.feed.retention.of(&self.dead_letter).on_append();
                loop {
                    let error = match store.dead_letter(group, fetched.clone(), &self.dead_letter, &reason, trim).await {
                        Ok(Some(_)) => {
                            self.feed.tell_dead(group, &self.counters, fetched.id, fetched.attempt, &reason);
                            return;
                        }
                        // Acked by a late answer, or someone else's by now: that counts.
                        Ok(None) => return,
                        Err(error) => error,
                    };
                    if !tries.again(&self, Some(error)).await {
                        return;
                    }
                }
            }
        }
    }
}

/// Tries until the store has done it, or refuses for good. Left alone, an entry comes again after its visibility.
struct Tries {
    doing: &'static str,
    failures: u32,
}

impl Tries {
    fn new(doing: &'static str) -> Self {
        Self { doing, failures: 0 }
    }

    /// Whether to try again; waits before it says so.
    async fn again(&mut self, member: &Member, error: Option<StoreError>) -> bool {
        let Some(error) = error else { return false };
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            member.feed.tell_unavailable(self.doing, &member.group.topic, &error);
        }
        if !error.is_transient() && self.failures >= TRIES_MAX {
            return false;
        }
        tokio::time::sleep(store_backoff(self.failures)).await;
        true
    }
}

/// How long a consumer without pending entries has to be silent to be cleared away.
const GONE_AFTER: Duration = Duration::from_secs(3_600);
/// Tries for what the store refuses for another reason than being away.
const TRIES_MAX: u32 = 3;
/// How long an entry rests whose dead letter would come back.
const LOOP_REST: Duration = Duration::from_secs(60);
