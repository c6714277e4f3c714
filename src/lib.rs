//! The controller, the command line and the local runner of xene.
//!
//! - [`decide`] and [`compile`] are pure: no I/O, no clock, no random source. They own every rule.
//! - [`source`] finds out what the files are, [`store`] keeps what is known, [`session`] speaks to agents,
//!   [`http`] to people and programs: shells.
//! - [`driver`] is the loop between them: it feeds events to the machine, commits, then carries out effects.
//! - [`notify`] delivers what people are told; [`metrics`] counts what happens, [`traces`] tells how long it took.
//! - [`local`] runs pipelines in this process, without a controller; [`trial`] tries workflow tests on a virtual clock:
//!   both drive the agent's own machine.
//! - [`outgoing`] asks other servers by HTTP; [`percent`] writes their addresses.
//! - [`cli`] is everything that a person types.

pub mod cli;
pub mod compile;
pub mod controller;
pub mod decide;
pub mod driver;
pub mod history;
pub mod http;
pub mod local;
pub mod metrics;
pub mod notify;
pub mod outgoing;
pub mod percent;
pub mod planning;
pub mod session;
pub mod source;
pub mod store;
pub mod traces;
pub mod trial;
