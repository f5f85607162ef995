//! Table: what a subscription costs to keep, to make, to end, and to lose.
fn main() {}
