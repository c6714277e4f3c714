//! Logs of runs at the controller: compressed files, appended, acknowledged by offset.

/// The logs of all runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogStore {}
