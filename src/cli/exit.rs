//! Exit statuses, one name each. Scripts rely on the numbers: they never change.

/// Done.
pub const DONE: u8 = 0;
/// The run ended in Error, validation found errors, or the controller refused or failed.
pub const FAILED: u8 = 1;
/// The command line, or what was given on it, makes no sense.
pub const USAGE: u8 = 2;
/// The controller can't be reached.
pub const UNREACHABLE: u8 = 3;
/// There is no such object.
pub const NOT_FOUND: u8 = 4;
/// The token does not allow it.
pub const NOT_ALLOWED: u8 = 5;
/// Ended by Ctrl-C.
pub const INTERRUPTED: u8 = 130;
