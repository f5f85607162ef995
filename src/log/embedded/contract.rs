//! Contract: the handle as a [`Store`]. Knows nothing itself: each method is one call.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::EntryId;
use crate::log::embedded::store::EmbeddedStore;
use crate::log::embedded::writer::Request;
use crate::log::entry::Append;
use crate::log::entry::Appended;
use crate::log::entry::Batch;
use crate::log::entry::ConsumerInfo;
use crate::log::entry::Fetch;
use crate::log::entry::Fetched;
use crate::log::entry::Group;
use crate::log::entry::GroupInfo;
use crate::log::entry::Limit;
use crate::log::entry::Limits;
use crate::log::entry::Name;
use crate::log::entry::Pending;
use crate::log::entry::PendingQuery;
use crate::log::entry::Position;
use crate::log::entry::Token;
use crate::log::entry::TopicInfo;
use crate::log::entry::Trim;
use crate::log::store::Caps;
use crate::log::store::Durability;
use crate::log::store::Store;
use crate::log::store::StoreFuture;
use crate::log::store::Tail;
use crate::log::watch::LocalTail;
use crate::topic::Topic;

impl Store for EmbeddedStore {
    fn caps(&self) -> Caps {
        Caps::full(if self.inner.shared.settings.relaxed { Durability::Relaxed } else { Durability::Synced })
    }

    fn limits(&self) -> Limits {
        self.inner.shared.settings.limits
    }

    fn append<'a>(&'a self, topic: &'a Topic, batch: Append) -> StoreFuture<'a, Vec<Appended>> {
        Box::pin(self.append_batch(topic, batch))
    }

    fn read<'a>(&'a self, topic: &'a Topic, from: Position, limit: Limit) -> StoreFuture<'a, Batch> {
        Box::pin(async move { self.read_batch(topic, from, limit) })
    }

    fn tail(&self) -> Box<dyn Tail> {
        Box::new(LocalTail::new(self.clone(), Arc::clone(&self.inner.shared.watches)))
    }

    fn trim<'a>(&'a self, topic: &'a Topic, to: Trim) -> StoreFuture<'a, u64> {
        Box::pin(self.ask(move |reply| Request::Trim(topic.clone(), to, reply)))
    }

    fn info<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, TopicInfo> {
        Box::pin(async move { self.info_of(topic) })
    }

    fn topics<'a>(&'a self, after: Option<&'a Topic>, limit: usize) -> StoreFuture<'a, Vec<Topic>> {
        Box::pin(async move { self.topics_after(after, limit) })
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, bool> {
        Box::pin(self.ask(move |reply| Request::Delete(topic.clone(), reply)))
    }

    fn create_group<'a>(&'a self, group: &'a Group, from: Position) -> StoreFuture<'a, bool> {
        Box::pin(self.ask(move |reply| Request::CreateGroup(group.clone(), from, reply)))
    }

    fn delete_group<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, bool> {
        Box::pin(self.ask(move |reply| Request::DeleteGroup(group.clone(), reply)))
    }

    fn groups<'a>(&'a self, topic: &'a Topic) -> StoreFuture<'a, Vec<GroupInfo>> {
        Box::pin(async move { self.groups_of(topic) })
    }

    fn fetch<'a>(&'a self, group: &'a Group, consumer: &'a Name, fetch: Fetch) -> StoreFuture<'a, Vec<Fetched>> {
        Box::pin(self.fetch_wait(group, consumer, fetch))
    }

    fn ack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let now_ms = self.now_ms();
            self.change_each(group, &tokens, |slot, token| slot.state.ack(token, now_ms))
        })
    }

    fn nack<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, delay: Duration) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let now_ms = self.now_ms();
            self.change_each(group, &tokens, |slot, token| slot.state.nack(token, delay, now_ms))
        })
    }

    fn extend<'a>(&'a self, group: &'a Group, tokens: Vec<Token>, visibility: Duration) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let now_ms = self.now_ms();
            self.change_each(group, &tokens, |slot, token| slot.state.extend(token, visibility, now_ms))
        })
    }

    fn dead_letter<'a>(
        &'a self,
        group: &'a Group,
        fetched: Fetched,
        to: &'a Topic,
        reason: &'a str,
        trim: Option<Trim>,
    ) -> StoreFuture<'a, Option<EntryId>> {
        Box::pin(self.bury(group, fetched, to, reason, trim))
    }

    fn pending<'a>(&'a self, group: &'a Group, query: PendingQuery) -> StoreFuture<'a, Vec<Pending>> {
        Box::pin(async move {
            let now_ms = self.now_ms();
            self.group(group, |_, slot| slot.state.pending(&query, now_ms))
        })
    }

    fn claim<'a>(
        &'a self,
        group: &'a Group,
        consumer: &'a Name,
        idle_min: Duration,
        fetch: Fetch,
    ) -> StoreFuture<'a, Vec<Fetched>> {
        Box::pin(async move { self.claim_now(group, consumer, idle_min, fetch) })
    }

    fn consumers<'a>(&'a self, group: &'a Group) -> StoreFuture<'a, Vec<ConsumerInfo>> {
        Box::pin(async move {
            let now_ms = self.now_ms();
            self.group(group, |_, slot| slot.state.consumers(now_ms))
        })
    }

    fn remove_consumer<'a>(&'a self, group: &'a Group, consumer: &'a Name) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let now_ms = self.now_ms();
            self.change_waking(group, |_, slot| {
                let ids = slot.state.remove_consumer(consumer, now_ms);
                (ids.len() as u64, ids)
            })
        })
    }

    fn sync(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.ask(Request::Sync))
    }
}
