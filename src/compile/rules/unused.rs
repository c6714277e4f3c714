//! What is declared and never used, and what is used and comes from nowhere. Only where nothing that one can't see, such
//! as another program, may make the difference.

use std::collections::HashSet;

use xene_schemas::{
    env::EnvValue,
    map::UniqueMap,
    meta::Name,
    param::Param,
    pipeline::PipelineSpec,
    step::{Run, Shell, Step},
    task::Task,
    workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, each_task, env::RESERVED, script, suggest};
use crate::compile::params::{env_name, overlay};

pub(super) const PARAM: Rule = rule!(Warning "XE0116", "unused param", "use it, or take it out");
pub(super) const OUTPUT: Rule =
    rule!(Warning "XE0117", "output that nobody publishes", "publish it, or take it out of `outputs`");
pub(super) const VARIABLE: Rule =
    rule!(Warning "XE0131", "unknown variable of xene", "docs/reference/language.md has the variables that xene sets");

/// Variables of the command line, which a step may set for a `xene` that it calls.
const OF_CLIENTS: &[&str] = &["XENE_SERVER", "XENE_TOKEN", "XENE_CA", "XENE_DATA_DIR", "XENE_CONFIG"];

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    check_params(report, spec);
    each_pipeline(spec, |at, _, pipeline| {
        check_outputs(report, at, pipeline);
        let params = overlay(&spec.params, &pipeline.params);
        let set: HashSet<&String> = variables(spec, pipeline).collect();
        each_task(at, pipeline, |at, _, task| {
            let steps = at.key("steps");
            for (index, step) in task.steps.iter().enumerate() {
                let at = steps.index(index);
                check_variables(report, &at.key("run"), step, (task, &params, &set));
            }
        });
    });
}

/// Every variable that is set somewhere around the steps of a pipeline.
fn variables<'s>(spec: &'s WorkflowSpec, pipeline: &'s PipelineSpec) -> impl Iterator<Item = &'s String> {
    let tasks = pipeline.tasks.values().chain(pipeline.finally.values());
    let of_tasks = tasks.flat_map(|task| task.env.keys().chain(task.steps.iter().flat_map(|step| step.env.keys())));
    let of_connectors = pipeline.connectors.iter().flat_map(|connector| connector.outputs.keys());
    spec.env.keys().chain(pipeline.env.keys()).chain(of_tasks).chain(of_connectors)
}

fn check_params(report: &mut Report, spec: &WorkflowSpec) {
    let root = Path::ROOT.key("spec");
    let of_pipelines = spec.pipelines.values().any(|pipeline| !pipeline.params.is_empty());
    if spec.params.is_empty() && !of_pipelines {
        return;
    }
    let all: Vec<Use> = spec.pipelines.values().map(|pipeline| Use::of(spec, pipeline)).collect();
    let unused = |report: &mut Report, at: &Path<'_>, name: &str| {
        let variable = env_name(name);
        let message = format!("no step uses param `{name}`");
        let hint =
            format!("steps see it as ${variable}; if a program reads that, say so: env: {{NAME: {{param: {name}}}}}");
        report.add(&PARAM, &at.key(name), message).at_key().hint(hint);
    };
    for name in spec.params.keys().filter(|name| !all.iter().any(|usage| usage.knows(name))) {
        unused(report, &root.key("params"), name);
    }
    let mut usages = all.iter();
    each_pipeline(spec, |at, _, pipeline| {
        let Some(usage) = usages.next() else { return };
        for name in pipeline.params.keys().filter(|name| !usage.knows(name)) {
            unused(report, &at.key("params"), name);
        }
    });
}

/// What the steps of a pipeline may read.
struct Use {
    /// All that is written in it, and in the workflow's variables.
    text: String,
    /// True if it runs programs of which one can't tell.
    runs_unknown: bool,
}

impl Use {
    fn of(spec: &WorkflowSpec, pipeline: &PipelineSpec) -> Self {
        let mut tasks = pipeline.tasks.values().chain(pipeline.finally.values());
        let runs_unknown = tasks.any(|task| task.steps.iter().any(is_opaque));
        // Names of params need no escapes in JSON.
        let text = serde_json::to_string(&(&spec.env, pipeline)).unwrap_or_default();
        Self { text, runs_unknown }
    }

