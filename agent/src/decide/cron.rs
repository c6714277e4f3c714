//! When a cron trigger fires: Vixie's fields, IANA zones, the DST rules of the language.

use jiff::Timestamp;
use xene_schemas::trigger::Cron;

/// A schedule, ready to be asked.
#[derive(Debug, Clone)]
pub struct Schedule {}

/// Why a schedule can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {}

impl Schedule {
    /// Reads a trigger's `schedule` and `timeZone`.
    ///
    /// # Errors
    /// If the text is not a schedule, the zone is unknown, or the schedule never fires.
    pub fn parse(_cron: &Cron) -> Result<Self, ScheduleError> {
        unimplemented!()
    }

    /// The first due time after `after`, if there is one within the calendar.
    pub fn next_after(&self, _after: Timestamp) -> Option<Timestamp> {
        unimplemented!()
    }
}
