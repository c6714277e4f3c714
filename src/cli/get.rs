//! `xene get KIND [NAME]`: lists, and what changes in them.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Error,
    client::Client,
    escape,
    follow::LOST,
    kind::Kind,
    output::{Format, Ui},
    rows, settings,
    table::Layout,
    watch::{Change, Watch},
};

/// Arguments of `xene get`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Kinds may be given in the singular, and as wf, pl, ev. `-o name` prints names that other \
                        commands take.")]
pub struct Args {
    /// What to list.
    #[arg(hide_possible_values = true, value_name = "workflows|pipelines|runs|agents|notifiers|events")]
    pub kind: Kind,

    /// Only this one; a pipeline is WORKFLOW/PIPELINE.
    pub name: Option<String>,

    /// Only what has this label; may be repeated.
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = settings::key_value)]
    pub labels: Vec<(String, String)>,

    /// Only of this workflow.
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<String>,

    /// Only of this pipeline; also WORKFLOW/PIPELINE.
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,

    /// Only what is in this phase.
    #[arg(long, value_name = "PHASE")]
    pub phase: Option<String>,

    /// At most this many, the newest [default: 50 runs or events, all of the others].
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// Go on with what changes, until Ctrl-C.
    #[arg(short, long)]
    pub watch: bool,
}

/// How many runs or events are listed.
const RECENT: usize = 50;

/// Lists.
///
/// # Errors
/// If the controller refuses.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    if args.kind == Kind::Events && !args.labels.is_empty() {
        return Err(Error::usage("events have no labels; --label chooses workflows, pipelines, runs or agents"));
    }
    let filter = Filter::of(args);
    if args.watch {
        return watch(&filter, client, ui);
    }
    let value = fetch(&filter, client)?;
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&value),
        Format::Name => {
            rows::items(&value).iter().try_for_each(|item| ui.out.line(escape::line(&rows::name(args.kind, item))))
        }
        Format::Table | Format::Wide => {
            let table = rows::table(args.kind, &rows::items(&value), ui.format == Format::Wide, ui.now())?;
            if table.is_empty() {
                ui.note(&format!("no {}s", args.kind.singular()));
                return Ok(());
            }
            ui.table(&table)
        }
    }
}

/// What is asked for.
struct Filter<'a> {
    args: &'a Args,
    workflow: Option<&'a str>,
    pipeline: Option<&'a str>,
    labels: String,
}

impl<'a> Filter<'a> {
    fn of(args: &'a Args) -> Self {
        let split =
            args.pipeline.as_deref().map(|name| name.split_once('/').map_or((None, name), |(w, p)| (Some(w), p)));
        let labels: Vec<_> = args.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Self {
            args,
            workflow: args.workflow.as_deref().or_else(|| split.and_then(|(workflow, _)| workflow)),
            pipeline: split.map(|(_, pipeline)| pipeline),
            labels: labels.join(","),
        }
    }

