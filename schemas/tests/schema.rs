//! The committed JSON Schema says what the types say. `XENE_BLESS=1 cargo test -p xene-schemas` writes it anew.

#![expect(clippy::unwrap_used, reason = "tests may stop at what they do not expect")]

#[path = "../../src/compile/tests/example.rs"]
mod example;

use std::{fs, path::Path};

use serde_json::{Map, Value, json};
use xene_schemas::{notifier::Notifier, workflow::Workflow, workflow_test::WorkflowTest};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/xene-v1.schema.json");

#[expect(clippy::disallowed_methods, reason = "a switch for people who run tests, not configuration")]
fn blesses() -> bool {
    std::env::var("XENE_BLESS").is_ok_and(|value| value == "1")
}

/// One schema for all kinds of documents, since one file may hold several. An editor that knows the kind tells what is
/// wrong with it, and not that it is none of several.
fn generate() -> Value {
    let mut generator = schemars::SchemaGenerator::default();
    let (workflow, test) = (generator.subschema_for::<Workflow>(), generator.subschema_for::<WorkflowTest>());
    let notifier = generator.subschema_for::<Notifier>();
    let is = |kind: &str| json!({"properties": {"kind": {"const": kind}}, "required": ["kind"]});
    let mut definitions = Value::Object(generator.take_definitions(true));
    definitions.as_object_mut().unwrap().values_mut().for_each(loosen);
    // The first xene's manifests are read by types of their own.
    let first = json!({"properties": {"apiVersion": {"const": "v1alpha1"}}, "required": ["apiVersion"]});
    let manifest = json!({"type": "object", "required": ["apiVersion", "kind", "metadata", "spec"]});
    // Serialising puts the keywords in an order for readers.
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "xene workflow",
        "if": first,
        "then": manifest,
        "else": {
            "if": is("WorkflowTest"),
            "then": test,
            "else": {"if": is("Notifier"), "then": notifier, "else": workflow},
        },
        "$defs": definitions,
    })
}

/// Where text is wanted YAML's users write numbers and booleans, which are taken for their text; and a map that is left
/// empty is none.
fn loosen(schema: &mut Value) {
    let text = json!(["string", "number", "boolean"]);
    let is_free = |schema: &Value| {
        schema["type"] == "string" && ["pattern", "enum", "const"].iter().all(|key| schema.get(key).is_none())
    };
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, field) in properties {
            match name.as_str() {
                "description" | "when" | "expr" => {
                    if is_free(field) {
                        field["type"] = text.clone();
                    } else if field["type"] == json!(["string", "null"]) {
                        field["type"] = json!(["string", "number", "boolean", "null"]);
                    }
                }
                "labels" | "annotations" if is_free(&field["additionalProperties"]) => {
                    field["additionalProperties"]["type"] = text.clone();
                }
                "env" if field["type"] == "object" => field["type"] = json!(["object", "null"]),
                _ => {}
            }
        }
    }
    if schema["type"] == "array" && is_free(&schema["items"]) {
        schema["items"]["type"] = text;
    }
    match schema {
        Value::Object(map) => map.values_mut().for_each(loosen),
        Value::Array(values) => values.iter_mut().for_each(loosen),
        _ => {}
    }
}

