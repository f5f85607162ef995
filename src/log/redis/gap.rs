//! Gap: whether anything after a position may be missing, from what Redis tells of a stream. Pure; knows no connection.

use redis::Value;

use crate::ids::EntryId;
use crate::log::entry::GapCause;
use crate::log::error::StoreError;
use crate::log::redis::reply;

/// A stream as `state.lua` tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StreamState {
    pub(super) len: u64,
    /// Entries ever added.
    pub(super) added: u64,
    /// The newest id ever given.
    pub(super) last: EntryId,
    /// The newest id that an `XDEL` removed.
    pub(super) deleted: EntryId,
    /// The oldest and the newest entry.
    pub(super) first: Option<EntryId>,
    pub(super) newest: Option<EntryId>,
    /// When our last trim was done: everything up to here was gone, and so many entries in all.
    pub(super) trimmed: Option<(EntryId, u64)>,
    pub(super) groups: u64,
}

impl StreamState {
    /// `None`: there is no stream.
    pub(super) fn parse(value: Value) -> Result<Option<Self>, StoreError> {
        if matches!(&value, Value::Array(fields) if fields.is_empty()) {
            return Ok(None);
        }
        let [len, added, last, deleted, first, newest, trimmed, removed, groups] = reply::fixed(value)?;
        let trimmed = match &trimmed {
            // Up to the one before that.
            Value::BulkString(bytes) if bytes.first() == Some(&b'(') => {
                reply::id(&Value::BulkString(bytes[1..].to_vec()))?.prev()
            }
            other => reply::id_or_none(other)?,
        };
        Ok(Some(Self {
            len: reply::count(&len)?,
            added: reply::count(&added)?,
            last: reply::id(&last)?,
            deleted: reply::id(&deleted)?,
            first: reply::id_or_none(&first)?,
            newest: reply::id_or_none(&newest)?,
            trimmed: trimmed.zip(reply::count_or_none(&removed)?),
            groups: reply::count(&groups)?,
        }))
    }

    /// What `XINFO STREAM` tells; nothing of our trims.
    pub(super) fn parse_info(value: Value) -> Result<Self, StoreError> {
        let Value::Map(fields) = value else { return Err(reply::unexpected("a map", &value)) };
        let (mut state, mut known) = (Self::default(), 0);
        for (name, value) in &fields {
            let Value::BulkString(name) = name else { continue };
            match &name[..] {
                b"length" => state.len = reply::count(value)?,
                b"entries-added" => state.added = reply::count(value)?,
                b"last-generated-id" => state.last = reply::id(value)?,
                b"max-deleted-entry-id" => state.deleted = reply::id(value)?,
                b"first-entry" => state.first = entry_id(value)?,
                b"last-entry" => state.newest = entry_id(value)?,
                b"groups" => state.groups = reply::count(value)?,
                _ => continue,
            }
            known += 1;
        }
        if known == 7 { Ok(state) } else { Err(reply::unexpected("what Redis 7.0 tells of a stream", &Value::Map(fields))) }
    }

    /// Why entries after `after` may be missing; `None` is a proof that none is.
    pub(super) fn gap(&self, after: EntryId) -> Option<GapCause> {
        if after > self.last {
            return Some(GapCause::Ahead);
        }
        if after == self.last {
            return None;
        }
        // An XDEL somewhere after the position; of several only the newest is known.
        if self.deleted > after {
            return Some(GapCause::Trimmed);
        }
        if self.first.is_some_and(|first| first <= after) {
            return None;
        }
        let removed = self.added.saturating_sub(self.len);
        let nothing_gone = removed == 0 && after == EntryId::MIN;
        let by_us_alone = self.trimmed.is_some_and(|(upto, then)| removed == then && after >= upto);
        if nothing_gone || by_us_alone { None } else { Some(GapCause::Trimmed) }
    }

    /// A position before everything that is kept, and after everything that is gone.
    pub(super) fn before_kept(&self) -> EntryId {
        self.first.and_then(EntryId::prev).unwrap_or(self.last)
    }
}

