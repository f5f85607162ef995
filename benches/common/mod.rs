//! Common: what the benches share: arguments, payload and gate, numbers and their names, parts and goals, the machine's description, the record of all samples.

#![allow(dead_code, reason = "each bench is a crate of its own and uses a part of this")]

pub(crate) mod args;
pub(crate) mod beam;
pub(crate) mod gate;
pub(crate) mod machine;
pub(crate) mod numbers;
pub(crate) mod parts;
pub(crate) mod payload;
pub(crate) mod record;
