//! End to end: real processes, a real repository, real QUIC.

mod agents;
mod bad_input;
mod crashes;
mod dev;
mod examples;
mod logs;
mod main_job;
