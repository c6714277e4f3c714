//! Problems as annotations of GitHub Actions.

use xene_schemas::diagnostic::{Diagnostic, Severity};

use crate::compile::rules;

/// One workflow command: `::error file=…,line=…,col=…,title=…::message`.
pub(super) fn annotation(problem: &Diagnostic) -> String {
    let Diagnostic { path, line, column, code, severity, message, hint } = problem;
    let word = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let place = match (line, column) {
        (0, _) => property(path),
        (line, 0) => format!("{},line={line}", property(path)),
        (line, column) => format!("{},line={line},col={column}", property(path)),
    };
    let title = rules::find(code).map_or_else(|| code.clone(), |rule| format!("{code}: {}", rule.title));
    let text = hint.as_ref().map_or_else(|| message.clone(), |hint| format!("{message}\nhint: {hint}"));
    format!("::{word} file={place},title={}::{}", property(&title), data(&text))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
