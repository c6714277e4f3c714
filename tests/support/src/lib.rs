//! What xene's tests share.

pub mod sim;