    fn query(&self) -> Vec<(&str, &str)> {
        let labels = Some(self.labels.as_str()).filter(|labels| !labels.is_empty());
        let phase = self.args.phase.as_deref();
        [("workflow", self.workflow), ("pipeline", self.pipeline), ("phase", phase), ("labels", labels)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// True if a changed object is one that is asked for.
    fn takes(&self, item: &Value) -> bool {
        let text = |path: &str| item.pointer(path).and_then(Value::as_str);
        let kind = self.args.kind;
        let name = text("/metadata/name").unwrap_or_default();
        let (workflow, pipeline) = match kind {
            Kind::Pipelines => name.split_once('/').map_or((None, None), |(w, p)| (Some(w), Some(p))),
            Kind::Workflows => (Some(name), None),
            // Whose run an event is about only the controller knows.
            Kind::Events => (self.workflow, self.pipeline),
            Kind::Runs | Kind::Agents | Kind::Notifiers => (text("/spec/workflow"), text("/spec/pipeline")),
        };
        let is = |wanted: Option<&str>, found: Option<&str>| wanted.is_none_or(|wanted| found == Some(wanted));
        is(self.args.name.as_deref().map(|name| kind.bare(name)), Some(name))
            && is(self.workflow, workflow)
            && is(self.pipeline, pipeline)
            && is(self.args.phase.as_deref(), text("/status/phase"))
    }

    /// True if an event is about what is asked for.
    fn has_event(&self, item: &Value, client: &Client) -> Result<bool, Error> {
        let mut query = self.query();
        if query.is_empty() {
            return Ok(true);
        }
        query.push(("regarding", item.get("regarding").and_then(Value::as_str).unwrap_or_default()));
        query.push(("limit", "1"));
        Ok(!rows::items(&client.get(Kind::Events.path(), &query)?).is_empty())
    }

    /// True if a changed object has the labels that are asked for.
    fn has_labels(&self, item: &Value, client: &Client) -> Result<bool, Error> {
        if self.labels.is_empty() {
            return Ok(true);
        }
        // Pipelines and runs don't show what their workflow and pipeline gave them: the controller knows.
        let text = |path: &str| item.pointer(path).and_then(Value::as_str);
        let of = match self.args.kind {
            Kind::Pipelines => text("/metadata/name").and_then(|name| name.split_once('/')),
            Kind::Runs => text("/spec/workflow").zip(text("/spec/pipeline")),
            Kind::Workflows | Kind::Agents | Kind::Notifiers | Kind::Events => {
                let labels = item.pointer("/metadata/labels");
                let has = |(key, value): &(String, String)| labels.and_then(|l| l.get(key)?.as_str()) == Some(value);
                return Ok(self.args.labels.iter().all(has));
            }
        };
        let Some((workflow, pipeline)) = of else { return Ok(false) };
        let query = [("workflow", workflow), ("pipeline", pipeline), ("labels", &*self.labels)];
        Ok(!rows::items(&client.get(Kind::Pipelines.path(), &query)?).is_empty())
    }
}

/// One object, or a list.
fn fetch(filter: &Filter<'_>, client: &Client) -> Result<Value, Error> {
    let Args { kind, name, limit, .. } = filter.args;
    if let Some(name) = name {
        return client.get(&kind.path_of(name)?, &[]);
    }
    let recent = matches!(kind, Kind::Runs | Kind::Events).then_some(RECENT);
    let mut query = filter.query();
    match limit.or(recent).map(|limit| limit.to_string()) {
        Some(limit) => {
            query.push(("limit", &limit));
            client.get(kind.path(), &query)
        }
        None => client.list(kind.path(), &query),
    }
}

fn watch(filter: &Filter<'_>, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let kind = filter.args.kind;
    let mut changes = Watch::new(client, kind.singular());
    let (mut known, mut layout) = (HashMap::<String, Value>::new(), None);
    loop {
        let items = match changes.next_change()? {
            Change::Connected => match fetch(filter, client) {
                Ok(value) => rows::items(&value),
                // It went away again; the watch waits for it.
                Err(Error::Unreachable { .. }) if layout.is_some() => continue,
                Err(error) => return Err(error),
            },
            Change::Lost => {
                ui.note(LOST);
                continue;
            }
            Change::Object { kind: changed, data } if changed == kind.singular() => vec![data],
            Change::Object { .. } => continue,
        };
        let mut fresh = Vec::new();
        for item in items {
            if let Some(Value::String(name)) = item.get("deleted") {
                if known.remove(&format!("{}/{name}", kind.singular())).is_some() {
                    ui.note(&format!("{} {name} is gone", kind.singular()));
                }
                continue;
            }
            let name = rows::name(kind, &item);
            if known.get(&name) == Some(&item) {
                continue;
            }
            // What the object itself does not say, the controller is asked.
            let is_asked_for = || {
                let asked = match kind {
                    Kind::Events => filter.has_event(&item, client),
                    _ => filter.has_labels(&item, client),
                };
                match asked {
                    // It went away: once it is back, all is read again.
                    Err(Error::Unreachable { .. }) => Ok(false),
                    asked => asked,
                }
            };
            if layout.is_none() || filter.takes(&item) && (known.contains_key(&name) || is_asked_for()?) {
                known.insert(name, item.clone());
                fresh.push(item);
            }
        }
        print(kind, &fresh, &mut layout, ui)?;
        ui.out.flush()?;
    }
}

/// Prints what is new, below what was printed before.
fn print(kind: Kind, items: &[Value], layout: &mut Option<Layout>, ui: &mut Ui) -> Result<(), Error> {
    let table = rows::table(kind, items, ui.format == Format::Wide, ui.now())?;
    let first = layout.is_none();
    let layout = layout.get_or_insert_with(|| table.layout(true));
    match ui.format {
        Format::Json | Format::Yaml => items.iter().try_for_each(|item| ui.one_of_many(item)),
        Format::Name => items.iter().try_for_each(|item| ui.out.line(escape::line(&rows::name(kind, item)))),
        Format::Table | Format::Wide => {
            let lines = table.lines(layout, first, "", ui.out.colored);
            ui.out.write(lines)
        }
    }
}

#[cfg(test)]
mod tests;
