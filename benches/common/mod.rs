//! Common: what both benches use: arguments, numbers and their names, the machine's description, counted memory.

#![allow(dead_code, reason = "each bench is a crate of its own and uses a part of this")]

pub(crate) mod args;
pub(crate) mod machine;
pub(crate) mod numbers;
