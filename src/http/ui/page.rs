//! A page as a list of regions, the frame around them, and which address shows which.

use std::sync::{Arc, LazyLock};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use xene_schemas::meta::{Name, RunName};

use super::{
    Ui, agents,
    assets::{ICON, SCRIPT, STYLE, STYLE_SOURCE},
    client::{Client, Failure},
    events, notifiers, overview, run, runs,
    sign_in::{Session, TOKEN_FIELD, query_value},
    source, workflow, workflows,
};
use crate::decide::rows::Change;

const NOTIFIERS: &str = "/notifiers";
const HTML: &str = "text/html; charset=utf-8";

/// What every page tells the browser: nothing from elsewhere, nothing into elsewhere; no style but ours.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style = &*STYLE_SOURCE;
    let policy = format!(
        "default-src 'self'; style-src {style}; object-src 'none'; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// What else it tells the browser.
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("x-frame-options", "DENY"),
    // Within this server only: under `no-referrer` browsers say `Origin: null` of forms.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// What an address shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    Overview,
    Workflows(Pairs),
    Workflow(Name, Pairs),
    History(Name, Pairs),
    Runs(Pairs),
    Run(RunName, Pairs),
    Agents(Pairs),
    Agent(Name),
    Notifiers(Pairs),
    Events(Pairs),
    Source,
}

/// The parameters of an address.
pub(super) type Pairs = Vec<(String, String)>;

/// The value of a parameter; an empty one counts as absent.
pub(super) fn param<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    pairs.iter().find(|(found, value)| found == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

/// `name=value` for those that are set, to follow a `?`.
pub(super) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let set = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", query_value((*value)?))));
    set.collect::<Vec<_>>().join("&")
}

/// A page, ready for its frame.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) title: String,
    /// What stands above the regions instead of the title alone.
    pub(super) heading: Option<Markup>,
    pub(super) regions: Vec<Region>,
}

/// A part of a page that changes as one.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) id: String,
    pub(super) markup: Markup,
    /// False if it stays as it was first shown.
    pub(super) is_live: bool,
}

impl Page {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), heading: None, regions: Vec::new() }
    }

    pub(super) fn live(mut self, id: &str, markup: Markup) -> Self {
        self.regions.push(Region { id: id.to_owned(), markup, is_live: true });
        self
    }

    pub(super) fn still(mut self, id: &str, markup: Markup) -> Self {
        self.regions.push(Region { id: id.to_owned(), markup, is_live: false });
        self
    }
}

/// By this a browser and the server tell whether they mean the same text.
pub(super) fn digest(markup: &Markup) -> String {
    blake3::hash(markup.0.as_bytes()).to_hex()[..16].to_owned()
}

impl View {
    /// What an address shows, if anything.
    pub(super) fn parse(uri: &Uri) -> Option<Self> {
        let pairs = axum::extract::Query::<Pairs>::try_from_uri(uri).map(|query| query.0).unwrap_or_default();
        let parts: Vec<&str> = uri.path().split('/').skip(1).collect();
        Some(match parts[..] {
            [""] => Self::Overview,
            ["workflows"] => Self::Workflows(pairs),
            ["workflows", name] => Self::Workflow(name.parse().ok()?, pairs),
            ["workflows", name, "history"] => Self::History(name.parse().ok()?, pairs),
            ["runs"] => Self::Runs(pairs),
            ["runs", name] => Self::Run(name.parse().ok()?, pairs),
            ["agents"] => Self::Agents(pairs),
            ["agents", name] => Self::Agent(name.parse().ok()?),
            ["notifiers"] => Self::Notifiers(pairs),
            ["events"] => Self::Events(pairs),
            ["source"] => Self::Source,
            _ => return None,
        })
    }

