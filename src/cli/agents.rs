//! `xene agents`: join tokens, and the life of an agent.

use std::num::NonZeroU32;

use clap::Subcommand;
use serde_json::{Map, Value, json};
use xene_schemas::{
    controller::{CaRotation, Controller},
    duration::Duration,
    meta::AgentName,
};

use super::{
    Error,
    client::Client,
    kind::Kind,
    output::{Format, Ui},
    settings, status,
    table::Table,
};
use crate::percent::encode;

const TOKENS: &str = "/api/v1/agents/tokens";

/// Arguments of `xene agents`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with agents.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Join tokens.
    Token {
        /// What to do.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Give an agent's pipelines to others, and no new ones to it; its runs go on.
    Drain(Name),
    /// End a drain.
    Undrain(Name),
    /// Refuse an agent's identity for good, at once.
    Revoke(Name),
    /// Forget an agent that will not come back; its pipelines move once it can't start runs any more.
    Forget(Name),
    /// Give an agent's pipelines to others at once, because its machine is off.
    Fence(Fence),
    /// Replace the certificate authority; agents follow by themselves.
    RotateCa(RotateCa),
}

/// What can be done with join tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token by which an agent joins, and print it: it is shown this once.
    Create(Create),
    /// List tokens that are neither spent nor revoked, without their secrets.
    List,
    /// Let nobody in by a token any more; whoever joined by it stays.
    Revoke(RevokeToken),
}

/// An agent's name.
#[derive(Debug, Clone, clap::Args)]
pub struct Name {
    /// The agent.
    #[arg(value_name = "AGENT")]
    pub name: String,
}

/// Arguments of `xene agents fence`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Nobody can tell from afar whether an agent that is silent runs on. You can: look at the machine, \
                        or cut its power. If it does run, due times are started twice."
)]
pub struct Fence {
    /// The agent.
    #[command(flatten)]
    pub agent: Name,

    /// You know that the machine is off; without this nothing happens.
    #[arg(long)]
    pub machine_is_off: bool,
}

/// Arguments of `xene agents rotate-ca`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "A new authority signs from now on, and the old one is trusted, too, until every agent that is neither \
                        revoked nor forgotten has come by a certificate of the new one, or for 48 hours. Connected agents \
                        follow within seconds. One that is away for all of that must join anew."
)]
pub struct RotateCa {
    /// Trust the old one no more, at once; agents that have not come by the new one must join anew.
    #[arg(long)]
    pub finish: bool,
}

/// Arguments of `xene agents token create`.
#[derive(Debug, Clone, clap::Args)]
pub struct Create {
    /// How long it may be used.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub ttl: Duration,

    /// How many agents may join by it.
    #[arg(long, value_name = "N", default_value = "1")]
    pub uses: NonZeroU32,

    /// A label that it fixes; may be repeated. Agents that join by it can't choose their labels themselves.
    #[arg(long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = settings::key_value)]
    pub label: Vec<(String, String)>,

    /// The name that it fixes.
    #[arg(long, value_name = "NAME")]
    pub name: Option<AgentName>,
}

/// Arguments of `xene agents token revoke`.
#[derive(Debug, Clone, clap::Args)]
pub struct RevokeToken {
    /// The tokens' ids, as the list shows them.
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}

/// Does it.
///
/// # Errors
/// If the controller refuses.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let mut body = json!({});
    let (name, verb, done) = match &args.command {
        Command::Token { command } => {
            return match command {
                TokenCommand::Create(create) => create_token(create, client, ui),
                TokenCommand::List => list_tokens(client, ui),
                TokenCommand::Revoke(revoke) => revoke.ids.iter().try_for_each(|id| revoke_token(id, client, ui)),
            };
        }
        Command::RotateCa(rotate) => return rotate_ca(rotate, client, ui),
        Command::Drain(agent) => (&agent.name, "drain", "is draining: its pipelines move, its runs go on"),
        Command::Undrain(agent) => (&agent.name, "undrain", "takes pipelines again"),
        Command::Revoke(agent) => (&agent.name, "revoke", "is revoked: its identity is refused from now on"),
        Command::Forget(agent) => (&agent.name, "forget", "is forgotten"),
        Command::Fence(Fence { machine_is_off: false, agent }) => {
            let message = format!("only who knows that the machine of {} is off may fence it", agent.name);
            let hint = "with --machine-is-off its pipelines go to others at once; while it may run, wait, or drain it";
            return Err(Error::usage_with_hint(message, hint));
        }
        Command::Fence(Fence { agent, .. }) => {
            body = json!({"machineIsOff": true});
            (&agent.name, "fence", "is fenced: its pipelines go to others")
        }
    };
    let answer = client.post(&format!("{}/{verb}", Kind::Agents.path_of(name)?), &body, &[])?;
    let name = Kind::Agents.bare(name);
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&answer),
        Format::Name => ui.out.line(format!("agent/{name}")),
        Format::Table | Format::Wide => {
            ui.note(&format!("agent {name} {done}"));
            Ok(())
        }
    }
}

