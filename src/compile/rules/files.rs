//! Files that travel, and artifacts: patterns that stay below their folder, files that can be delivered, and artifacts that
//! are there when they are wanted.

use xene_agent::glob::Globs;
use xene_schemas::{meta::Name, pipeline::PipelineSpec, workflow::WorkflowSpec};

use super::{
    super::{MAX_TRAVELLING_BYTES, MAX_TRAVELLING_FILES},
    Path, Report, Rule, each_pipeline, each_task,
    graph::Tasks,
    suggest,
};
use crate::source::snapshot::{Travelling, What};

pub(super) const BAD_GLOB: Rule =
    rule!(Error "XE0100", "bad pattern of files", "write it as in .gitignore, relative to the folder of the file");
pub(super) const TOO_MUCH: Rule = rule!(Error "XE0101", "too much travels", "take less, or fetch it in a step");
pub(super) const NOT_TAKEN: Rule = rule!(
    Error "XE0102", "file can't travel",
    "commit the file itself, or leave it out with a pattern that begins with `!`"
);
pub(super) const NOTHING_MATCHES: Rule =
    rule!(Warning "XE0103", "pattern takes no file", "mend the pattern, or take it out");
pub(super) const NOT_BEFORE: Rule =
    rule!(Error "XE0104", "artifacts that are not there", "name a task that has ended before, and saves artifacts");

pub(super) fn check(spec: &WorkflowSpec, found: Option<&[Travelling]>, report: &mut Report) {
    let root = Path::ROOT.key("spec");
    let at = root.key("files");
    if let Some(globs) = check_globs(report, &at, &spec.files)
        && let Some(found) = found
    {
        check_found(report, &at, spec, &globs, found);
    }
    each_pipeline(spec, |at, _, pipeline| check_artifacts(report, at, pipeline));
}

/// `artifacts` of the tasks of a pipeline.
fn check_artifacts(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec) {
    let mut order = None;
    each_task(at, pipeline, |at, name, task| {
        let Some(artifacts) = &task.artifacts else { return };
        let at = at.key("artifacts");
        check_globs(report, &at.key("save"), &artifacts.save);
        let at = at.key("from");
        for (index, from) in artifacts.from.iter().enumerate() {
            let at = at.index(index);
            if from == name {
                report.add(&NOT_BEFORE, &at, format!("task `{name}` can't have its own artifacts laid before it"));
                continue;
            }
            let in_finally = pipeline.finally.contains_key(name);
            let Some(saver) = pipeline.tasks.get(from) else {
                let hint = suggest(from.as_str(), pipeline.tasks.keys().map(Name::as_str));
                report.add(&NOT_BEFORE, &at, format!("this pipeline has no task `{from}`")).hint(hint);
                continue;
            };
            let order = order.get_or_insert_with(|| Tasks::of(pipeline));
            if saver.artifacts.as_ref().is_none_or(|artifacts| artifacts.save.is_empty()) {
                let hint = format!("add artifacts: {{save: […]}} to task `{from}`");
                report.add(&NOT_BEFORE, &at, format!("task `{from}` saves no artifacts")).hint(hint);
            } else if !in_finally && order.precedes(from.as_str(), name.as_str()).is_none() {
                let hint = format!("add `{from}` to the dependencies of `{name}`");
                report
                    .add(&NOT_BEFORE, &at, format!("task `{from}` need not have ended when `{name}` starts"))
                    .hint(hint);
            }
        }
    });
}

/// The patterns of a list, if all can be used.
fn check_globs(report: &mut Report, at: &Path<'_>, patterns: &[String]) -> Option<Globs> {
    let mut good = true;
    for (index, pattern) in patterns.iter().enumerate() {
        if let Err(bad) = Globs::new(std::slice::from_ref(pattern)) {
            good = false;
            let hint = "patterns are relative, as in \"scripts/**\" or \"*.sql\"".to_owned();
            report.add(&BAD_GLOB, &at.index(index), bad.to_string()).hint(hint);
        }
    }
    good.then(|| Globs::new(patterns).ok()).flatten()
}

fn check_found(report: &mut Report, at: &Path<'_>, spec: &WorkflowSpec, globs: &Globs, found: &[Travelling]) {
    let taken = found.iter().filter_map(|file| Some((globs.find(&file.path)?, file)));
    let (mut count, mut bytes, mut whole) = (0, 0, true);
    for (pattern, file) in taken {
        count += 1;
        match &file.what {
            What::File { size, .. } => bytes += size,
            What::TooMany { size } => (bytes, whole) = (bytes + size, false),
            What::Refused(why) => {
                let hint = format!("leave it out with \"!{}\", or mend it", file.path);
                report.add(&NOT_TAKEN, &at.index(pattern), format!("`{}` {why}", file.path)).hint(hint);
            }
        }
    }
    let hint = "name only the files that steps need; fetch large ones in a step, into $XENE_CACHE".to_owned();
    if count > MAX_TRAVELLING_FILES {
        let message = format!("more than {MAX_TRAVELLING_FILES} files would travel with this workflow");
        report.add(&TOO_MUCH, at, message).at_key().hint(hint);
    } else if bytes > MAX_TRAVELLING_BYTES || !whole {
        let mib = bytes.div_ceil(1 << 20);
        let message = format!("{count} files with {mib} MiB would travel with this workflow; at most 32 MiB may");
        report.add(&TOO_MUCH, at, message).at_key().hint(hint);
    }
    for pattern in globs.unused(found.iter().map(|file| file.path.as_str())) {
        let message = format!("the pattern `{}` takes no file", spec.files[pattern]);
        let hint = "patterns are relative to the folder of the workflow file".to_owned();
        report.add(&NOTHING_MATCHES, &at.index(pattern), message).hint(hint);
    }
}
