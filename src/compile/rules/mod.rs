//! The rules that a workflow must keep, one small file for each group; [`ALL`] is the table.
//!
//! A rule has a code for ever. A new one gets a number that was never used, a line in [`ALL`], and a page of that name
//! in `docs/reference/diagnostics/`, which says what it means and shows it broken and kept: without the page it does
//! not compile, and the test `every_page_does_what_it_says` runs the examples.

use std::collections::HashSet;

use xene_schemas::{
    diagnostic::Severity,
    meta::Name,
    pipeline::PipelineSpec,
    task::Task,
    workflow::{Workflow, WorkflowSpec},
};

use super::{
    Limits,
    path::{Path, Segment},
};
use crate::source::snapshot::Travelling;

/// A rule; its page is part of the program.
macro_rules! rule {
    ($severity:ident $code:literal, $title:literal, $hint:literal) => {
        $crate::compile::rules::Rule {
            code: $code,
            title: $title,
            hint: $hint,
            severity: xene_schemas::diagnostic::Severity::$severity,
            page: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/diagnostics/", $code, ".md")),
        }
    };
}

mod approval;
pub(super) mod cases;
mod effect;
mod env;
mod expr;
pub(super) mod file;
mod files;
mod graph;
pub(super) mod group;
mod labels;
mod matrix;
pub(super) mod notifier;
pub(super) mod numbers;
mod params;
mod range;
mod schedule;
mod script;
mod shape;
mod shell;
pub(crate) mod source;
mod triggers;
mod twice;
mod unsupported;
mod unused;
mod webhook;

/// One rule: what a diagnostic's code stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Such as `XE0021`; never reused.
    pub code: &'static str,
    /// What is wrong where the rule is broken, in a few words.
    pub title: &'static str,
    /// How to mend it, where the problem itself says nothing more fitting.
    pub hint: &'static str,
    /// How bad that is.
    pub severity: Severity,
    /// What it means, why, and how to mend it, with examples: Markdown.
    pub page: &'static str,
}

/// The rule of that code, however its letters are written.
pub fn find(code: &str) -> Option<&'static Rule> {
    ALL.iter().copied().find(|rule| rule.code.eq_ignore_ascii_case(code))
}

/// Every rule, by code.
pub const ALL: &[&Rule] = &[
    // Files and YAML.
    &file::UNREADABLE,
    &file::TOO_LARGE,
    &file::NOT_UTF8,
    &file::SYNTAX,
    &file::TAB,
    &file::CONFLICT,
    &file::TOO_DEEP,
    &file::ALIASES,
    &file::TAG,
    // Fields and values.
    &file::DUPLICATE_KEY,
    &file::UNKNOWN_FIELD,
    &file::MISSING_FIELD,
    &file::WRONG_VALUE,
    &file::BAD_NAME,
    // Objects.
    &file::UNKNOWN_KIND,
    &file::LATER_KIND,
    &file::DUPLICATE_NAME,
    &unsupported::UNSUPPORTED,
    // The shape of a workflow.
    &shape::EMPTY,
    &shape::TWICE,
    &shape::SHELL,
    // Triggers.
    &triggers::UNKNOWN_TRIGGER,
    &triggers::UNUSED_TRIGGER,
    &triggers::BAD_SCHEDULE,
    // Order.
    &graph::UNKNOWN_TASK,
    &graph::TASK_CYCLE,
    &graph::FINALLY_JOINED,
    &graph::UNKNOWN_PIPELINE,
    &graph::PIPELINE_CYCLE,
    &graph::CANCELLED_HANDLER,
    // Params and variables.
    &params::BAD_PARAM,
    &params::PARAM_COLLISION,
    &params::TRIGGER_PARAM,
    &env::BAD_VARIABLE,
    &env::UNKNOWN_PARAM,
    &env::UNKNOWN_OUTPUT,
    &env::OUTPUT_TOO_EARLY,
    &env::OUTPUT_NEEDS_DEFAULT,
    // Numbers and durations.
    &range::OUT_OF_RANGE,
    // Expressions, matrices, approvals.
    &expr::EXPR_SYNTAX,
    &expr::EXPR_TOO_LARGE,
    &expr::EXPR_UNKNOWN,
    &expr::EXPR_TOO_EARLY,
    &matrix::MATRIX_SHAPE,
    &matrix::MATRIX_AXIS,
    &matrix::MATRIX_SIZE,
    &matrix::MATRIX_COLLISION,
    &approval::BAD_APPROVAL,
    &params::BAD_PATTERN,
    // What pipelines share, and what webhooks read.
    &group::GROUP_MAX,
    &group::GROUP_LABELS,
    &webhook::BAD_WEBHOOK,
    &webhook::BAD_HOOK_SECRET,
    // Files that travel, and artifacts.
    &files::BAD_GLOB,
    &files::TOO_MUCH,
    &files::NOT_TAKEN,
    &files::NOTHING_MATCHES,
    &files::NOT_BEFORE,
    // What can be meant, but hardly is.
    &schedule::UNEVEN,
    &schedule::NTH_WEEKDAY,
    &schedule::DEADLINE,
    &twice::ALIKE,
    &twice::NAMED_TWICE,
    &twice::JOINED_TWICE,
    &unused::PARAM,
    &unused::OUTPUT,
    &labels::NO_AGENT,
    &shell::TEMPLATE,
    &shell::NOT_EXPANDED,
    &shell::CARRIAGE_RETURN,
    &shell::HIDDEN_FAILURE,
    &shell::GOES_ON,
    &shell::LEFT_BEHIND,
    &shell::NOTHING_LASTS,
    &effect::EXIT_CODE,
    &effect::TIMEOUT,
    &effect::NO_EFFECT,
    &twice::NEVER_STARTS,
    &env::KEPT_NAME,
    &unused::VARIABLE,
    &file::NEARLY_OURS,
    &file::NEEDS_CONTAINER,
    &matrix::EXCLUDES_NOTHING,
    &numbers::READS_OTHERWISE,
    &shell::NOT_OF_SH,
    &shell::NO_ASSIGNMENT,
    &shell::OF_ACTIONS,
    // Workflow tests.
    &cases::UNKNOWN_WORKFLOW,
    &cases::CASE,
    &cases::CASE_TWICE,
    &cases::UNKNOWN_IN_TEST,
    &cases::TEST_PARAM,
    &cases::TEST_TIME,
    &cases::EXPECTS_NOTHING,
    // Notifiers.
    &notifier::DESTINATION,
    &notifier::NOTHING_TOLD,
    &notifier::NOT_OF_COMMITS,
    &notifier::BAD_SELECT,
    &notifier::BAD_RECIPIENT,
    &notifier::TOLD_TWICE,
    // Sources.
    &source::TOO_LARGE,
    &source::LINK,
    &source::LFS,
    &source::SUBMODULE,
    &source::PATH,
    &source::UNREADABLE,
    &source::UNSETTLED,
    &source::IGNORE_LINE,
];

