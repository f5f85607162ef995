//! Common: what the benches share: arguments, payload and gate, numbers and their names, parts and goals, the machine's description.

#![allow(dead_code, reason = "each bench is a crate of its own and uses a part of this")]

pub(crate) mod args;
pub(crate) mod gate;
pub(crate) mod machine;
pub(crate) mod numbers;
pub(crate) mod parts;
pub(crate) mod payload;
