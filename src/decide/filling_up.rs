//! A store that has not much room left is told of before it is full, while there is time to make some.

use jiff::Timestamp;
use xene_agent::decide::time::Now;
use xene_schemas::{controller::StoreFillingUp, event::EventType};

use super::{
    Controller,
    event::{Effect, Effects},
    note,
};

/// Told from so many hundredths of what it may grow to.
const FROM: u64 = 80;
/// Until it is below so many, so that it is not told over and over.
const UNTIL: u64 = 75;

/// Four fifths are used, or more; or they were, and it has not become much less.
#[derive(Debug)]
pub(super) struct FillingUp {
    since: Timestamp,
    used: u64,
    limit: u64,
}

impl Controller {
    /// The store was measured, in bytes.
    pub(super) fn store_size(&mut self, now: Now, used: u64, limit: u64, fx: &mut Effects) {
        let reaches = |share: u64| u128::from(used) * 100 >= u128::from(limit) * u128::from(share);
        match &mut self.filling_up {
            None if reaches(FROM) => {
                let filling_up = FillingUp { since: now.wall, used, limit };
                let message = filling_up.message();
                self.filling_up = Some(filling_up);
                fx.now.push(Effect::Alert(message.clone()));
                note(fx, now, EventType::Warning, "StoreFillingUp", "controller".into(), message);
            }
            Some(_) if !reaches(UNTIL) => {
                self.filling_up = None;
                let message = format!("the store has room again: {} of {} are used", size(used), size(limit));
                note(fx, now, EventType::Normal, "StoreHasRoom", "controller".into(), message);
            }
            Some(filling_up) => (filling_up.used, filling_up.limit) = (used, limit),
            None => {}
        }
    }

    /// As the API shows it.
    pub(super) fn store_filling_up(&self) -> Option<StoreFillingUp> {
        let filling_up = self.filling_up.as_ref()?;
        let FillingUp { since, used, limit } = *filling_up;
        Some(StoreFillingUp { since, used, limit, message: filling_up.message() })
    }
}

impl FillingUp {
    fn message(&self) -> String {
        format!(
            "the store fills up: {} are used of the {} that it may come to on its disk; make room there, or keep fewer \
             runs: once it is full nothing new is taken",
            size(self.used),
            size(self.limit)
        )
    }
}

/// Such as `1.5 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{} KiB", bytes / 1024),
    }
}
