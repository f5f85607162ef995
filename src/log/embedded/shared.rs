//! Shared: what the handles and the writer have in common, and how a commit is made and settled.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::ids::EntryId;
use crate::log::clock::Clock;
use crate::log::embedded::disk::Disk;
use crate::log::embedded::disk::Phase;
use crate::log::embedded::engine::Engine;
use crate::log::embedded::engine::Level;
use crate::log::embedded::engine::Reading;
use crate::log::embedded::engine::Tried;
use crate::log::embedded::engine::WriteError;
use crate::log::embedded::engine::Writing;
use crate::log::embedded::engine::unknown;
use crate::log::embedded::read;
use crate::log::embedded::round::Now;
use crate::log::embedded::row;
use crate::log::embedded::row::GroupRow;
use crate::log::embedded::row::HeldRow;
use crate::log::embedded::row::Meta;
use crate::log::embedded::row::StoreRow;
use crate::log::embedded::topics::Topics;
use crate::log::entry::Limits;
use crate::log::entry::Name;
use crate::log::error::StoreError;
use crate::log::watch::Watches;
use crate::topic::Topic;

/// How a store was opened.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) limits: Limits,
    pub(super) dedup_window: Duration,
    pub(super) cache_bytes: usize,
    /// How much of the journal is used.
    pub(super) journal_bytes: u64,
    pub(super) relaxed: bool,
    pub(super) instant_recovery: bool,
    pub(super) verify: bool,
    pub(super) clock: Clock,
}

/// One open store.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) engine: Engine,
    pub(super) watches: Arc<Watches>,
    topics: Mutex<Topics>,
    /// Commits were acked that are not on disk.
    unsynced: AtomicBool,
    /// After a crash the opening would walk through the file.
    walks: AtomicBool,
    /// Nobody knows what became of the last commit: what is in memory may not be what is on the disk.
    unknown: AtomicBool,
}

/// Changes of groups that ride on a commit.
#[derive(Default)]
struct Riders {
    rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    groups: Vec<(Topic, Name, Vec<EntryId>)>,
}

impl Shared {
    pub(super) fn open(disk: Disk, settings: Settings) -> Result<Self, StoreError> {
        let (engine, phase) = Engine::open(disk, settings.cache_bytes, settings.journal_bytes, settings.verify)?;
        let topics = Topics::load(&engine, settings.clock.steady_ms(), settings.dedup_window)?;
        if let Phase::Closed(commits) = phase
            && commits != topics.store.commits
        {
            return Err(StoreError::Corrupt {
                at: "the store row".to_owned(),
                detail: format!("it is that of commit {}, the store was closed after {commits}", topics.store.commits),
            });
        }
        let (watches, topics) = (Arc::default(), Mutex::new(topics));
        let [unsynced, walks, unknown] = [const { AtomicBool::new(false) }; 3];
        let shared = Self { settings, engine, watches, topics, unsynced, walks, unknown };
        shared.engine.mark_open()?;
        Ok(shared)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Now {
        let clock = &self.settings.clock;
        Now { wall_ms: clock.wall_ms(), steady_ms: clock.steady_ms(), window: self.settings.dedup_window }
    }

    /// Whether there is something that no commit on disk has.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsynced.load(Ordering::Relaxed) || !self.lock().dirty.is_empty()
    }

    /// The topic's numbers as `rows` has them; `None`: it was deleted meanwhile. A row that is missing, or older than what is in memory, is damage:
    /// a lookup that a changed byte led astray looks just like a topic that does not exist.
    pub(super) fn meta(&self, rows: &Reading, topic: &Topic, known: &Meta) -> Tried<Option<Meta>> {
        let found = read::meta(rows, known.no)?;
        let corrupt = |detail: String| Err(StoreError::Corrupt { at: format!("the row of topic {topic}"), detail }.into());
        match found {
            Some(found) if found.appended < known.appended || found.gone < known.gone => corrupt(format!(
                "it says {} of {} entries, there were {} of {}",
                found.kept(),
                found.appended,
                known.kept(),
                known.appended
            )),
            Some(found) => Ok(Some(found)),
            None if self.lock().by_name.get(topic).is_some_and(|state| state.meta.no == known.no && !state.leaving) => {
                corrupt("it is missing".to_owned())
            }
            None => Ok(None),
        }
    }

    /// Whether a crash now would make the opening walk through the file.
    pub(super) fn walks(&self) -> bool {
        self.walks.load(Ordering::Relaxed)
    }

    /// The level of a commit that somebody waits for.
    pub(super) fn level(&self) -> Level {
        Level::Noted { quick: self.settings.instant_recovery }
    }

