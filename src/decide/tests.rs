//! Stories: one controller's machine and some agents' machines in a world of memory, where time is a number.

mod admission;
mod after;
mod approvals;
mod authority;
mod breaker;
mod clock;
mod drift;
mod elsewhere;
mod exclusive;
mod files;
mod filling_up;
mod full;
mod groups;
mod holders;
mod ledger;
mod lost;
mod notify;
mod operators;
mod pause;
mod recovery;
mod source;
mod stories;
mod twins;
mod world;
mod worlds;
