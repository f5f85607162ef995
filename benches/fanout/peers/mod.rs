//! Peers: one file each, all with the same handler. Every one is set up in its fastest way that loses nothing.

mod actix_home;
mod broker;
mod dashmap_loop;
mod elixir;
mod kameo_pubsub;
mod pubsub;
mod ractor_port;
mod send_loop;
mod tokio_broadcast;
mod tokio_home;

use crate::rig::Placement;
use crate::rig::Stage;

pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Stage),
    placements: &'static [Placement],
}

/// What the others are measured against.
pub(crate) const LOOP: &str = "do_send loop";
/// A process of its own, of a program that may not be there.
pub(crate) const ELIXIR: &str = "Elixir Registry";
/// This crate.
pub(crate) const OURS: &str = "actix-pubsub";

const SINGLE_HOME: &[Placement] = &[Placement::OneThread, Placement::TwoThreads];

pub(crate) const ALL: &[Peer] = &[
    Peer { name: LOOP, run: send_loop::run, placements: &Placement::ALL },
    Peer { name: "DashMap loop", run: dashmap_loop::run, placements: SINGLE_HOME },
    Peer { name: "actix-broker", run: broker::run, placements: SINGLE_HOME },
    Peer { name: "kameo PubSub", run: kameo_pubsub::run, placements: SINGLE_HOME },
    Peer { name: "ractor OutputPort", run: ractor_port::run, placements: SINGLE_HOME },
    Peer { name: "tokio broadcast", run: tokio_broadcast::run, placements: SINGLE_HOME },
    Peer { name: "tokio on arbiters", run: tokio_broadcast::run_on_arbiters, placements: SINGLE_HOME },
    Peer { name: ELIXIR, run: elixir::run, placements: &[Placement::OneThread, Placement::Spread] },
    Peer { name: OURS, run: pubsub::run, placements: &Placement::ALL },
];

impl Peer {
    pub(crate) fn runs(&self, placement: Placement) -> bool {
        self.placements.contains(&placement)
    }
}
