//! Sources against real repositories, real folders and real servers.

mod kit;
mod local;
