//! End to end: real processes, a real repository, real QUIC.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may fail, and has a clock of its own")]

mod access;
mod agents;
mod authority;
mod backups;
mod bad_input;
mod crashes;
mod described;
mod dev;
mod drift;
mod examples;
mod files;
mod hostile;
mod limits;
mod logs;
mod long_log;
mod main_job;
mod notify;
mod operators;
mod plan;
mod restarts;
mod run;
mod tcp;
mod watchers;
mod workflow_tests;
