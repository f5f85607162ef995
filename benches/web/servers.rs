//! Servers: all that are measured, ours first.

use crate::ours;
use crate::peers;
use crate::server::Server;

pub(crate) fn all() -> impl Iterator<Item = &'static Server> {
    ours::ALL.iter().chain(peers::ALL)
}

pub(crate) fn named(name: &str) -> &'static Server {
    all().find(|server| server.name == name).unwrap_or_else(|| panic!("no server {name:?}"))
}
