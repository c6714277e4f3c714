//! Deterministic worlds: the real machines of controller and agents under model disks, networks, clocks and people.
//!
//! One seed is one world. After every event the laws of ownership are checked; at the end everything is mended, and
//! all must be as desired. A world that breaks a law is lived again from its seed, with its history written.

mod actions;
mod agent;
pub mod clock;
mod controller;
mod copies;
pub mod explore;
pub mod history;
pub mod invariants;
mod laws;
mod network;
mod node;
mod notices;
mod random;
mod rotation;
mod settle;
mod setup;
mod source;
mod store;
pub mod story;
mod takeovers;
mod world;

pub use self::{
    explore::{Explored, Found, SetUp, explore, replay, tell},
    history::History,
    invariants::Violation,
    random::Random,
    setup::{Action, Setup},
    world::{Outcome, World},
};