/// The id of an entry as `XINFO` gives it.
fn entry_id(value: &Value) -> Result<Option<EntryId>, StoreError> {
    match value {
        Value::Array(entry) => entry.first().map_or(Ok(None), |id| reply::id(id).map(Some)),
        Value::Nil => Ok(None),
        other => Err(reply::unexpected("an entry", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    /// Ten entries 1..=10, of which those up to `gone` were trimmed.
    fn stream(gone: u64) -> StreamState {
        StreamState {
            len: 10 - gone,
            added: 10,
            last: id(10),
            first: (gone < 10).then(|| id(gone + 1)),
            newest: (gone < 10).then(|| id(10)),
            ..StreamState::default()
        }
    }

    #[test]
    fn where_nothing_was_removed_nothing_is_missing() {
        for after in [EntryId::MIN, id(1), id(9), id(10)] {
            assert_eq!(stream(0).gap(after), None);
        }
        assert_eq!(stream(0).gap(id(11)), Some(GapCause::Ahead));
        assert_eq!(StreamState::default().gap(EntryId::MIN), None);
        assert_eq!(StreamState::default().gap(id(1)), Some(GapCause::Ahead));
    }

    #[test]
    fn what_others_trimmed_leaves_every_position_before_it_in_doubt() {
        for after in [EntryId::MIN, id(3), id(4)] {
            assert_eq!(stream(4).gap(after), Some(GapCause::Trimmed));
        }
        assert_eq!((stream(4).gap(id(5)), stream(4).gap(id(10))), (None, None));
        assert_eq!((stream(10).gap(id(9)), stream(10).gap(id(10))), (Some(GapCause::Trimmed), None));
    }

    #[test]
    fn what_we_trimmed_is_known_to_the_entry_until_somebody_else_removes_one() {
        let ours = StreamState { trimmed: Some((id(4), 4)), ..stream(4) };
        assert_eq!((ours.gap(id(3)), ours.gap(id(4))), (Some(GapCause::Trimmed), None));
        let more = StreamState { trimmed: Some((id(4), 4)), ..stream(6) };
        assert_eq!(more.gap(id(4)), Some(GapCause::Trimmed));
        let all = StreamState { trimmed: Some((id(10), 10)), ..stream(10) };
        assert_eq!((all.gap(id(9)), all.gap(id(10))), (Some(GapCause::Trimmed), None));
    }

    #[test]
    fn a_deleted_entry_is_a_gap_for_who_has_not_passed_it() {
        let deleted = StreamState { deleted: id(5), len: 9, ..stream(0) };
        assert_eq!((deleted.gap(id(4)), deleted.gap(id(5))), (Some(GapCause::Trimmed), None));
        // Deleted before it was trimmed over.
        let ours = StreamState { deleted: id(5), trimmed: Some((id(4), 5)), len: 5, ..stream(4) };
        assert_eq!(ours.gap(id(4)), Some(GapCause::Trimmed));
    }

    #[test]
    fn a_position_of_another_log_is_in_doubt() {
        let anew = StreamState { len: 2, added: 2, first: Some(id(9)), ..stream(0) };
        assert_eq!((anew.gap(id(3)), anew.gap(EntryId::MIN)), (Some(GapCause::Trimmed), None));
    }

    #[test]
    fn the_trim_mark_is_read_in_both_forms() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let state = |mark: &str| {
            let fields = [
                Value::Int(1),
                Value::Int(5),
                text("9-0"),
                text("0-0"),
                text("9-0"),
                text("9-0"),
                text(mark),
                text("4"),
                Value::Int(0),
            ];
            StreamState::parse(Value::Array(fields.to_vec())).unwrap().unwrap().trimmed
        };
        assert_eq!(state("8-3"), Some((EntryId::new(8, 3), 4)));
        assert_eq!(state("(9-0"), Some((EntryId::new(8, u64::MAX), 4)));
        assert_eq!(state(""), None);
        assert_eq!(StreamState::parse(Value::Array(Vec::new())).unwrap(), None);
    }
}
