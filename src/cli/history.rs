//! `xene history WORKFLOW`: the commits that changed it, and the runs of each version.

use serde_json::Value;
use xene_schemas::plan::{FieldChange, WorkflowChange};

use super::{
    Error,
    client::Client,
    escape,
    kind::Kind,
    output::{Ui, painted, phase_style},
    rows::{self, items},
    status::{parse, short},
    time::relative,
};
use crate::percent::encode;

/// Arguments of `xene history`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "A workflow is followed by its name, whatever file it is in, along the first parents of the branch. \
                        In directory mode nobody keeps old files: then only the times of changes are known."
)]
pub struct Args {
    /// The workflow; one that was removed has a history too.
    pub workflow: String,

    /// How many changes, newest first.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// Values longer than this are cut, unless `-o wide` wants all.
const LONG: usize = 60;
/// So many fields of a change are shown.
const FIELDS: usize = 8;

/// Prints the history.
///
/// # Errors
/// If the controller refuses.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let name = args.workflow.strip_prefix("workflow/").unwrap_or(&args.workflow);
    let path = format!("/api/v1/workflows/{}/history", encode(name));
    let limit = args.limit.to_string();
    let list = client.get(&path, &[("limit", &limit)])?;
    match ui.format {
        super::output::Format::Json | super::output::Format::Yaml => return ui.value(&list),
        super::output::Format::Name => {
            return items(&list)
                .iter()
                .try_for_each(|item| ui.out.line(escape::line(&rows::name(Kind::Workflows, item))));
        }
        _ => {}
    }
    let wide = ui.format == super::output::Format::Wide;
    for item in items(&list) {
        let change: WorkflowChange = parse(&item)?;
        let text = render(&change, wide, ui);
        ui.out.write(text)?;
    }
    Ok(())
}

/// `1a2b3c4  3h ago  Updated  Build nightly (Ada)`, then what changed.
fn render(change: &WorkflowChange, wide: bool, ui: &Ui) -> String {
    let style = phase_style(if change.change == "Invalid" { "Error" } else { "Success" });
    let word = painted(&format!("{:<7}", change.change), style, ui.out.colored);
    let author = change.author.as_deref().and_then(|author| author.split(" <").next());
    let author = author.map(|author| format!(" ({author})")).unwrap_or_default();
    let subject = format!("{}{author}", change.subject.as_deref().unwrap_or_default());
    let revision = if wide { change.revision.0.clone() } else { short(Some(&change.revision)) };
    let mut text = format!("{revision}  {:>8}  {word}  ", relative(change.at, ui.now()));
    text += &escape::line(&subject);
    text = text.trim_end().to_owned() + "\n";
    let mut row = |line: &str| text.extend(["    ", &escape::line(line), "\n"]);
    if let Some(path) =
        change.path.as_ref().filter(|_| matches!(change.change.as_str(), "Created" | "Moved" | "Removed"))
    {
        row(&format!("file: {path}"));
    }
    if let Some(message) = &change.message {
        row(message);
    }
    let shown = if wide { usize::MAX } else { FIELDS };
    for FieldChange { path, old, new } in change.fields.iter().take(shown) {
        let most = if wide { usize::MAX } else { LONG };
        row(&format!("{path}: {} → {}", value(old.as_ref(), most), value(new.as_ref(), most)));
    }
    if change.fields.len() > shown {
        row(&format!("… and {} more; -o wide shows all", change.fields.len() - shown));
    }
    if let Some(last) = &change.runs.last {
        let phases: Vec<String> = change.runs.phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
        row(&format!("runs: {}; last {} {}", phases.join(", "), last.name, last.phase));
    }
    text
}

fn value(value: Option<&Value>, most: usize) -> String {
    super::plan::value(value, most)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::cli::{
        fake::{Fake, Reply},
        fixtures,
        output::{Format, testing},
    };

    fn changes() -> Vec<Value> {
        let change = |n: u32, change: &str, rest: Value| {
            let mut value = json!({
                "metadata": {"name": format!("site@{n}a2b3c4d5e6f7890")}, "revision": format!("{n}a2b3c4d5e6f7890"),
                "at": "2026-11-25T09:00:00.000Z", "author": "Ada <ada@example.com>", "subject": "Say\x1b[2J it",
                "change": change, "runs": {"total": 0, "phases": {}},
            });
            value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            value
        };
        vec![
            change(
                3,
                "Invalid",
                json!({"message": "xene.d/site.yaml:3: unknown field; what it last gave stayed in effect"}),
            ),
            change(
                2,
                "Updated",
                json!({
                    "path": "xene.d/site.yaml",
                    "fields": [{"path": "spec.triggers.nightly.schedule", "old": "0 3 * * *", "new": "0 4 * * *"},
                               {"path": "spec.suspend", "new": true}],
                    "runs": {"total": 3, "phases": {"Success": 2, "Error": 1},
                             "last": {"name": "01m8991xq0000000000000000a", "phase": "Success"}},
                }),
            ),
            change(1, "Created", json!({"path": "xene.d/site.yaml"})),
        ]
    }

    #[test]
    fn each_change_says_what_changed_and_how_it_ran() {
        let fake = Fake::start(|request, _| match request.path() {
            "/api/v1/workflows/site/history" => Reply::Json(200, fixtures::list(&changes())),
            _ => Reply::Json(404, Value::Null),
        });
        let (mut ui, out, _) = testing::ui(Format::Table);
        run(&Args { workflow: "workflow/site".into(), limit: 20 }, &fake.client(), &mut ui).unwrap();
        expect![[r#"
            3a2b3c4    3h ago  Invalid  Say\x1b[2J it (Ada)
                xene.d/site.yaml:3: unknown field; what it last gave stayed in effect
            2a2b3c4    3h ago  Updated  Say\x1b[2J it (Ada)
                spec.triggers.nightly.schedule: "0 3 * * *" → "0 4 * * *"
                spec.suspend: – → true
                runs: 2 Success, 1 Error; last 01m8991xq0000000000000000a Success
            1a2b3c4    3h ago  Created  Say\x1b[2J it (Ada)
                file: xene.d/site.yaml
        "#]]
        .assert_eq(&out.text());
        assert!(fake.requests()[0].target.ends_with("?limit=20"));
        let (mut ui, out, _) = testing::ui(Format::Name);
        run(&Args { workflow: "site".into(), limit: 20 }, &fake.client(), &mut ui).unwrap();
        expect![[r"
            workflow/site@3a2b3c4d5e6f7890
            workflow/site@2a2b3c4d5e6f7890
            workflow/site@1a2b3c4d5e6f7890
        "]]
        .assert_eq(&out.text());
    }
}
