//! Testing: contract suites for stores of your own (feature `testing`). Outside of semver.

pub mod store;
