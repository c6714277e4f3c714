//! The agent: hosts the trigger of each of its pipelines, resolves the DAG, runs steps, journals, reports.
//!
//! - [`decide`] is pure: events in, effects out, time as an argument. It owns every rule.
//! - [`exec`], [`journal`], [`session`] and [`logs`] are shells: processes, LMDB, QUIC, files.
//! - [`driver`] is the loop between them: it feeds events to the machine, commits, then carries out effects.

pub mod bounds;
pub mod clock;
pub mod command;
pub mod commits;
pub mod content;
pub mod crash;
pub mod decide;
pub mod driver;
pub mod exec;
pub mod expr;
pub mod folder;
pub mod glob;
pub mod journal;
pub mod lmdb;
pub mod logs;
pub mod matrix;
pub mod memory;
pub mod renewal;
pub mod session;
pub mod told;
pub mod usage;
