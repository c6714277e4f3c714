//! compile
pub mod params;