/// A broken rule, before it is known where in the text it stands.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) rule: &'static Rule,
    pub(super) at: Vec<Segment>,
    /// True if the key at the end of the path is meant, not its value.
    pub(super) at_key: bool,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// Where in the text that stands there.
    pub(super) within: Option<Within>,
}

/// A place within a text of several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Within {
    /// From 0.
    pub(super) line: usize,
    /// What stands in that line.
    pub(super) text: String,
    /// Where in it, in bytes.
    pub(super) start: usize,
}

impl Problem {
    /// Points at `part` of the text that stands there.
    fn within(&mut self, text: &str, part: &str) -> &mut Self {
        let offset = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
        self.within = offset.filter(|offset| text.is_char_boundary(*offset)).map(|offset| {
            let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
            let length = text[start..].find('\n').unwrap_or(text.len() - start);
            Within {
                line: text[..start].matches('\n').count(),
                text: text[start..start + length].to_owned(),
                start: offset - start,
            }
        });
        self
    }

    /// Points at the key rather than the value.
    fn at_key(&mut self) -> &mut Self {
        self.at_key = true;
        self
    }

    /// The pipeline that it is about; `None` if it is about what pipelines share.
    fn pipeline(&self) -> Option<Segment> {
        let key = |segment: &Segment, name: &str| *segment == Segment::Key(name.into());
        match &self.at[..] {
            [spec, pipelines, pipeline, ..] if key(spec, "spec") && key(pipelines, "pipelines") => {
                Some(pipeline.clone())
            }
            _ => None,
        }
    }

    /// Says how to mend it.
    fn hint(&mut self, hint: impl Into<Option<String>>) -> &mut Self {
        self.hint = hint.into();
        self
    }
}

/// What the rules found.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Problem>);

impl Report {
    fn add(&mut self, rule: &'static Rule, at: &Path<'_>, message: impl Into<String>) -> &mut Problem {
        let problem =
            Problem { rule, at: at.segments(), at_key: false, message: message.into(), hint: None, within: None };
        let index = self.0.len();
        self.0.push(problem);
        &mut self.0[index]
    }
}