    fn knows(&self, param: &str) -> bool {
        let is_named = |text: String| self.text.contains(&text);
        self.runs_unknown
            || is_named(env_name(param))
            || is_named(format!("{{\"param\":\"{param}\"}}"))
            || is_named(format!("params.{param}"))
            || is_named("params[".to_owned())
    }
}

/// True if it can't be told what a step reads and publishes.
fn is_opaque(step: &Step) -> bool {
    match (&step.run, &step.shell) {
        (Run::Argv(_), _) | (Run::Script(_), Some(Shell::Argv(_))) => true,
        (Run::Script(text), None | Some(Shell::Named(_))) => script::runs_unknown(text),
    }
}

fn check_outputs(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec) {
    each_task(at, pipeline, |at, name, task| {
        let at_outputs = at.key("outputs");
        for (index, output) in task.outputs.iter().flatten().enumerate() {
            publishes(report, &at_outputs.index(index), task, (name, output));
        }
        let at_env = at.key("env");
        check_reads(report, &at_env, pipeline, &task.env);
        let steps = at.key("steps");
        for (index, step) in task.steps.iter().enumerate() {
            let at = steps.index(index);
            check_reads(report, &at.key("env"), pipeline, &step.env);
        }
    });
    let connectors = at.key("connectors");
    for (index, connector) in pipeline.connectors.iter().enumerate() {
        let at = connectors.index(index);
        let at = at.key("outputs");
        for (variable, output) in &connector.outputs {
            for from in &connector.from.0 {
                if let Some(task) = pipeline.tasks.get(from).filter(|task| task.outputs.is_none()) {
                    publishes(report, &at.key(variable), task, (from, output));
                }
            }
        }
    }
}

/// References to outputs of tasks that do not declare theirs.
fn check_reads(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec, env: &UniqueMap<String, EnvValue>) {
    for (variable, value) in env {
        if let EnvValue::Output { task, name, .. } = value
            && let Some((from, publisher)) = pipeline.tasks.get_key_value(task.as_str())
            && publisher.outputs.is_none()
        {
            let at = at.key(variable);
            publishes(report, &at.key("output"), publisher, (from, name));
        }
    }
}

fn publishes(report: &mut Report, at: &Path<'_>, task: &Task, (name, output): (&Name, &str)) {
    let writes = |step: &Step| match &step.run {
        Run::Script(text) => text.contains("XENE_OUTPUT") && text.contains(output),
        Run::Argv(_) => true,
    };
    if !task.steps.iter().any(|step| is_opaque(step) || writes(step)) {
        let message = format!("no step of task `{name}` publishes `{output}`");
        let hint = format!("a step publishes by: echo \"{output}=…\" >> \"$XENE_OUTPUT\"");
        report.add(&OUTPUT, at, message).hint(hint);
    }
}

/// `$XENE_…` in a script that nobody sets.
fn check_variables(
    report: &mut Report,
    at: &Path<'_>,
    step: &Step,
    (task, params, set): (&Task, &UniqueMap<String, Param>, &HashSet<&String>),
) {
    let Run::Script(text) = &step.run else { return };
    let mut told = HashSet::new();
    for (start, _) in text.match_indices("XENE_") {
        let rest = &text[start..];
        let length = rest.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_').count();
        let name = &rest[..length];
        let is_part = text[..start].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let is_set = rest[length..].starts_with('=') || set.contains(&name.to_owned());
        let is_expanded = text[..start].ends_with('$') || text[..start].ends_with("${");
        let is_matrix = name.starts_with("XENE_MATRIX_") && task.matrix.is_some();
        let is_known = RESERVED.contains(&name) || OF_CLIENTS.contains(&name) || is_matrix || is_set;
        // `XENE_PARAM_$NAME` and the like are put together by the script.
        if is_part || is_known || name.ends_with('_') || !told.insert(name) {
            continue;
        }
        let of_params: Vec<String> = params.keys().map(|name| env_name(name)).collect();
        if of_params.iter().any(|known| known == name) {
            continue;
        }
        let all = || RESERVED.iter().copied().chain(of_params.iter().map(String::as_str));
        // Something that looks for variables by how they begin, such as `env | grep XENE_PARAM`.
        if !is_expanded && all().chain(["XENE_PARAM_", "XENE_MATRIX_"]).any(|known| known.starts_with(name)) {
            continue;
        }
        let hint = suggest(name, all()).filter(|hint| hint.starts_with("did"));
        report.add(&VARIABLE, at, format!("nobody sets {name}")).hint(hint).within(text, name);
    }
}
