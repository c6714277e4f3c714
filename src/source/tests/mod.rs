//! Sources against real repositories, real folders and real servers.

mod directory;
mod kit;
mod local;
mod remote;
mod servers;
mod travel;