    /// Where the navigation stands.
    fn place(&self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Workflows(_) | Self::Workflow(..) | Self::History(..) => "/workflows",
            Self::Runs(_) | Self::Run(..) => "/runs",
            Self::Agents(_) | Self::Agent(_) => "/agents",
            Self::Notifiers(_) => NOTIFIERS,
            Self::Events(_) => "/events",
            Self::Source => "/source",
        }
    }

    /// Makes the page; what of it only comes with the page itself is left out of later looks.
    pub(super) async fn render(
        &self,
        ui: &Ui,
        client: &Client,
        session: &Session,
        is_first: bool,
    ) -> Result<Page, Failure> {
        match self {
            Self::Overview => overview::render(client).await,
            Self::Workflows(pairs) => workflows::render(client, pairs).await,
            Self::Workflow(name, pairs) => workflow::render(client, session, name, pairs).await,
            Self::History(name, pairs) => workflow::history(client, name, pairs).await,
            Self::Runs(pairs) => runs::render(client, pairs).await,
            Self::Run(name, pairs) => run::render(ui, client, session, *name, is_first.then_some(pairs)).await,
            Self::Agents(pairs) => agents::list(client, pairs).await,
            Self::Agent(name) => agents::one(client, name).await,
            Self::Notifiers(pairs) => notifiers::render(client, session, pairs).await,
            Self::Events(pairs) => events::render(client, pairs).await,
            Self::Source => source::render(client).await,
        }
    }

    /// True if what it shows may change with this; `is_over`: the run that it shows has ended.
    pub(super) fn is_touched(&self, change: &Change, is_over: bool) -> bool {
        let is_owner_or_pipeline =
            matches!(change, Change::PutOwner(..) | Change::PutPipeline(_) | Change::DeletePipeline(_));
        let is_run = matches!(change, Change::PutRun(_) | Change::DeleteRun(_));
        let is_workflow = matches!(change, Change::PutWorkflow(_) | Change::DeleteWorkflow(_));
        let is_agent = matches!(change, Change::PutAgent(_) | Change::DeleteAgent(_));
        let is_notifier =
            matches!(change, Change::PutNotifier(_) | Change::DeleteNotifier(_) | Change::PutNotifierHealth(..));
        let is_suspension = matches!(change, Change::PutSuspension(_) | Change::DeleteSuspension(_));
        match self {
            // Some of what it tells, such as that takeovers are held, has no row but an event.
            Self::Overview => {
                is_owner_or_pipeline
                    || matches!(change, Change::AddEvent(_))
                    || is_run
                    || is_workflow
                    || is_agent
                    || is_notifier
                    || is_suspension
                    || matches!(change, Change::PutSource(_))
            }
            Self::Workflows(_) | Self::Workflow(..) => is_owner_or_pipeline || is_run || is_workflow || is_suspension,
            Self::History(..) => is_workflow,
            Self::Runs(_) => is_run,
            Self::Run(name, _) => match change {
                // Those that run may be what it waits for.
                Change::PutRun(row) => row.run.metadata.name == *name || !is_over && !row.run.status.phase.is_final(),
                Change::DeleteRun(gone) => gone == name,
                _ => is_owner_or_pipeline,
            },
            Self::Agents(_) | Self::Agent(_) => is_agent || is_owner_or_pipeline || is_run,
            Self::Notifiers(_) => is_notifier || matches!(change, Change::PutMessage(_) | Change::DeleteMessage(..)),
            Self::Events(_) => matches!(change, Change::AddEvent(_)),
            Self::Source => matches!(change, Change::PutSource(_)) || is_suspension,
        }
    }
}

/// Answers with the page of an address.
pub(super) async fn show(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    request: Request,
) -> Response {
    let Some(view) = View::parse(request.uri()) else {
        return failed(Some(&session), &Failure::not_found());
    };
    let client = ui.client(session.who.clone());
    match view.render(&ui, &client, &session, true).await {
        Ok(page) => {
            let address = request.uri().path_and_query().map_or("/", |address| address.as_str());
            respond(StatusCode::OK, &framed(&session, view.place(), Some(address), &page))
        }
        Err(failure) => failed(Some(&session), &failure),
    }
}

