//! A task's `matrix`: its axes multiplied, combinations left out and added, and the instances that come of it.

use std::collections::HashSet;

use serde_json::Value;
use xene_schemas::task::Matrix;

/// Instances of one task.
pub const INSTANCES: usize = 256;
/// Tasks of a pipeline, each instance counted.
pub const TASKS: usize = 5_000;
/// Connectors between the tasks of a pipeline, those between instances counted one by one.
pub const CONNECTORS: usize = 100_000;
/// The longest value of an axis, in characters: it is part of a name.
const VALUE: usize = 64;

/// One combination: axis by value, in the order of the axes.
pub type Combination = Vec<(String, String)>;

/// A matrix that can be run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// In the order of the file: the last axis turns fastest; then those of `include`.
    pub combinations: Vec<Combination>,
    /// How many run at once; none: as many as there are slots.
    pub max_parallel: Option<usize>,
}

/// What is wrong with a matrix, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixError {
    /// Which kind of mistake.
    pub kind: MatrixErrorKind,
    /// The key of the matrix, if one is to blame.
    pub key: Option<String>,
    /// The element of its list, from 0.
    pub index: Option<usize>,
    /// The key within that element.
    pub inner: Option<String>,
    /// One sentence.
    pub message: String,
    /// An axis that is not there, for those who look for the one that was meant.
    pub unknown: Option<String>,
}

/// Kinds of mistakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixErrorKind {
    /// Something is not what it has to be.
    Shape,
    /// `include` or `exclude` name an axis that is not there, or leave one out.
    Axis,
    /// There are too many combinations, or none.
    Count,
    /// Two combinations, or two axes, would have one name.
    Collision,
}

/// The name of an instance: `test[os=linux,go=1.22]`.
pub fn instance_name(task: &str, combination: &[(String, String)]) -> String {
    let values: Vec<String> = combination.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    format!("{task}[{}]", values.join(","))
}

/// `go-version` → `XENE_MATRIX_GO_VERSION`.
pub fn variable(axis: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("XENE_MATRIX_{}", axis.chars().map(upper).collect::<String>())
}

