//! Notifiers: read, and tried.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use xene_schemas::{
    meta::Name,
    notifier::{NotifierObject, NotifierTest},
};

use super::{
    Api,
    audit::about,
    lists::absent,
    objects::{Object, json, list},
    problem::Problem,
    query::Query,
};

pub(super) async fn notifiers(State(api): State<Arc<Api>>, mut query: Query) -> Result<Response, Problem> {
    let (limit, labels) = (query.limit()?, query.labels()?);
    let after: Option<Name> = query.parse("after", "a name")?;
    let phase = query.take("phase");
    query.finish()?;
    let all = api.handle.view(|controller, _| controller.notifiers()).await?;
    let asked = all.into_iter().filter(|NotifierObject { metadata, status, .. }| {
        after.as_ref().is_none_or(|after| metadata.name > *after)
            && phase.as_ref().is_none_or(|phase| status.phase.as_str() == phase)
            && labels.matches(|key| metadata.labels.get(key))
    });
    Ok(list("Notifier", asked.take(limit).collect()))
}

pub(super) async fn notifier(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let parsed = name.parse::<Name>().map_err(|_| absent("notifier", &name))?;
    let found = api.handle.view(move |controller, _| controller.notifier(&parsed)).await?;
    Ok(Object::new("Notifier", found.ok_or_else(|| absent("notifier", &name))?).into_response())
}

pub(super) async fn test(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let parsed = name.parse::<Name>().map_err(|_| absent("notifier", &name))?;
    let trial = api.handle.view(move |controller, now| controller.trial(now, &parsed)).await?;
    let trial = trial.ok_or_else(|| absent("notifier", &name))?;
    let test = match api.config.outgoing.try_now(Box::new(trial)).await {
        Ok(message) => NotifierTest { delivered: true, message },
        Err(failure) => NotifierTest { delivered: false, message: failure.why },
    };
    Ok(about(format!("notifier/{name}"), json(StatusCode::OK, &test)))
}
