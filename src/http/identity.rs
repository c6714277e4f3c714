//! Who asks, and what they may: an identity goes along with every request of the API, and every route names the least
//! role that it needs.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::{FromRequestParts, RawPathParams, Request, State},
    http::{Extensions, HeaderMap, StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
pub(super) use xene_schemas::access::Role;
use xene_schemas::meta::Name;

use super::{
    Api, audit,
    auth::{bearer, check_origin_and_type},
    body::Proven,
    lists::{absent, belongs_to, find_run},
    problem::Problem,
    tokens,
};

/// Whom the admin's token stands for.
const ADMIN: &str = "admin";
/// Names under which something is kept that no token did.
pub(super) const RESERVED: [&str; 3] = [ADMIN, "webhook", "xene"];

/// Somebody who has shown who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Whose name what they do is kept under.
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) scope: Scope,
    /// The id of the API token that they showed, if it was one.
    pub(super) token: Option<String>,
}

impl Identity {
    /// Whoever shows the admin's token.
    pub(super) fn admin() -> Self {
        Self { name: ADMIN.to_owned(), role: Role::Admin, scope: Scope::All, token: None }
    }

    /// False once the token that they showed is refused: what goes on without end then ends.
    pub(super) fn holds(&self, api: &Api) -> bool {
        let row = self.token.as_ref().map(|id| api.handle.store().api_token(id));
        row.is_none_or(|row| matches!(row, Ok(Some(row)) if !row.is_expired(api.handle.wall())))
    }

    /// # Errors
    /// If the role is too low.
    pub(super) fn require(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let detail = format!("this needs the role {role}, and {} is {}", self.name, self.role);
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }
}

/// Which workflows somebody sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    Workflows(Arc<BTreeSet<Name>>),
}

impl Scope {
    pub(super) fn has(&self, workflow: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Workflows(names) => names.contains(workflow),
        }
    }

    /// Those that they see, if not all.
    pub(super) const fn workflows(&self) -> Option<&Arc<BTreeSet<Name>>> {
        match self {
            Self::All => None,
            Self::Workflows(names) => Some(names),
        }
    }

    pub(super) const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// True if an event is about something that they see.
    pub(super) fn has_event(&self, api: &Api, regarding: &str) -> bool {
        self.is_all() || belongs_to(api, regarding).is_some_and(|(workflow, _)| self.has(&workflow))
    }
}

impl<S: Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        of(&parts.extensions)
    }
}

/// Whom the request is from.
fn of(extensions: &Extensions) -> Result<Identity, Problem> {
    extensions.get().cloned().ok_or_else(nobody)
}

/// Whoever sent these headers.
pub(super) fn identify(api: &Api, headers: &HeaderMap) -> Result<Identity, Problem> {
    let token = bearer(headers).ok_or_else(nobody)?;
    of_token(api, token)?.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "this token is not valid"))
}

/// Whose token it is.
pub(super) fn of_token(api: &Api, token: &str) -> Result<Option<Identity>, Problem> {
    if api.config.admin.is(token) { Ok(Some(Identity::admin())) } else { tokens::find(api, token) }
}

fn nobody() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is needed")
        .hint("the controller's token is in the file admin.token of its data folder")
}

/// Lets those pass who say who they are; handlers find it as an [`Identity`].
pub(super) async fn authenticate(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    match identify(&api, request.headers()) {
        Ok(identity) => {
            request.extensions_mut().insert(identity.clone());
            if let Some(proven) = request.extensions().get::<Proven>() {
                proven.now();
            }
            let answer = match check_origin_and_type(&request) {
                Ok(()) => next.run(request).await,
                Err(problem) => problem.into_response(),
            };
            audit::by(identity, answer)
        }
        Err(problem) => problem.into_response(),
    }
}

/// What a route asks of whoever calls it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    /// Its path, below `/api/v1`.
    pub(super) path: &'static str,
    pub(super) role: Role,
    /// True if it is about all workflows at once.
    pub(super) whole: bool,
}

/// Refuses whoever may not call the route. What is out of their sight is answered as if it was not there.
pub(super) async fn authorize(
    guard: Guard,
    State(api): State<Arc<Api>>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let checked = of(request.extensions()).and_then(|identity| {
        identity.require(guard.role)?;
        if identity.scope.is_all() {
            return Ok(());
        }
        if guard.whole {
            let detail = format!("this is about all workflows, and {} sees only some", identity.name);
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        in_sight(&api, &identity.scope, guard.path, &params)
    });
    match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// # Errors
/// If the path names an object that is out of sight.
fn in_sight(api: &Api, scope: &Scope, route: &str, params: &RawPathParams) -> Result<(), Problem> {
    let param = |name: &str| params.iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value);
    let (kind, name, workflow) = if route.starts_with("/workflows/{name}") {
        ("workflow", param("name").to_owned(), param("name").parse().ok())
    } else if route.starts_with("/pipelines/{workflow}") {
        let name = format!("{}/{}", param("workflow"), param("pipeline"));
        ("pipeline", name, param("workflow").parse().ok())
    } else if route.starts_with("/runs/{name}") {
        let name = param("name").to_owned();
        let row = find_run(api, &name)?;
        ("run", name, Some(row.run.spec.workflow))
    } else {
        return Ok(());
    };
    let seen = workflow.is_some_and(|workflow: Name| scope.has(&workflow));
    if seen { Ok(()) } else { Err(absent(kind, &name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_what_those_before_it_may() {
        let may = |role, needed| {
            Identity { name: "ada".into(), role, scope: Scope::All, token: None }.require(needed).is_ok()
        };
        for (role, table) in Role::ALL.into_iter().zip([[true, false, false], [true, true, false], [true; 3]]) {
            assert_eq!(Role::ALL.map(|needed| may(role, needed)), table, "{role}");
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        let viewer = Identity { name: "ada".into(), role: Role::Viewer, scope: Scope::All, token: None };
        let (status, told) = viewer.require(Role::Admin).unwrap_err().told();
        assert_eq!((status, told.as_str()), (403, "this needs the role admin, and ada is viewer"));
    }

    #[test]
    fn a_scope_has_its_workflows_alone() {
        let scope = Scope::Workflows(Arc::new(BTreeSet::from(["a".parse().unwrap()])));
        assert!(scope.has(&"a".parse().unwrap()) && !scope.has(&"ab".parse().unwrap()));
        assert!(Scope::All.has(&"ab".parse().unwrap()));
    }
}
