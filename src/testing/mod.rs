//! Testing: contract suites and faults, for stores and transports of your own and for tests of what stands on a store (feature `testing`). Outside of semver.

pub mod arrivals;
pub mod decoders;
pub mod faults;
pub mod store;
pub mod transport;
pub mod wire;
