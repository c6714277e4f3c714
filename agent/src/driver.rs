//! The loop between the machine and its shells.