/// Multiplies the axes, leaves out what matches `exclude`, adds `include`.
///
/// # Errors
/// With everything that is wrong; at least one.
pub fn expand(matrix: &Matrix) -> Result<Expanded, Vec<MatrixError>> {
    let mut errors = Vec::new();
    let mut axes: Vec<(String, Vec<String>)> = Vec::new();
    let mut expanded = Expanded::default();
    for (key, value) in &matrix.0 {
        match key.as_str() {
            "include" | "exclude" => {}
            "maxParallel" => match value.as_u64().and_then(|max| usize::try_from(max).ok()).filter(|max| *max > 0) {
                Some(max) => expanded.max_parallel = Some(max),
                None => errors.push(at(MatrixErrorKind::Shape, key, "`maxParallel` is a whole number above 0")),
            },
            axis => axes.extend(read_axis(axis, value, &mut errors).map(|values| (axis.to_owned(), values))),
        }
    }
    let include = read_entries(matrix, "include", &mut errors);
    let exclude = read_entries(matrix, "exclude", &mut errors);
    // An axis that could not be read is one all the same: what names it is right.
    let is_axis = |key: &&String| !matches!(key.as_str(), "include" | "exclude" | "maxParallel");
    let mut names: Vec<String> = matrix.0.keys().filter(is_axis).cloned().collect();
    let listed_only = names.is_empty();
    if let (true, Some(first)) = (listed_only, include.first()) {
        names = first.iter().map(|(axis, _)| axis.clone()).collect();
    }
    if names.is_empty() && !errors.is_empty() {
        return Err(errors);
    }
    if names.is_empty() {
        let message = "a matrix needs an axis: a name with a list of values";
        return Err(vec![MatrixError { key: None, ..at(MatrixErrorKind::Shape, "", message) }]);
    }
    check_axes(&names, &include, &exclude, &mut errors);
    let product = axes.iter().try_fold(1_usize, |product, (_, values)| product.checked_mul(values.len()));
    let product = product.filter(|product| *product <= 16 * INSTANCES);
    if product.is_none() {
        errors.push(too_many());
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    expanded.combinations = if listed_only { Vec::new() } else { multiply(&axes) };
    expanded
        .combinations
        .retain(|combination| !exclude.iter().any(|entry| entry.iter().all(|value| combination.contains(value))));
    for entry in &include {
        let value = |axis: &String| entry.iter().find(|(name, _)| name == axis).cloned();
        expanded.combinations.push(names.iter().filter_map(value).collect());
    }
    let mut seen = HashSet::new();
    let twice = expanded.combinations.iter().find(|combination| !seen.insert(instance_name("", combination)));
    if let Some(combination) = twice {
        let message = format!("there are two instances {}", instance_name("", combination));
        errors.push(MatrixError { key: None, ..at(MatrixErrorKind::Collision, "", message) });
    } else if expanded.combinations.is_empty() {
        errors.push(at(MatrixErrorKind::Count, "exclude", "`exclude` leaves no combination"));
    } else if expanded.combinations.len() > INSTANCES {
        errors.push(too_many());
    }
    if errors.is_empty() { Ok(expanded) } else { Err(errors) }
}

fn at(kind: MatrixErrorKind, key: &str, message: impl Into<String>) -> MatrixError {
    MatrixError { kind, key: Some(key.into()), index: None, inner: None, message: message.into(), unknown: None }
}

fn too_many() -> MatrixError {
    let message = format!("there are more than {INSTANCES} combinations");
    MatrixError { key: None, ..at(MatrixErrorKind::Count, "", message) }
}

fn read_axis(axis: &str, value: &Value, errors: &mut Vec<MatrixError>) -> Option<Vec<String>> {
    let sound = axis.starts_with(|c: char| c.is_ascii_alphabetic())
        && axis.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && axis.len() <= VALUE;
    if !sound {
        let message = format!("{axis:?} can't name an axis: a letter, then letters, digits, _ and -");
        errors.push(at(MatrixErrorKind::Shape, axis, message));
        return None;
    }
    let Value::Array(values) = value else {
        errors.push(at(MatrixErrorKind::Shape, axis, format!("axis `{axis}` is not a list of values")));
        return None;
    };
    if values.is_empty() {
        errors.push(at(MatrixErrorKind::Shape, axis, format!("axis `{axis}` has no value")));
        return None;
    }
    let mut texts = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        match scalar(value) {
            Ok(text) => texts.push(text),
            Err(why) => {
                let message = format!("a value of axis `{axis}` {why}");
                errors.push(MatrixError { index: Some(index), ..at(MatrixErrorKind::Shape, axis, message) });
            }
        }
    }
    Some(texts)
}

/// A value as it stands in a name and in a variable.
///
/// # Errors
/// With the rest of a sentence that says why it can't.
pub fn scalar(value: &Value) -> Result<String, &'static str> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null => return Err("is null; quote it to mean the text"),
        Value::Array(_) | Value::Object(_) => {
            return Err("is a list or a map; only text, numbers and booleans are taken");
        }
    };
    if text.is_empty() || text.chars().count() > VALUE || text.chars().any(char::is_control) {
        return Err("is empty, longer than 64 characters or holds a control character, and it is part of a name");
    }
    Ok(text)
}