/// What xene refuses the schema refuses, and what xene takes it takes, as far as a schema can tell.
#[test]
fn the_schema_agrees_with_the_reader() {
    let schema = generate();
    let verdict = |pipeline: &str| {
        let text = format!(
            "{{apiVersion: xene/v1, kind: Workflow, metadata: {{name: w, description: 5, labels: {{a: 1}}}}, spec: {{pipelines: {pipeline}}}}}"
        );
        let value: Value = serde_yaml::from_str(&text).unwrap();
        (check(&schema, &schema, &value, "").is_ok(), serde_yaml::from_str::<Workflow>(&text).is_ok(), text)
    };
    let task = |task: &str| format!("{{p: {{tasks: {{t: {{steps: [echo], {task}}}}}}}}}");
    let pipeline = |fields: &str| format!("{{p: {{tasks: {{t: {{steps: [echo]}}}}, {fields}}}}}");
    let step = |step: &str| format!("{{p: {{tasks: {{t: {{steps: [{step}]}}}}}}}}");
    let refused = [
        "{}".to_owned(),
        "{p: {tasks: {}}}".to_owned(),
        "{p: {tasks: {t: {steps: []}}}}".to_owned(),
        task("matrix: {}"),
        task("matrix: {a: []}"),
        task("matrix: {a: b}"),
        task("matrix: {a: [1], maxParallel: '2'}"),
        task("retry: {attempts: 101}"),
        task("outputs: ['b c']"),
        pipeline("concurrency: {max: 0}"),
        pipeline("history: {runs: 0}"),
        step("{run: x, shell: zsh}"),
    ];
    for text in &refused {
        let (taken, _, text) = verdict(text);
        assert!(!taken, "{text}");
    }
    let taken = [
        task("when: true"),
        task("env: {A: {expr: 1}}"),
        task("env: "),
        task("description: 5"),
        task("matrix: {a: [1, x, true], include: [{a: y}], exclude: [{a: 1}], maxParallel: 2}"),
        pipeline("agents: {labels: {gpu: 2}}"),
        pipeline("labels: {a: 1}"),
        step("{run: [sleep, 5]}"),
        step("{run: x, shell: bash}"),
        step("{run: x, shell: [zsh]}"),
    ];
    for text in &taken {
        let (by_schema, by_reader, text) = verdict(text);
        assert!(by_reader, "{text}");
        assert!(by_schema, "{text}");
    }
    let old =
        json!({"apiVersion": "v1alpha1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": {"pipelines": {}}});
    assert_eq!(check(&schema, &schema, &old, ""), Ok(()));
}

#[test]
fn schemas_are_fresh() {
    let text = serde_json::to_string_pretty(&generate()).unwrap() + "\n";
    if blesses() {
        fs::write(COMMITTED, &text).unwrap();
    }
    let committed = fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(committed == text, "xene-v1.schema.json is stale: XENE_BLESS=1 cargo test -p xene-schemas --test schema");
}

