//! Two versions of an object, field by field.

use serde::Serialize;
use serde_json::Value;
use xene_schemas::{meta::ObjectMeta, pipeline::PipelineFile, plan::FieldChange};

/// What differs between two versions of an object, in the order of its fields: metadata, then spec.
pub fn between<S: Serialize>(old: (&ObjectMeta, &S), new: (&ObjectMeta, &S)) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare("metadata", &json(old.0), &json(new.0), &mut changes);
    compare("spec", &json(old.1), &json(new.1), &mut changes);
    changes
}

/// What differs between the files that travel with two versions of a workflow, by their paths: the ids of their
/// content, and whether they may be executed, if only that changed.
pub(super) fn of_files(old: &[PipelineFile], new: &[PipelineFile]) -> Vec<FieldChange> {
    let of = |files: &[PipelineFile], path: &str| files.iter().find(|file| file.path == path).cloned();
    let added = new.iter().filter(|file| !old.iter().any(|before| before.path == file.path));
    let paths = old.iter().chain(added).map(|file| file.path.as_str());
    let change = |path: &str| {
        let (before, after) = (of(old, path), of(new, path));
        if before == after {
            return None;
        }
        let same_content = matches!((&before, &after), (Some(before), Some(after)) if before.hash == after.hash);
        let value = |file: PipelineFile| {
            let mode = if !same_content {
                ""
            } else if file.executable {
                " (executable)"
            } else {
                " (not executable)"
            };
            Value::from(format!("{}{mode}", file.hash))
        };
        let (old, new) = (before.map(value), after.map(value));
        Some(FieldChange { path: format!("files[{}]", Value::from(path)), old, new })
    };
    paths.filter_map(change).collect()
}

/// What people write are texts, numbers, lists and maps with texts as keys: all of it can be written.
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn compare(path: &str, old: &Value, new: &Value, changes: &mut Vec<FieldChange>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, before) in old {
                let path = join(path, key);
                match new.get(key) {
                    Some(after) => compare(&path, before, after, changes),
                    None => changes.push(FieldChange { path, old: Some(before.clone()), new: None }),
                }
            }
            for (key, after) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                changes.push(FieldChange { path: join(path, key), old: None, new: Some(after.clone()) });
            }
        }
        (Value::Array(old), Value::Array(new)) => compare_lists(path, old, new, changes),
        (old, new) if old == new => {}
        (old, new) => {
            changes.push(FieldChange { path: path.to_owned(), old: Some(old.clone()), new: Some(new.clone()) });
        }
    }
}

/// What both begin and end with is the same; between, one entry is compared with the other of the same place.
fn compare_lists(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<FieldChange>) {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let rest = old.len().min(new.len()) - start;
    let end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    for at in 0..old.len().max(new.len()) {
        let path = format!("{path}[{}]", start + at);
        match (old.get(at), new.get(at)) {
            (Some(old), Some(new)) => compare(&path, old, new, changes),
            (old, new) => changes.push(FieldChange { path, old: old.cloned(), new: new.cloned() }),
        }
    }
}

/// `spec.triggers`, or `labels["a.b"]` where the key is more than a word.
fn join(path: &str, key: &str) -> String {
    let is_word = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_word { format!("{path}.{key}") } else { format!("{path}[{}]", Value::from(key)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn lines(old: Value, new: Value) -> Vec<String> {
        let mut changes = Vec::new();
        compare("spec", &old, &new, &mut changes);
        let text = |value: Option<Value>| value.map_or_else(|| "-".into(), |value| value.to_string());
        changes.into_iter().map(|c| format!("{}: {} → {}", c.path, text(c.old), text(c.new))).collect()
    }

    #[test]
    fn names_the_innermost_field_that_differs() {
        assert_eq!(
            lines(
                json!({"a": 1, "b": {"c": "x", "gone": true}, "same": [1]}),
                json!({"b": {"c": "y"}, "same": [1], "new": {"d.e": 1}, "a": 1}),
            ),
            ["spec.b.c: \"x\" → \"y\"", "spec.b.gone: true → -", "spec.new: - → {\"d.e\":1}"]
        );
        assert_eq!(lines(json!({"d.e": 1}), json!({"d.e": 2})), ["spec[\"d.e\"]: 1 → 2"]);
        assert_eq!(lines(json!([1]), json!({"a": 1})), ["spec: [1] → {\"a\":1}"]);
    }

    #[test]
    fn an_entry_that_is_put_in_is_one_change() {
        assert_eq!(lines(json!(["a", "b", "c"]), json!(["a", "x", "b", "c"])), ["spec[1]: - → \"x\""]);
        assert_eq!(lines(json!(["a", "b", "c"]), json!(["a", "c"])), ["spec[1]: \"b\" → -"]);
        assert_eq!(lines(json!([{"run": "a"}]), json!([{"run": "b"}])), ["spec[0].run: \"a\" → \"b\""]);
        assert_eq!(lines(json!(["a", "a"]), json!(["a"])), ["spec[1]: \"a\" → -"]);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!("a")), Just(json!(true))];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                prop::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn equal_if_and_only_if_nothing_changes(old in values(), new in values()) {
            prop_assert!(lines(old.clone(), old.clone()).is_empty());
            prop_assert_eq!(lines(old.clone(), new.clone()).is_empty(), old == new);
        }
    }
}
