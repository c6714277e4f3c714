//! Triggers: what starts a pipeline besides a person and its own webhook.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::{duration::Duration, env::Scalar, map::UniqueMap, meta::Name};

/// What starts a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Trigger {
    /// Starts at times.
    Cron(Cron),
    /// Starts when a request comes to `/hooks/WORKFLOW/triggers/TRIGGER`.
    Webhook(Webhook),
}

/// The fields of all types. They are read as they come, so that an error knows its place: serde's own way of reading
/// a tagged enum keeps the whole map first.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    #[serde(rename = "type")]
    kind: Kind,
    schedule: Option<String>,
    time_zone: Option<String>,
    catch_up: Option<CatchUp>,
    starting_deadline: Option<Duration>,
    jitter: Option<Duration>,
    auth: Option<WebhookAuth>,
    when: Option<String>,
    #[serde(default)]
    params: UniqueMap<String, Scalar>,
    #[serde(default)]
    suspend: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Cron,
    Webhook,
}

impl<'de> Deserialize<'de> for Trigger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let Fields { kind, schedule, time_zone, catch_up, starting_deadline, jitter, auth, when, params, suspend } =
            fields;
        // The first field that the other type has.
        let foreign = |given: &[(&'static str, bool)], own| match given.iter().find(|(_, is_given)| *is_given) {
            Some((field, _)) => Err(D::Error::unknown_field(field, own)),
            None => Ok(()),
        };
        match kind {
            Kind::Cron => {
                let own =
                    &["type", "schedule", "timeZone", "catchUp", "startingDeadline", "jitter", "params", "suspend"];
                foreign(&[("auth", auth.is_some()), ("when", when.is_some())], own)?;
                Ok(Self::Cron(Cron {
                    schedule: schedule.ok_or_else(|| D::Error::missing_field("schedule"))?,
                    time_zone,
                    catch_up: catch_up.unwrap_or_default(),
                    starting_deadline: starting_deadline.unwrap_or_else(default_starting_deadline),
                    jitter: jitter.unwrap_or_default(),
                    params,
                    suspend,
                }))
            }
            Kind::Webhook => {
                let given = [
                    ("schedule", schedule.is_some()),
                    ("timeZone", time_zone.is_some()),
                    ("catchUp", catch_up.is_some()),
                    ("startingDeadline", starting_deadline.is_some()),
                    ("jitter", jitter.is_some()),
                ];
                foreign(&given, &["type", "auth", "when", "params", "suspend"])?;
                // `3` and `true` are expressions too.
                let params = params.into_inner().into_iter().map(|(name, value)| (name, value.to_string())).collect();
                Ok(Self::Webhook(Webhook { auth, when, params, suspend }))
            }
        }
    }
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
    /// `NAME/KEY` of the secret that both sides know. The controller makes it; another name makes another secret.
    pub secret: String,
}

/// A scheme of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WebhookAuthType {
    /// The secret as a bearer token, or as `X-Xene-Token`.
    Token,
    /// `X-Signature: sha256=…` over `X-Timestamp`, `X-Delivery-Id` and the raw body, with dots between them.
    HmacSha256,
    /// `X-Hub-Signature-256`, as GitHub signs.
    Github,
    /// `X-Gitlab-Token`, as GitLab does.
    Gitlab,
    /// `X-Gitea-Signature` or `X-Forgejo-Signature`, as these sign.
    Gitea,
    /// `X-Hub-Signature: sha256=…`, as Bitbucket signs.
    Bitbucket,
}

impl WebhookAuth {
    /// True if its secret is named as secrets are: `NAME/KEY`.
    pub fn names_a_secret(&self) -> bool {
        self.secret
            .split_once('/')
            .is_some_and(|(name, key)| name.parse::<Name>().is_ok() && key.parse::<Name>().is_ok())
    }
}

impl WebhookAuthType {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::HmacSha256 => "hmac-sha256",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
        }
    }
}