/// Whether `value` keeps `schema`: the keywords that ours uses, and a panic at any other, so that none is passed over.
fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(schema) = schema.as_object() else {
        return if schema == &Value::Bool(false) { Err(format!("{at}: nothing may stand here")) } else { Ok(()) };
    };
    for (keyword, rule) in schema {
        let holds = match (keyword.as_str(), value) {
            ("$schema" | "title" | "description" | "default" | "format" | "$defs", _) => true,
            ("$ref", _) => {
                let target = root.pointer(rule.as_str().unwrap().trim_start_matches('#')).unwrap();
                return check(root, target, value, at);
            }
            ("type", _) => match rule {
                Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
                kind => is_of(kind, value),
            },
            ("const", _) => rule == value,
            ("enum", _) => rule.as_array().unwrap().contains(value),
            ("if", _) => {
                let branch = if check(root, rule, value, at).is_ok() { "then" } else { "else" };
                return check(root, &schema[branch], value, at);
            }
            ("anyOf", _) => rule.as_array().unwrap().iter().any(|rule| check(root, rule, value, at).is_ok()),
            ("oneOf", _) => {
                rule.as_array().unwrap().iter().filter(|rule| check(root, rule, value, at).is_ok()).count() == 1
            }
            ("properties", Value::Object(map)) => {
                for (key, value) in map {
                    if let Some(rule) = rule.get(key) {
                        check(root, rule, value, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            ("additionalProperties", Value::Object(map)) => {
                let named = schema.get("properties").and_then(Value::as_object);
                for (key, value) in map {
                    if !named.is_some_and(|named| named.contains_key(key)) {
                        check(root, rule, value, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            ("propertyNames", Value::Object(map)) => {
                map.keys().all(|key| check(root, rule, &Value::String(key.clone()), at).is_ok())
            }
            ("required", Value::Object(map)) => {
                rule.as_array().unwrap().iter().all(|key| map.contains_key(key.as_str().unwrap()))
            }
            ("items", Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    check(root, rule, item, &format!("{at}[{index}]"))?;
                }
                true
            }
            ("minItems", Value::Array(items)) => items.len() as u64 >= rule.as_u64().unwrap(),
            ("minProperties", Value::Object(map)) => map.len() as u64 >= rule.as_u64().unwrap(),
            ("minimum", Value::Number(number)) => number.as_f64() >= rule.as_f64(),
            ("maximum", Value::Number(number)) => number.as_f64() <= rule.as_f64(),
            ("pattern", Value::String(text)) => regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text),
            ("minLength", Value::String(text)) => text.chars().count() as u64 >= rule.as_u64().unwrap(),
            (
                "properties"
                | "additionalProperties"
                | "propertyNames"
                | "required"
                | "items"
                | "minItems"
                | "minProperties"
                | "minimum"
                | "maximum"
                | "minLength"
                | "pattern",
                _,
            ) => true,
            (other, _) => panic!("{at}: this test does not know {other}"),
        };
        if !holds {
            return Err(format!("{at}: {keyword} {rule} does not hold"));
        }
    }
    Ok(())
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    }
}

/// Uses every field that a workflow has.
const WHOLE: &str = include_str!("every-field.yaml");

/// Uses every field that a workflow test has.
const WHOLE_TEST: &str = include_str!("every-test-field.yaml");

#[test]
fn every_field_of_a_test_is_in_the_schema() {
    let schema = generate();
    let mut value: Value = serde_yaml::from_str(WHOLE_TEST).unwrap();
    let test = serde_yaml::from_str::<WorkflowTest>(WHOLE_TEST).unwrap();
    assert_eq!(check(&schema, &schema, &value, ""), Ok(()));
    let written = serde_json::to_value(&test).unwrap();
    assert_eq!(check(&schema, &schema, &written, ""), Ok(()));
    assert_eq!(serde_json::from_value::<WorkflowTest>(written).unwrap(), test);
    for path in [
        "",
        "/spec",
        "/spec/cases/0",
        "/spec/cases/0/expect",
        "/spec/cases/0/expect/tasks/build",
        "/spec/cases/0/stubs/b",
    ] {
        let before = value.clone();
        value.pointer_mut(path).unwrap().as_object_mut().unwrap().insert("surprise".into(), 1.into());
        assert!(check(&schema, &schema, &value, "").is_err(), "{path}");
        value = before;
    }
}

/// Uses every field that a notifier has.
const WHOLE_NOTIFIERS: &str = include_str!("every-notifier-field.yaml");

#[test]
fn every_field_of_a_notifier_is_in_the_schema() {
    let schema = generate();
    for text in WHOLE_NOTIFIERS.split("---\n") {
        let mut value: Value = serde_yaml::from_str(text).unwrap();
        let notifier = serde_yaml::from_str::<Notifier>(text).unwrap();
        assert_eq!(check(&schema, &schema, &value, ""), Ok(()));
        let written = serde_json::to_value(&notifier).unwrap();
        assert_eq!(check(&schema, &schema, &written, ""), Ok(()));
        assert_eq!(serde_json::from_value::<Notifier>(written).unwrap(), notifier);
        let destination = format!("/spec/{}", notifier.spec.destinations()[0]);
        for path in ["", "/spec", &*destination] {
            let before = value.clone();
            value.pointer_mut(path).unwrap().as_object_mut().unwrap().insert("surprise".into(), 1.into());
            assert!(check(&schema, &schema, &value, "").is_err(), "{path}");
            value = before;
        }
    }
}

#[test]
fn every_field_is_in_the_schema() {
    let schema = generate();
    let value: Value = serde_yaml::from_str(WHOLE).unwrap();
    serde_yaml::from_str::<Workflow>(WHOLE).unwrap();
    assert_eq!(check(&schema, &schema, &value, ""), Ok(()));
    // What the types write, they and the schema read.
    let written = serde_json::to_value(serde_yaml::from_str::<Workflow>(WHOLE).unwrap()).unwrap();
    assert_eq!(check(&schema, &schema, &written, ""), Ok(()));
}

#[test]
fn unknown_fields_are_refused() {
    let schema = generate();
    let mut refused = 0;
    let whole: Value = serde_yaml::from_str(WHOLE).unwrap();
    for path in ["", "/spec", "/spec/triggers/nightly", "/spec/pipelines/main", "/spec/pipelines/main/tasks/a"] {
        let mut value = whole.clone();
        let map: &mut Map<String, Value> = value.pointer_mut(path).unwrap().as_object_mut().unwrap();
        map.insert("surprise".into(), 1.into());
        refused += usize::from(check(&schema, &schema, &value, "").is_err());
    }
    assert_eq!(refused, 5);
}

#[test]
fn every_example_keeps_the_schema() {
    let schema = generate();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.join("examples"), root.join("xene.d")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = fs::read_to_string(&path).unwrap();
                for document in serde_yaml::Deserializer::from_str(&text) {
                    let value: Value = serde::Deserialize::deserialize(document).unwrap();
                    if value.get("apiVersion").is_some() {
                        assert_eq!(check(&schema, &schema, &value, ""), Ok(()), "{}", path.display());
                    }
                }
            }
        }
    }
}

#[test]
fn every_field_is_described() {
    fn visit(root: &Value, value: &Value, missing: &mut Vec<String>) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            for (name, field) in properties {
                let target = field.get("$ref").and_then(Value::as_str);
                let target = target.and_then(|target| root.pointer(target.trim_start_matches('#')));
                let has = |value: &Value| value.get("description").is_some();
                // The words of a tag are their own description.
                if !has(field) && !target.is_some_and(has) && field.get("const").is_none() {
                    missing.push(name.clone());
                }
            }
        }
        match value {
            Value::Object(map) => map.values().for_each(|value| visit(root, value, missing)),
            Value::Array(values) => values.iter().for_each(|value| visit(root, value, missing)),
            _ => {}
        }
    }
    let (schema, mut missing) = (generate(), Vec::new());
    visit(&schema, &schema, &mut missing);
    assert!(missing.is_empty(), "{missing:?}");
}

