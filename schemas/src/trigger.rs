//! Triggers: what starts a pipeline besides a person and its own webhook.

use serde::{Deserialize, Serialize};

use crate::{duration::Duration, env::Scalar, map::UniqueMap};

/// What starts a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Trigger {
    /// Starts at times.
    Cron(Cron),
    /// Starts when a request comes to `/hooks/WORKFLOW/triggers/TRIGGER`.
    Webhook(Webhook),
}

/// Starts at times. Hosted by the agent that owns the pipeline, so it fires without the controller too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cron {
    /// Five fields as in POSIX/Vixie cron, six with leading seconds, or `@hourly` `@daily` `@weekly`
    /// `@monthly` `@yearly`.
    pub schedule: String,
    /// IANA zone; default UTC, never the machine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What becomes of due times that passed unfired.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// How late a start may be; default 1h.
    #[serde(default = "default_starting_deadline")]
    pub starting_deadline: Duration,
    /// A stable spread per pipeline, from 0 up to this; default 0.
    #[serde(default)]
    pub jitter: Duration,
    /// Params of the runs it starts.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub params: UniqueMap<String, Scalar>,
    /// True: it does not fire.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

fn default_starting_deadline() -> Duration {
    Duration::from_secs(3600)
}

/// What becomes of due times that passed unfired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum CatchUp {
    /// None is caught up.
    Skip,
    /// The newest.
    #[default]
    Latest,
    /// All in order, at most 100.
    All,
}

/// Starts when a request comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// How the sender proves itself; without it, as for a pipeline's own webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<WebhookAuth>,
    /// A CEL expression over `payload`, `headers`, `query`; false: no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Params of the run: name by CEL expression.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub params: UniqueMap<String, String>,
    /// True: requests are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// How a webhook's sender proves itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookAuth {
    /// The scheme.
    #[serde(rename = "type")]
    pub kind: WebhookAuthType,
    /// `NAME/KEY` of the secret that both sides know.
    pub secret: String,
}

/// A scheme of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WebhookAuthType {
    /// A bearer token.
    Token,
    /// `X-Signature: sha256=…` over the raw body.
    HmacSha256,
    /// As GitHub signs.
    Github,
    /// As GitLab does.
    Gitlab,
}
