//! The embedded store: the log in one file of this process, by [redb](https://docs.rs/redb).
//!
//! ```text
//!   append ──> queue ──> writer thread ──> one commit for all that waits ──> answers, tails
//!   fetch, ack ──> state in memory ──────────┘ (rides on the next commit, or 10 ms later)
//!   read ──> blocks of the newest commit; waits for no writer
//!
//!   the file                 one table of rows, ordered by key
//!   ┌──────────────────┐     ┌───────┬───────────────────────────┬──────────────────────────────────┐
//!   │ head, 4 KiB      │     │ store │                           │ commits, next numbers, sum       │
//!   ├──────────────────┤     │ topic │ topic number              │ name, last, trimmed, counts      │
//!   │ journal, 1 MiB:  │     │ group │ topic, group number       │ name, last delivered             │
//!   │ newest commits   │     │ held  │ topic, group, entry id    │ consumer, times, attempt         │
//!   ├──────────────────┤     │ keys  │ topic, until, first id    │ idempotency keys and their ids   │
//!   │ redb: the table  │     │ block │ topic, first entry's id   │ its ordinal, count, the entries  │
//!   └──────────────────┘     └───────┴───────────────────────────┴──────────────────────────────────┘
//! ```
//!
//! Every value begins with a checksum over its key and itself. All rows but blocks are read at the opening, and add up to the sum that the store
//! row has; blocks count their entries, so that a page proves to be complete. [`src/docs/log-format.md`](https://docs.rs/crate/actix-pubsub/latest/source/src/docs/log-format.md) has it to the byte.
//!
//! | file | what it is |
//! |---|---|
//! | `store`, `groups`, `contract` | the handle |
//! | `writer`, `round`, `admin`, `desk`, `pace` | the thread that writes, what it makes of requests, how it answers, when it waits for more |
//! | `shared`, `topics` | what is in memory, and how a commit is settled |
//! | `read`, `block`, `row` | the format |
//! | `engine`, `journal`, `disk` | redb under a guard, the newest commits beside it, the file under both |

mod admin;
mod block;
mod contract;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(feature = "testing")]
pub(crate) mod decoders;
mod desk;
mod disk;
mod engine;
mod groups;
mod journal;
mod pace;
mod read;
mod round;
mod row;
mod shared;
mod store;
mod topics;
mod writer;

pub use self::store::EmbeddedBuilder;
pub use self::store::EmbeddedStore;