/// `include` or `exclude`: a list of maps, axis by value.
fn read_entries(matrix: &Matrix, key: &str, errors: &mut Vec<MatrixError>) -> Vec<Combination> {
    let entries = match matrix.0.get(key) {
        None => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            errors.push(at(MatrixErrorKind::Shape, key, format!("`{key}` is not a list of maps, axis by value")));
            return Vec::new();
        }
    };
    if entries.len() > INSTANCES {
        errors.push(too_many());
        return Vec::new();
    }
    let mut read = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let Some(entry) = entry.as_object().filter(|entry| !entry.is_empty()) else {
            let message = format!("an entry of `{key}` is not a map, axis by value");
            errors.push(MatrixError { index: Some(index), ..at(MatrixErrorKind::Shape, key, message) });
            continue;
        };
        let mut combination = Vec::with_capacity(entry.len());
        for (axis, value) in entry {
            match scalar(value) {
                Ok(text) => combination.push((axis.clone(), text)),
                Err(why) => {
                    let (index, inner) = (Some(index), Some(axis.clone()));
                    let message = format!("a value of axis `{axis}` {why}");
                    errors.push(MatrixError { index, inner, ..at(MatrixErrorKind::Shape, key, message) });
                }
            }
        }
        read.push(combination);
    }
    read
}

fn check_axes(names: &[String], include: &[Combination], exclude: &[Combination], errors: &mut Vec<MatrixError>) {
    for (key, entries) in [("include", include), ("exclude", exclude)] {
        for (index, entry) in entries.iter().enumerate() {
            for (axis, _) in entry.iter().filter(|(axis, _)| !names.contains(axis)) {
                let (index, inner, unknown) = (Some(index), Some(axis.clone()), Some(axis.clone()));
                let message = format!("there is no axis `{axis}`");
                errors.push(MatrixError { index, inner, unknown, ..at(MatrixErrorKind::Axis, key, message) });
            }
        }
    }
    for (index, entry) in include.iter().enumerate() {
        for axis in names.iter().filter(|axis| !entry.iter().any(|(name, _)| name == *axis)) {
            let message = format!("an entry of `include` is a whole combination, and this one has no `{axis}`");
            errors.push(MatrixError { index: Some(index), ..at(MatrixErrorKind::Axis, "include", message) });
        }
    }
    let mut seen: Vec<(String, &String)> = Vec::new();
    for axis in names {
        let variable = variable(axis);
        if let Some((_, other)) = seen.iter().find(|(taken, _)| *taken == variable) {
            let message = format!("axes `{other}` and `{axis}` would share the variable {variable}");
            errors.push(at(MatrixErrorKind::Collision, axis, message));
        }
        seen.push((variable, axis));
    }
}

fn multiply(axes: &[(String, Vec<String>)]) -> Vec<Combination> {
    let mut combinations: Vec<Combination> = vec![Vec::new()];
    for (axis, values) in axes {
        let longer = |combination: &Combination| {
            let of_value = |value: &String| {
                let mut combination = combination.clone();
                combination.push((axis.clone(), value.clone()));
                combination
            };
            values.iter().map(of_value).collect::<Vec<_>>()
        };
        combinations = combinations.iter().flat_map(longer).collect();
    }
    combinations
}