/// Checks a workflow that could be read.
///
/// `found` is what the patterns of its file took, if anybody looked.
pub(super) fn check(workflow: &Workflow, found: Option<&[Travelling]>, limits: Limits) -> Vec<Problem> {
    let spec = &workflow.spec;
    let mut report = Report::default();
    shape::check(spec, &mut report);
    triggers::check(spec, &mut report);
    graph::check(spec, &mut report);
    params::check(spec, &mut report);
    env::check(spec, &mut report);
    range::check(spec, limits, &mut report);
    files::check(spec, found, &mut report);
    group::check(spec, &mut report);
    webhook::check(spec, &mut report);
    expr::check(spec, &mut report);
    matrix::check(spec, &mut report);
    approval::check(spec, &mut report);
    unsupported::check(spec, &mut report);
    let mut remarks = Report::default();
    graph::check_handlers(spec, &mut remarks);
    twice::check(spec, &mut remarks);
    unused::check(spec, &mut remarks);
    labels::check(spec, &mut remarks);
    shell::check(spec, &mut remarks);
    effect::check(spec, &mut remarks);
    matrix::check_effect(spec, &mut remarks);
    let errors = report.0.iter().filter(|problem| problem.rule.severity == Severity::Error);
    let broken: HashSet<Option<Segment>> = errors.map(Problem::pipeline).collect();
    // What has an error does nothing yet, and what it would do besides is told once it is sound. A pipeline without one
    // is sound by itself; what all of them share is not while any of them has one.
    let is_sound = |remark: &Problem| match remark.pipeline() {
        Some(pipeline) => !broken.contains(&Some(pipeline)),
        None => broken.is_empty(),
    };
    report.0.extend(remarks.0.into_iter().filter(is_sound));
    report.0
}

/// What the rules say of a workflow of which entries are missing that could not be read: no more than holds whatever they
/// were meant to say. `unknown` are the texts in them.
pub(super) fn check_rest(rest: &Workflow, unknown: &HashSet<String>, limits: Limits) -> Vec<Problem> {
    let mut problems = check(rest, None, limits);
    problems.retain_mut(|problem| {
        // Of what there is, too, not all could be read.
        problem.hint.take_if(|hint| hint.starts_with("there is: "));
        let mut named = problem.message.split('`').skip(1).step_by(2);
        HOLDS_IN_PART.contains(&problem.rule) && !named.any(|name| unknown.contains(name))
    });
    problems
}

/// Rules that nothing more in a workflow could mend, unless it is the very name that they miss.
const HOLDS_IN_PART: &[&Rule] = &[
    &unsupported::UNSUPPORTED,
    &file::BAD_NAME,
    &shape::SHELL,
    &triggers::UNKNOWN_TRIGGER,
    &triggers::BAD_SCHEDULE,
    &graph::UNKNOWN_TASK,
    &graph::TASK_CYCLE,
    &graph::UNKNOWN_PIPELINE,
    &graph::PIPELINE_CYCLE,
    &params::PARAM_COLLISION,
    &params::BAD_PATTERN,
    &env::BAD_VARIABLE,
    &env::UNKNOWN_PARAM,
    &range::OUT_OF_RANGE,
    &expr::EXPR_SYNTAX,
    &expr::EXPR_TOO_LARGE,
    &files::BAD_GLOB,
];

/// A pipeline and where it stands.
fn each_pipeline<'p>(spec: &'p WorkflowSpec, mut visit: impl FnMut(&Path<'_>, &'p Name, &'p PipelineSpec)) {
    let root = Path::ROOT.key("spec");
    let pipelines = root.key("pipelines");
    for (name, pipeline) in &spec.pipelines {
        visit(&pipelines.key(name.as_str()), name, pipeline);
    }
}

/// A task and where it stands; those of `finally` come last.
fn each_task<'p>(at: &Path<'_>, pipeline: &'p PipelineSpec, mut visit: impl FnMut(&Path<'_>, &'p Name, &'p Task)) {
    for (group, tasks) in [("tasks", &pipeline.tasks), ("finally", &pipeline.finally)] {
        let group = at.key(group);
        for (name, task) in tasks {
            visit(&group.key(name.as_str()), name, task);
        }
    }
}

/// A hint that names what may have been meant, or all that there is.
pub(crate) fn suggest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let length = wanted.chars().count();
    let closest = known.iter().map(|name| (distance(wanted, name), *name)).min();
    match closest {
        None => None,
        Some((edits, name)) if edits <= length.max(3) / 3 && edits < length.max(1) => {
            Some(format!("did you mean `{name}`?"))
        }
        Some(_) if known.len() <= 24 => Some(format!("there is: {}", known.join(", "))),
        Some(_) => None,
    }
}

/// How many letters must be changed, added, removed or swapped with their neighbour; case does not count.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = a[i - 1].eq_ignore_ascii_case(&b[j - 1]);
                let mut best =
                    (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + usize::from(!same));
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}
