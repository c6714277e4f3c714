//! The web UI: pages that the server makes, one style sheet, one small script, all in the binary.
//!
//! A page is a list of regions. A browser that stays gets those that change as server-sent events ([`live`]); without a
//! script every page can be read and every form sent. Pages know the controller only through its API ([`client`]).

mod act;
mod agents;
mod ansi;
mod assets;
mod client;
mod dag;
mod events;
mod html;
mod lines;
mod live;
mod log;
mod notifiers;
mod openid;
mod overview;
mod page;
mod run;
mod runs;
pub mod session;
mod sign_in;
mod source;
mod start;
mod workflow;
mod workflows;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

pub(super) use self::page::is_page;
use self::{client::Client, lines::Indexes};
use super::{Api, identity::Identity};

/// What pages need besides the API.
#[derive(Debug)]
pub(super) struct Ui {
    api: Arc<Api>,
    /// The API's routes without what reads tokens.
    routes: Router,
    indexes: Indexes,
}

/// The UI's routes; `routes` are the API's without what reads tokens.
pub(super) fn router(api: Arc<Api>, routes: Router) -> Router<Arc<Api>> {
    let ui = Arc::new(Ui { api, routes, indexes: Indexes::default() });
    let pages = Router::new()
        .route("/", get(page::show))
        .route("/workflows", get(page::show))
        .route("/workflows/{workflow}", get(page::show))
        .route("/workflows/{workflow}/history", get(page::show))
        .route("/workflows/{workflow}/suspend", post(act::suspend))
        .route("/workflows/{workflow}/resume", post(act::resume))
        .route("/workflows/{workflow}/{pipeline}/start", get(start::form).post(start::start))
        .route("/runs", get(page::show))
        .route("/runs/{run}", get(page::show))
        .route("/runs/{run}/log.txt", get(log::download))
        .route("/runs/{run}/log/{section}", get(log::lines))
        .route("/runs/{run}/artifacts/{task}/{*path}", get(log::artifact))
        .route("/runs/{run}/cancel", post(act::cancel))
        .route("/runs/{run}/rerun", post(act::rerun))
        .route("/runs/{run}/approve", post(act::approve))
        .route("/agents", get(page::show))
        .route("/agents/{agent}", get(page::show))
        .route("/notifiers", get(page::show))
        .route("/notifiers/{notifier}/test", post(notifiers::test))
        .route("/events", get(page::show))
        .route("/source", get(page::show))
        .route("/live", get(live::live))
        .route("/sign-out", post(sign_in::sign_out))
        .layer(middleware::from_fn_with_state(ui.clone(), sign_in::require_session));
    Router::new()
        .merge(pages)
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-in/openid", get(openid::begin))
        .route(crate::http::openid::CALLBACK, get(openid::callback))
        .route("/ui/{file}", get(assets::serve))
        .layer(middleware::from_fn(guard))
        .with_state(ui)
}

/// Sets what keeps a browser to these pages alone.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await.into_response();
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert_with(|| page::POLICY.clone());
    for (name, value) in page::HEADERS {
        headers.entry(*name).or_insert(HeaderValue::from_static(value));
    }
    response
}

impl Ui {
    fn client(&self, who: Identity) -> Client {
        Client { api: self.routes.clone(), who }
    }
}