/// The entries of `exclude`, from 0, that leave nothing out: none of them matches a combination of the axes. None in a
/// matrix that can't be run.
pub fn idle_excludes(matrix: &Matrix) -> Vec<usize> {
    let mut axes_only = matrix.clone();
    axes_only.0.retain(|key, _| !matches!(key.as_str(), "include" | "exclude"));
    let (Ok(_), Ok(all)) = (expand(matrix), expand(&axes_only)) else { return Vec::new() };
    let exclude = read_entries(matrix, "exclude", &mut Vec::new());
    let matches = |entry: &Combination| {
        all.combinations.iter().any(|combination| entry.iter().all(|value| combination.contains(value)))
    };
    exclude.iter().enumerate().filter(|(_, entry)| !matches(entry)).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told_at_once() {
        assert_eq!(
            shown(r#"{"os": [], "go": [1], "maxParallel": 0, "exclude": [{"os": "x"}, {"arch": "y"}]}"#),
            [
                "Shape: axis `os` has no value",
                "Shape: `maxParallel` is a whole number above 0",
                "Axis: there is no axis `arch`"
            ]
        );
    }

    #[test]
    fn excludes_that_leave_nothing_out_are_found() {
        let idle = |json: &str| idle_excludes(&matrix(json));
        assert_eq!(idle(r#"{"go": [1, 2], "exclude": [{"go": 1}, {"go": 3}]}"#), [1]);
        assert_eq!(idle(r#"{"go": [1], "include": [{"go": 4}], "exclude": [{"go": 4}]}"#), [0]);
        assert_eq!(idle(r#"{"go": [1], "exclude": [{"os": 1}]}"#), [0; 0], "that is an error");
    }

    fn matrix(yaml: &str) -> Matrix {
        // JSON, as flow YAML would be read.
        serde_json::from_str(yaml).unwrap()
    }

    fn shown(json: &str) -> Vec<String> {
        match expand(&matrix(json)) {
            Ok(expanded) => expanded.combinations.iter().map(|combination| instance_name("t", combination)).collect(),
            Err(errors) => errors.into_iter().map(|error| format!("{:?}: {}", error.kind, error.message)).collect(),
        }
    }

    #[test]
    fn axes_are_multiplied_in_the_order_of_the_file() {
        assert_eq!(
            shown(r#"{"os": ["linux", "macos"], "go": [1.21, "1.22"], "maxParallel": 2}"#),
            ["t[os=linux,go=1.21]", "t[os=linux,go=1.22]", "t[os=macos,go=1.21]", "t[os=macos,go=1.22]"]
        );
    }

    #[test]
    fn exclude_leaves_out_and_include_adds() {
        assert_eq!(
            shown(
                r#"{"os": ["linux", "macos"], "go": [1, 2], "exclude": [{"os": "macos"}, {"os": "linux", "go": 1}],
                    "include": [{"go": 3, "os": "bsd"}]}"#
            ),
            ["t[os=linux,go=2]", "t[os=bsd,go=3]"]
        );
        assert_eq!(
            shown(r#"{"include": [{"a": 1, "b": true}, {"b": false, "a": 2}]}"#),
            ["t[a=1,b=true]", "t[a=2,b=false]"]
        );
    }

    #[test]
    fn mistakes_are_all_told() {
        for (json, message) in [
            (r"{}", "Shape: a matrix needs an axis: a name with a list of values"),
            (r#"{"maxParallel": 0, "a": [1]}"#, "Shape: `maxParallel` is a whole number above 0"),
            (r#"{"a": 1}"#, "Shape: axis `a` is not a list of values"),
            (r#"{"a": []}"#, "Shape: axis `a` has no value"),
            (
                r#"{"a": [[1]]}"#,
                "Shape: a value of axis `a` is a list or a map; only text, numbers and booleans are taken",
            ),
            (r#"{"1a": [1]}"#, "Shape: \"1a\" can't name an axis: a letter, then letters, digits, _ and -"),
            (r#"{"a": [1], "exclude": {}}"#, "Shape: `exclude` is not a list of maps, axis by value"),
            (r#"{"a": [1], "exclude": [{"b": 1}]}"#, "Axis: there is no axis `b`"),
            (
                r#"{"a": [1], "b": [1], "include": [{"a": 2}]}"#,
                "Axis: an entry of `include` is a whole combination, and this one has no `b`",
            ),
            (r#"{"a": [1], "exclude": [{"a": 1}]}"#, "Count: `exclude` leaves no combination"),
            (r#"{"a": [1, "1"]}"#, "Collision: there are two instances [a=1]"),
            (r#"{"a-b": [1], "a_b": [1]}"#, "Collision: axes `a-b` and `a_b` would share the variable XENE_MATRIX_A_B"),
        ] {
            assert_eq!(shown(json), [message], "{json}");
        }
        let many: Vec<String> = (0..17).map(|n| n.to_string()).collect();
        let axis = format!("[{}]", many.join(","));
        assert_eq!(shown(&format!(r#"{{"a": {axis}, "b": {axis}}}"#)), ["Count: there are more than 256 combinations"]);
        let axes: Vec<String> = (0..40).map(|n| format!(r#""a{n}": {axis}"#)).collect();
        assert_eq!(shown(&format!("{{{}}}", axes.join(","))), ["Count: there are more than 256 combinations"]);
    }
}
