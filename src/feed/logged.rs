//! Logged: an entry of the log as followers of its topic receive it live. Knows no store and no actor.

use std::sync::Arc;

use crate::event::Head;
use crate::ids::EntryId;

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
