//! Dialect: how a client of one server opens its connection. Knows no sockets.

use crate::load::wire::Wire;

/// What is said before broadcasts come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) wire: Wire,
    pub(crate) path: &'static str,
    /// A text that begins so is answered so.
    pub(crate) answers: &'static [(&'static str, &'static str)],
    /// A text that begins so says that this client is subscribed; where it is empty, the head of the HTTP answer says it.
    pub(crate) ready: &'static str,
}
