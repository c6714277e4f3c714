//! source

pub mod snapshot;