fn rotate_ca(rotate: &RotateCa, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let verb = if rotate.finish { "finish" } else { "rotate" };
    let answer = client.post(&format!("/api/v1/controller/ca/{verb}"), &json!({}), &[])?;
    match ui.format {
        Format::Json | Format::Yaml => return ui.value(&answer),
        Format::Name => return ui.out.line("controller"),
        Format::Table | Format::Wide => {}
    }
    ui.note(&match status::parse::<Controller>(&answer)?.status.ca_rotation {
        Some(rotation) => rotation_told(&rotation),
        None => "the new authority alone is trusted".into(),
    });
    Ok(())
}

/// How far a rotation is, in a sentence.
pub(super) fn rotation_told(rotation: &CaRotation) -> String {
    let waiting = rotation.waiting.iter().map(AgentName::as_str).collect::<Vec<_>>().join(", ");
    format!(
        "both authorities are trusted until {:.0}, or until these agents have come by the new one: {waiting}",
        rotation.until
    )
}

fn create_token(create: &Create, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let mut body = Map::from_iter([
        ("ttl".to_owned(), json!(create.ttl.to_string())),
        ("uses".to_owned(), json!(create.uses.get())),
    ]);
    if !create.label.is_empty() {
        let labels = create.label.iter().map(|(key, value)| (key.clone(), json!(value)));
        body.insert("labels".into(), Value::Object(labels.collect()));
    }
    if let Some(name) = &create.name {
        body.insert("name".into(), json!(name.as_str()));
    }
    let answer = client.post(TOKENS, &Value::Object(body), &[])?;
    if matches!(ui.format, Format::Json | Format::Yaml) {
        return ui.value(&answer);
    }
    let Some(token) = answer.get("token").and_then(Value::as_str) else {
        return Err(Error::Answer { request: format!("POST {TOKENS}"), cause: "it holds no token".into() });
    };
    ui.out.line(token)?;
    ui.out.flush()?;
    let uses = if create.uses.get() == 1 { "once".into() } else { format!("{} times", create.uses) };
    ui.note(&format!("valid for {}, {uses}: xene agent --controller HOST:7421 --token TOKEN", create.ttl));
    Ok(())
}

fn list_tokens(client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let answer = client.get(TOKENS, &[("limit", "10000")])?;
    let items = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |item: &Value, field: &str| item.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&answer),
        Format::Name => items.iter().try_for_each(|item| ui.out.line(format!("join-token/{}", text(item, "id")))),
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["ID", "PHASE", "CREATED?", "EXPIRES", "USES LEFT", "NAME?", "LABELS?", "BY?"]);
            for item in &items {
                let labels = item.get("labels").and_then(Value::as_object).into_iter().flatten();
                let labels: Vec<String> =
                    labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
                let uses_left = item.get("usesLeft").and_then(Value::as_u64).unwrap_or_default();
                table.push(vec![
                    text(item, "id").into(),
                    text(item, "phase").into(),
                    text(item, "createdAt").into(),
                    text(item, "expiresAt").into(),
                    uses_left.into(),
                    text(item, "name").into(),
                    labels.join(",").into(),
                    text(item, "createdBy").into(),
                ]);
            }
            ui.table(&table)
        }
    }
}

fn revoke_token(id: &str, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let id = id.strip_prefix("join-token/").unwrap_or(id);
    client.post(&format!("{TOKENS}/{}/revoke", encode(id)), &json!({}), &[])?;
    match ui.format {
        Format::Name => ui.out.line(format!("join-token/{id}")),
        _ => {
            ui.note(&format!("join token {id} is revoked"));
            Ok(())
        }
    }
}