/// Wrong, but not in a way that a schema can tell.
const BEYOND_A_SCHEMA: [&str; 4] = ["18446744073709551615", "99999999999999999999", "{-x: {}}", "{$who: {}}"];

#[test]
fn the_examples_of_diagnostics_keep_the_schema_if_they_are_right_and_break_it_if_they_are_misshapen() {
    let schema = generate();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/diagnostics");
    let (mut right, mut misshapen) = (0, 0);
    for page in fs::read_dir(folder).unwrap() {
        let path = page.unwrap().path();
        for example in example::examples(&fs::read_to_string(&path).unwrap()) {
            if example.language == example::Language::Shell {
                continue;
            }
            let documents = serde_yaml::Deserializer::from_str(&example.text);
            let documents: Result<Vec<Value>, _> = documents.map(serde::Deserialize::deserialize).collect();
            // What is no YAML is no matter of a schema.
            let Ok(documents) = documents else { continue };
            let ours = documents.iter().filter(|document| document["apiVersion"] == "xene/v1");
            let verdicts: Vec<_> = ours.map(|document| check(&schema, &schema, document, "")).collect();
            let shape = ["XE0011", "XE0012", "XE0013", "XE0014"];
            if !example.is_wrong {
                right += verdicts.len();
                assert_eq!(verdicts.into_iter().find(Result::is_err), None, "{}:\n{}", path.display(), example.text);
            } else if !verdicts.is_empty()
                && example.marks.iter().all(|mark| shape.contains(&mark.code.as_str()))
                && !BEYOND_A_SCHEMA.iter().any(|text| example.text.contains(text))
            {
                misshapen += 1;
                assert!(verdicts.iter().any(Result::is_err), "{}:\n{}", path.display(), example.text);
            }
        }
    }
    assert!(right > 50 && misshapen > 80, "{right} {misshapen}");
}
