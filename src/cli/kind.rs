//! The kinds of objects that one can get and describe, by the names people use for them.

use clap::ValueEnum;

use super::Error;
use crate::percent::encode;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// What the source declares.
    #[value(alias = "workflow", alias = "wf")]
    Workflows,
    /// What agents own: WORKFLOW/PIPELINE.
    #[value(alias = "pipeline", alias = "pl")]
    Pipelines,
    /// What happened, or happens.
    #[value(alias = "run")]
    Runs,
    /// Where it happens.
    #[value(alias = "agent")]
    Agents,
    /// Who is told of what.
    #[value(alias = "notifier")]
    Notifiers,
    /// What changed, and why.
    #[value(alias = "event", alias = "ev")]
    Events,
}

impl Kind {
    /// As in `-o name`, and in watch events.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Workflows => "workflow",
            Self::Pipelines => "pipeline",
            Self::Runs => "run",
            Self::Agents => "agent",
            Self::Notifiers => "notifier",
            Self::Events => "event",
        }
    }

    /// The list's path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Workflows => "/api/v1/workflows",
            Self::Pipelines => "/api/v1/pipelines",
            Self::Runs => "/api/v1/runs",
            Self::Agents => "/api/v1/agents",
            Self::Notifiers => "/api/v1/notifiers",
            Self::Events => "/api/v1/events",
        }
    }

    /// The path of one object. `name` may begin with its kind, as `-o name` prints it.
    ///
    /// # Errors
    /// If this is no name of such an object.
    pub fn path_of(self, name: &str) -> Result<String, Error> {
        let name = self.bare(name);
        if self == Self::Pipelines {
            let (workflow, pipeline) = name.split_once('/').ok_or_else(|| {
                Error::usage_with_hint(
                    format!("{name:?} is not a pipeline"),
                    "a pipeline is written WORKFLOW/PIPELINE; see `xene get pipelines`",
                )
            })?;
            return Ok(format!("{}/{}/{}", self.path(), encode(workflow), encode(pipeline)));
        }
        Ok(format!("{}/{}", self.path(), encode(name)))
    }

    /// The name without its kind.
    pub fn bare(self, name: &str) -> &str {
        match name.split_once('/') {
            // A pipeline may belong to a workflow named `pipeline`.
            Some((kind, rest)) if kind == self.singular() && (self != Self::Pipelines || rest.contains('/')) => rest,
            _ => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_paths() {
        let path = |kind: Kind, name| kind.path_of(name).unwrap();
        assert_eq!(path(Kind::Runs, "run/01x"), "/api/v1/runs/01x");
        assert_eq!(path(Kind::Pipelines, "w/p"), "/api/v1/pipelines/w/p");
        assert_eq!(path(Kind::Pipelines, "pipeline/w/p"), "/api/v1/pipelines/w/p");
        assert_eq!(path(Kind::Pipelines, "pipeline/p"), "/api/v1/pipelines/pipeline/p");
        assert_eq!(path(Kind::Agents, "../a b"), "/api/v1/agents/..%2Fa%20b");
        assert_eq!(Kind::Pipelines.path_of("w").unwrap_err().status(), 2);
    }
}