    /// Whether nobody knows what became of the last commit.
    pub(super) fn is_unknown(&self) -> bool {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Makes memory what the disk is, if that is not known. The writer calls it before it decides anything.
    pub(super) fn know(&self) -> Result<(), StoreError> {
        if self.is_unknown() { self.reload() } else { Ok(()) }
    }

    fn reload(&self) -> Result<(), StoreError> {
        self.unknown.store(true, Ordering::Relaxed);
        let now = self.now();
        let topics = Topics::load(&self.engine, now.steady_ms, now.window)?;
        *self.lock() = topics;
        self.unknown.store(false, Ordering::Relaxed);
        self.unsynced.store(false, Ordering::Relaxed);
        // What nobody was told of may have come.
        self.watches.moved_all();
        Ok(())
    }

    /// Makes one commit of what `write` does and of the groups' changes. An error has done nothing, save `Unavailable` with `Unknown`.
    pub(super) fn commit<T>(
        &self,
        level: Level,
        next_topic: Option<u64>,
        write: impl FnOnce(&mut Writing<'_>) -> Tried<T>,
    ) -> Result<T, StoreError> {
        self.commit_numbered(level, |rows, store| {
            store.next_topic = next_topic.unwrap_or(store.next_topic);
            write(rows)
        })
    }

    /// As [`commit`](Self::commit); `write` may take numbers from the store's row.
    pub(super) fn commit_numbered<T>(
        &self,
        level: Level,
        write: impl FnOnce(&mut Writing<'_>, &mut StoreRow) -> Tried<T>,
    ) -> Result<T, StoreError> {
        let (riders, before) = {
            let mut topics = self.lock();
            (Riders::take(&mut topics), topics.store)
        };
        let mut store = StoreRow { commits: before.commits + 1, ..before };
        let mut done = None;
        let written = self.engine.write(level, |rows| {
            for (key, value) in &riders.rows {
                match value {
                    Some(value) => rows.put(key, value)?,
                    None => rows.remove(key)?,
                }
            }
            done = Some(write(rows, &mut store)?);
            store.sum = before.sum.wrapping_add(rows.sum);
            rows.put(&row::store_key(), &store.encode())
        });
        let settled = match written {
            Ok(()) => Ok(()),
            Err(WriteError::NotDone(error)) => Err(error),
            Err(WriteError::Unknown(error)) => self.settle(before, store, error),
        };
        match (settled, done) {
            (Ok(()), Some(done)) => {
                self.lock().store = store;
                self.unsynced.store(level == Level::Memory, Ordering::Relaxed);
                self.walks.store(level.walks(), Ordering::Relaxed);
                Ok(done)
            }
            (Err(error), _) => {
                riders.give_back(&mut self.lock());
                Err(error)
            }
            (Ok(()), None) => Err(StoreError::Closed),
        }
    }

    /// Finds out what became of a commit that failed, and goes on from what is on the disk.
    fn settle(&self, before: StoreRow, tried: StoreRow, error: StoreError) -> Result<(), StoreError> {
        let found = self.engine.read(|rows| match rows.table.get(&row::store_key()[..])? {
            Some(value) => Ok(StoreRow::decode(value.value())?),
            None => Ok(StoreRow::default()),
        });
        match found {
            Ok(found) if found == tried => Ok(()),
            Ok(found) if found == before => Err(error),
            // Acked commits that were not on disk yet are lost: what is in memory is ahead of the disk.
            Ok(_) => {
                self.reload()?;
                Err(error)
            }
            Err(_) => {
                self.unknown.store(true, Ordering::Relaxed);
                Err(unknown(error))
            }
        }
    }

    /// Writes what is left and closes the file.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let is_left = || self.is_unsettled() || self.engine.is_noted();
        let flushed = self.know().and_then(|()| if is_left() { self.commit(Level::Quick, None, |_| Ok(())) } else { Ok(()) });
        let commits = self.lock().store.commits;
        self.engine.close(commits)?;
        flushed
    }
}

impl Riders {
    /// Takes the groups' changes.
    fn take(topics: &mut Topics) -> Self {
        let mut riders = Self::default();
        let dirty: HashSet<_> = std::mem::take(&mut topics.dirty);
        for (topic, name) in dirty {
            let Some(state) = topics.by_name.get_mut(&topic) else { continue };
            let no = state.meta.no;
            let Some(slot) = state.group_mut(&name) else { continue };
            let changed: Vec<EntryId> = std::mem::take(&mut slot.changed).into_iter().collect();
            for id in &changed {
                let key = row::held_key(no, slot.no, *id);
                let value = slot.state.held(*id).map(|held| HeldRow::encode(&key, held));
                riders.rows.push((key, value));
            }
            let (key, value) = GroupRow::encode(no, slot.no, &name, &slot.state);
            riders.rows.push((key, Some(value)));
            riders.groups.push((topic, name, changed));
        }
        riders
    }

    /// The commit failed: they ride on the next.
    fn give_back(self, topics: &mut Topics) {
        for (topic, name, changed) in self.groups {
            let Some(slot) = topics.by_name.get_mut(&topic).and_then(|state| state.group_mut(&name)) else { continue };
            slot.changed.extend(changed);
            topics.dirty.insert((topic, name));
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}