/// A page that does not change by itself.
pub(super) fn fixed(status: StatusCode, session: &Session, place: &str, page: &Page) -> Response {
    respond(status, &framed(session, place, None, page))
}

/// What could not be had, as a page.
pub(super) fn failed(session: Option<&Session>, failure: &Failure) -> Response {
    let title = failure.status.canonical_reason().unwrap_or("It failed");
    let body = html! {
        p.problem role="alert" { (super::html::plain(&failure.detail)) "." }
        @if let Some(hint) = &failure.hint { p { (super::html::plain(hint)) } }
        p { a href="/" { "To the overview" } }
    };
    match session {
        Some(session) => fixed(failure.status, session, "", &Page::new(title).still("failure", body)),
        None => outside(&Outside { status: failure.status, title, body }),
    }
}

/// A page for those who are not signed in.
pub(super) struct Outside<'a> {
    pub(super) status: StatusCode,
    pub(super) title: &'a str,
    pub(super) body: Markup,
}

pub(super) fn outside(page: &Outside<'_>) -> Response {
    let body = html! { main #main .outside { h1 { "xene" } h2 { (page.title) } (page.body) } };
    respond(page.status, &document(page.title, None, &body))
}

/// Makes the browser ask again by itself, as if the address had been typed.
pub(super) fn again() -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" { head { meta charset="utf-8"; meta http-equiv="refresh" content="0"; title { "xene" } } body {} }
    };
    respond(StatusCode::OK, &markup)
}

/// True for what is a page of the UI, also if it tells of an error.
pub(in crate::http) fn is_page(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == HTML)
}

pub(super) fn respond(status: StatusCode, markup: &Markup) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    (status, [kind], markup.0.clone()).into_response()
}

fn framed(session: &Session, place: &str, address: Option<&str>, page: &Page) -> Markup {
    const PLACES: &[(&str, &str)] = &[
        ("/", "Overview"),
        ("/workflows", "Workflows"),
        ("/runs", "Runs"),
        ("/agents", "Agents"),
        (NOTIFIERS, "Notifiers"),
        ("/events", "Events"),
        ("/source", "Source"),
    ];
    // They are about all workflows at once: the API shows them to nobody who sees only some.
    let sees_notifiers = session.who.scope.is_all();
    let body = html! {
        a.skip href="#main" { "Skip to content" }
        header.top {
            a.brand href="/" { "xene" }
            nav aria-label="Main" { ul {
                @for (path, name) in PLACES.iter().filter(|(path, _)| *path != NOTIFIERS || sees_notifiers) {
                    li { a href=(path) aria-current=[(*path == place).then_some("page")] { (name) } }
                }
            } }
            form.who method="post" action="/sign-out" {
                (token(session))
                span { (super::html::plain(&session.who.name)) }
                button type="submit" { "Sign out" }
            }
        }
        main #main tabindex="-1" {
            @match &page.heading { Some(heading) => { (heading) }, None => h1 { (page.title) } }
            @for region in &page.regions {
                div id={ "r-" (region.id) } data-digest=[region.is_live.then(|| digest(&region.markup))] { (region.markup) }
            }
        }
        @if address.is_some() { p #live .live role="status" { span { "Not live: reload to see what is new" } } }
    };
    document(&format!("{} · xene", page.title), address, &body)
}

fn document(title: &str, address: Option<&str>, body: &Markup) -> Markup {
    let live = address.map(|address| format!("/live?page={}", query_value(address)));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
                link rel="icon" type="image/svg+xml" href=(ICON.path);
                script src=(SCRIPT.path) defer {}
            }
            body data-live=[live] { (PreEscaped(&body.0)) }
        }
    }
}

/// What proves that a form is of this session.
pub(super) fn token(session: &Session) -> Markup {
    html! { input type="hidden" name=(TOKEN_FIELD) value=(session.form_token); }
}
