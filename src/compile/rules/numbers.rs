//! Numbers that a step sees otherwise than they are written: `1.20`, `0x10`, `1e3`.

use xene_schemas::{
    env::{EnvValue, Scalar},
    map::UniqueMap,
    workflow::{Workflow, WorkflowSpec},
};

use super::{Path, Problem, Report, Rule, each_pipeline, each_task};

pub(super) const READS_OTHERWISE: Rule = rule!(Warning "XE0135", "number that reads otherwise", "quote it");

/// True if the text may hold such a number. Errs on the side of true.
pub(in crate::compile) fn may_read_otherwise(text: &str) -> bool {
    let bytes = text.as_bytes();
    let begins = |at: usize| at == 0 || matches!(bytes[at - 1], b' ' | b',' | b'[' | b'\t');
    let is_odd = |at: usize| {
        let length = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || b".+-_".contains(b)).count();
        let word = &bytes[at..at + length];
        let is_fraction = word.contains(&b'.') && word.ends_with(b"0");
        if !word.iter().any(u8::is_ascii_digit) {
            return false;
        }
        is_fraction
            || word.ends_with(b".")
            || word.iter().any(|b| matches!(b, b'x' | b'o' | b'b' | b'e' | b'E'))
            || word.starts_with(b"+")
            || length > 15
    };
    (0..bytes.len()).any(|at| matches!(bytes[at], b'0'..=b'9' | b'.' | b'-' | b'+') && begins(at) && is_odd(at))
}

/// Checks the numbers of variables and matrices; `raw` gives the text of a scalar that is written without quotes.
pub(in crate::compile) fn check<'t>(
    workflow: &Workflow,
    raw: impl Fn(&[super::Segment]) -> Option<&'t str>,
) -> Vec<Problem> {
    let mut report = Report::default();
    numbers(&workflow.spec, &mut |at, shown| {
        if let Some(written) = raw(&at.segments()).filter(|written| *written != shown) {
            let message = format!("a step sees `{shown}` here, and not `{written}`: it is read as a number");
            report.add(&READS_OTHERWISE, at, message).hint(format!("quote it: \"{written}\""));
        }
    });
    report.0
}

/// Each number, and what a step sees of it.
fn numbers(spec: &WorkflowSpec, visit: &mut dyn FnMut(&Path<'_>, String)) {
    let root = Path::ROOT.key("spec");
    env(&root, &spec.env, visit);
    each_pipeline(spec, |at, _, pipeline| {
        env(at, &pipeline.env, visit);
        each_task(at, pipeline, |at, _, task| {
            env(at, &task.env, visit);
            let matrix = at.key("matrix");
            for (axis, values) in task.matrix.iter().flat_map(|matrix| &matrix.0) {
                let at = matrix.key(axis);
                for (index, value) in values.as_array().into_iter().flatten().enumerate() {
                    let at = at.index(index);
                    if value.is_number() {
                        visit(&at, value.to_string());
                    }
                    for (key, value) in value.as_object().into_iter().flatten().filter(|(_, value)| value.is_number()) {
                        visit(&at.key(key), value.to_string());
                    }
                }
            }
            let steps = at.key("steps");
            for (index, step) in task.steps.iter().enumerate() {
                env(&steps.index(index), &step.env, visit);
            }
        });
    });
}

fn env(at: &Path<'_>, env: &UniqueMap<String, EnvValue>, visit: &mut dyn FnMut(&Path<'_>, String)) {
    let at = at.key("env");
    for (name, value) in env {
        match value {
            EnvValue::Literal(Scalar::String(_) | Scalar::Boolean(_)) => {}
            EnvValue::Literal(number) => visit(&at.key(name), number.to_string()),
            EnvValue::Param(_) | EnvValue::Secret(_) | EnvValue::Expr(_) | EnvValue::Output { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_tells_texts_without_odd_numbers() {
        for odd in ["a: 1.20", "[1.0]", "x: 0x10", "x: 1e3", "x: +5", "x: 5."] {
            assert!(may_read_otherwise(odd), "{odd}");
        }
        for plain in ["a: 15", "timeout: 5m", "go: [1, 22]", "x: 1.5", "run: make -j4", "x: \"1.20\""] {
            assert!(!may_read_otherwise(plain), "{plain}");
        }
    }
}
