//! Admin: trims, deletes and groups made or removed, each one commit. Called by the writer only.

use crate::ids::EntryId;
use crate::log::embedded::engine::Tried;
use crate::log::embedded::engine::Writing;
use crate::log::embedded::read;
use crate::log::embedded::read::Cut;
use crate::log::embedded::round;
use crate::log::embedded::row;
use crate::log::embedded::row::GroupRow;
use crate::log::embedded::row::Meta;
use crate::log::embedded::shared::Shared;
use crate::log::embedded::topics::GroupSlot;
use crate::log::embedded::topics::TopicState;
use crate::log::entry::Group;
use crate::log::entry::Limit;
use crate::log::entry::Position;
use crate::log::entry::Trim;
use crate::log::error::StoreError;
use crate::log::pending::GroupState;
use crate::topic::Topic;

fn meta(shared: &Shared, topic: &Topic) -> Option<Meta> {
    shared.lock().by_name.get(topic).map(|state| state.meta)
}

pub(super) fn trim(shared: &Shared, topic: &Topic, to: Trim) -> Result<u64, StoreError> {
    let Some(before) = meta(shared, topic) else { return Ok(0) };
    let cut = round::cut_of(&before, Cut::default(), to, shared.now().wall_ms);
    if shared.engine.read(|rows| read::cut(&rows.table, &before, cut))?.0 == before {
        return Ok(0);
    }
    let after = shared.commit(shared.level(), None, |rows| {
        let after = round::write_cut(rows, &before, cut)?;
        let (key, value) = after.encode(topic);
        rows.put(&key, &value)?;
        Ok(after)
    })?;
    if let Some(state) = shared.lock().by_name.get_mut(topic) {
        state.meta = after;
    }
    Ok(after.gone - before.gone)
}

fn leave(shared: &Shared, topic: &Topic, leaving: bool) {
    if let Some(state) = shared.lock().by_name.get_mut(topic) {
        state.leaving = leaving;
    }
}

pub(super) fn delete(shared: &Shared, topic: &Topic) -> Result<bool, StoreError> {
    let Some(meta) = meta(shared, topic) else { return Ok(false) };
    leave(shared, topic, true);
    let deleted = shared.commit_numbered(shared.level(), |rows, store| {
        store.floor = store.floor.max(meta.last);
        for kind in [row::TOPIC, row::GROUP, row::HELD, row::KEYS, row::BLOCK] {
            let mut prefix = row::topic_key(meta.no);
            prefix[0] = kind;
            rows.remove_all(&prefix)?;
        }
        Ok(())
    });
    if let Err(error) = deleted {
        leave(shared, topic, false);
        return Err(error);
    }
    shared.lock().by_name.remove(topic);
    shared.watches.moved(topic);
    Ok(true)
}

pub(super) fn create_group(shared: &Shared, group: &Group, from: Position) -> Result<bool, StoreError> {
    let (known, exists) = {
        let topics = shared.lock();
        let state = topics.by_name.get(&group.topic);
        let exists = state.and_then(|state| state.groups.as_ref()).is_some_and(|groups| groups.contains_key(&group.name));
        (state.map(|state| state.meta), exists)
    };
    if exists {
        return Ok(false);
    }
    let (meta, no, state) = shared.commit_numbered(shared.level(), |rows, store| {
        let meta = known.unwrap_or(Meta::new(store.next_topic, store.floor));
        if known.is_none() {
            store.next_topic += 1;
            let (key, value) = meta.encode(&group.topic);
            rows.put(&key, &value)?;
        }
        let no = store.next_group;
        store.next_group += 1;
        let state = begin(rows, &meta, from)?;
        let (key, value) = GroupRow::encode(meta.no, no, &group.name, &state);
        rows.put(&key, &value)?;
        Ok((meta, no, state))
    })?;
    let mut topics = shared.lock();
    let topic = topics.by_name.entry(group.topic.clone()).or_insert_with(|| TopicState::new(meta));
    topic.groups.get_or_insert_default().insert(group.name.clone(), GroupSlot::new(no, state));
    Ok(true)
}

/// A group's state at its beginning.
fn begin(rows: &Writing<'_>, meta: &Meta, from: Position) -> Tried<GroupState> {
    let after = match from {
        // All of it: what was trimmed is skipped, and counted.
        Position::After(EntryId::MIN) => return Ok(GroupState::at(EntryId::MIN, Some(0))),
        // A group cannot begin ahead of the log.
        Position::After(id) => {
            let at = id.min(meta.last);
            let read = if at >= meta.trimmed { Some(read::ordinal(&rows.table, meta, at)?) } else { None };
            return Ok(GroupState::at(at, read));
        }
        from => start(meta, from),
    };
    let first = read::page(&rows.table, meta, after, Limit { entries: 1, bytes: 0 })?;
    Ok(match first.first().and_then(|(ordinal, entry)| Some((entry.id.prev()?, ordinal - 1))) {
        Some((at, read)) => GroupState::at(at, Some(read)),
        None => GroupState::at(meta.last, Some(meta.appended)),
    })
}

/// What a position that is not an id comes after.
pub(super) fn start(meta: &Meta, from: Position) -> EntryId {
    match from {
        Position::Start => meta.trimmed,
        Position::End => meta.last,
        Position::After(id) => id,
        // A time to come: what is appended until then is before it, too, but no reader can be put ahead of the log.
        Position::Since(ms) => EntryId::new(ms, 0).prev().unwrap_or_default().max(meta.trimmed).min(meta.last),
    }
}

pub(super) fn delete_group(shared: &Shared, group: &Group) -> Result<bool, StoreError> {
    let numbers = {
        let mut topics = shared.lock();
        let state = topics.by_name.get_mut(&group.topic);
        state.and_then(|state| Some((state.meta.no, state.group_mut(&group.name)?.no)))
    };
    let Some((topic, no)) = numbers else { return Ok(false) };
    shared.commit(shared.level(), None, |rows| {
        let mut key = row::group_key(topic, no);
        rows.remove(&key)?;
        key[0] = row::HELD;
        rows.remove_all(&key)
    })?;
    let mut topics = shared.lock();
    if let Some(state) = topics.by_name.get_mut(&group.topic) {
        if let Some(groups) = &mut state.groups {
            groups.remove(&group.name);
        }
        if state.groups_len() == 0 {
            state.groups = None;
        }
    }
    drop(topics);
    shared.watches.moved(&group.topic);
    Ok(true)
}
