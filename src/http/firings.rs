//! The firing ledger of a pipeline: what became of its due times.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use jiff::Timestamp;
use xene_schemas::{
    firing::{Firing, FiringMeta, Outcome, sentence},
    meta::{Name, PipelineKey},
};

use super::{Api, lists::absent, objects::list, problem::Problem, query::Query};
use crate::decide::rows::LedgerRow;

/// Newest first, by key cursor: `after` takes a firing's name. Also of a pipeline that is gone, while rows are kept.
pub(super) async fn firings(
    State(api): State<Arc<Api>>,
    Path((workflow, pipeline)): Path<(String, String)>,
    mut query: Query,
) -> Result<Response, Problem> {
    let name = format!("{workflow}/{pipeline}");
    let key = name.parse::<PipelineKey>().map_err(|_| absent("pipeline", &name))?;
    let (limit, since) = (query.limit()?, query.since()?);
    let until = query.until()?;
    let after: Option<Cursor> = query.parse("after", "the name of a firing, TRIGGER@TIME")?;
    query.finish()?;
    let mut below = after.map(|Cursor(trigger, slot)| (slot, Some(trigger)));
    if let Some(until) = until
        && below.as_ref().is_none_or(|(slot, _)| *slot > until)
    {
        // Those of `until` itself count.
        below = Some((until.checked_add(std::time::Duration::from_nanos(1)).unwrap_or(until), None));
    }
    let below = below.as_ref().map(|(slot, trigger)| (*slot, trigger.as_ref()));
    let rows = api.handle.store().ledger(&key, below, limit)?;
    let is_unknown = rows.is_empty() && api.handle.store().owner(&key)?.is_none();
    if is_unknown && api.handle.store().pipeline(&key)?.is_none() {
        return Err(absent("pipeline", &name));
    }
    let young = rows.into_iter().take_while(|row| since.is_none_or(|since| row.until.unwrap_or(row.slot) >= since));
    Ok(list("Firing", young.map(firing).collect()))
}

/// `TRIGGER@TIME`.
struct Cursor(Name, Timestamp);

impl std::str::FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (trigger, slot) = text.split_once('@').ok_or(())?;
        Ok(Self(trigger.parse().map_err(|_| ())?, slot.parse().map_err(|_| ())?))
    }
}

/// A row as the API shows it.
pub(super) fn firing(row: LedgerRow) -> Firing {
    let LedgerRow { pipeline, trigger, slot, reason, run, until, count, agent } = row;
    let message = match (&run, &reason) {
        (Some(run), _) => format!("it started run {run}"),
        (None, Some(reason)) => sentence(reason).to_owned(),
        (None, None) => String::new(),
    };
    // A row for several begins just before the first of them, which may have a row of its own.
    let first = match until {
        Some(_) => slot.round(jiff::TimestampRound::new().smallest(jiff::Unit::Second).mode(jiff::RoundMode::Ceil)),
        None => Ok(slot),
    };
    let first = first.unwrap_or(slot);
    Firing {
        metadata: FiringMeta { name: format!("{trigger}@{slot:.3}") },
        pipeline,
        trigger,
        scheduled_time: first,
        until,
        count,
        outcome: if run.is_some() { Outcome::Fired } else { reason.as_ref().map_or(Outcome::Unknown, Outcome::of) },
        reason,
        message,
        run,
        agent,
    }
}
