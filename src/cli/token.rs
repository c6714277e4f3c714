//! `xene token`: API tokens for people and programs.

use clap::Subcommand;
use serde_json::{Map, Value, json};
use xene_schemas::{access::Role, duration::Duration, meta::Name};

use super::{
    Error,
    client::Client,
    output::{Format, Ui},
    table::Table,
};
use crate::percent::encode;

const PATH: &str = "/api/v1/tokens";

/// Arguments of `xene token`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make a token, and print it: it is shown this once.
    Create(Create),
    /// List tokens, without their secrets.
    List,
    /// Refuse a token from now on.
    Revoke(Revoke),
}

/// Arguments of `xene token create`.
#[derive(Debug, Clone, clap::Args)]
pub struct Create {
    /// What whatever is done with it is kept under [default: one that is made up].
    #[arg(value_name = "NAME")]
    pub name: Option<Name>,

    /// What it is good for: viewer reads; operator also starts, cancels, approves, suspends; admin does everything.
    #[arg(long, value_name = "ROLE")]
    pub role: Role,

    /// How long it is good [default: until it is revoked].
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<Duration>,

    /// A workflow that it sees, and with this no others; may be repeated.
    #[arg(long, value_name = "WORKFLOW", value_delimiter = ',')]
    pub scope: Vec<Name>,
}

/// Arguments of `xene token revoke`.
#[derive(Debug, Clone, clap::Args)]
pub struct Revoke {
    /// The tokens' names.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Does it.
///
/// # Errors
/// If the controller refuses.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    match &args.command {
        Command::Create(create) => make(create, client, ui),
        Command::List => list(client, ui),
        Command::Revoke(revoke) => revoke.names.iter().try_for_each(|name| {
            let name = name.strip_prefix("token/").unwrap_or(name);
            client.post(&format!("{PATH}/{}/revoke", encode(name)), &json!({}), &[])?;
            match ui.format {
                Format::Name => ui.out.line(format!("token/{name}")),
                _ => {
                    ui.note(&format!("token {name} is revoked"));
                    Ok(())
                }
            }
        }),
    }
}

fn make(create: &Create, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let mut body = Map::from_iter([("role".to_owned(), json!(create.role))]);
    body.extend(create.name.as_ref().map(|name| ("name".to_owned(), json!(name))));
    body.extend(create.ttl.map(|ttl| ("ttl".to_owned(), json!(ttl.to_string()))));
    if !create.scope.is_empty() {
        body.insert("scope".into(), json!(create.scope));
    }
    let answer = client.post(PATH, &Value::Object(body), &[])?;
    if matches!(ui.format, Format::Json | Format::Yaml) {
        return ui.value(&answer);
    }
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let token = text("/token");
    if token.is_empty() {
        return Err(Error::Answer { request: format!("POST {PATH}"), cause: "it holds no token".into() });
    }
    ui.out.line(token)?;
    ui.out.flush()?;
    let scope = if create.scope.is_empty() { String::new() } else { " within its scope".into() };
    let lasts = create.ttl.map_or_else(|| "until it is revoked".into(), |ttl| format!("for {ttl}"));
    ui.note(&format!("{} is {}{scope} {lasts}; the token is not shown again", text("/metadata/name"), create.role));
    Ok(())
}

fn list(client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let answer = client.get(PATH, &[("limit", "10000")])?;
    let items = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |item: &Value, pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&answer),
        Format::Name => {
            items.iter().try_for_each(|item| ui.out.line(format!("token/{}", text(item, "/metadata/name"))))
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["NAME", "ROLE", "SCOPE?", "PHASE", "EXPIRES?", "BY", "ID"]);
            for item in &items {
                let scope = item.pointer("/spec/scope").and_then(Value::as_array);
                let scope: Vec<&str> = scope.into_iter().flatten().filter_map(Value::as_str).collect();
                table.push(vec![
                    text(item, "/metadata/name").into(),
                    text(item, "/spec/role").into(),
                    scope.join(",").into(),
                    text(item, "/status/phase").into(),
                    text(item, "/spec/expiresAt").into(),
                    text(item, "/status/createdBy").into(),
                    text(item, "/status/id").into(),
                ]);
            }
            ui.table(&table)
        }
    }
}
