//! Problems as a log of SARIF 2.1.0.

use serde_json::{Value, json};
use xene_schemas::diagnostic::{Diagnostic, Severity};

use crate::compile::rules;

/// The log of one run, with the rules that were broken.
pub(super) fn log(problems: &[Diagnostic]) -> Value {
    let mut codes: Vec<&str> = problems.iter().map(|problem| problem.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    let results: Vec<Value> = problems.iter().map(|problem| result(problem, &codes)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "xene",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": codes.iter().map(|code| rule(code)).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn rule(code: &str) -> Value {
    let Some(rule) = rules::find(code) else { return json!({"id": code}) };
    json!({
        "id": code,
        "shortDescription": {"text": rule.title},
        "help": {"text": rule.page, "markdown": rule.page},
        "defaultConfiguration": {"level": level(rule.severity)},
    })
}

fn result(problem: &Diagnostic, codes: &[&str]) -> Value {
    let Diagnostic { path, line, column, code, severity, message, hint } = problem;
    let text = hint.as_ref().map_or_else(|| message.clone(), |hint| format!("{message}\nhint: {hint}"));
    let mut place = json!({"artifactLocation": artifact(path)});
    if *line > 0 {
        place["region"] = json!({"startLine": line});
        if *column > 0 {
            place["region"]["startColumn"] = (*column).into();
        }
    }
    json!({
        "ruleId": code,
        "ruleIndex": codes.iter().position(|known| known == code),
        "level": level(*severity),
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    })
}

/// A path as a URI: relative ones begin at the root of the sources.
fn artifact(path: &str) -> Value {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let part = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let uri: String = path.bytes().map(part).collect();
    if path.starts_with('/') {
        json!({"uri": format!("file://{uri}")})
    } else {
        json!({"uri": uri, "uriBaseId": "%SRCROOT%"})
    }
}
