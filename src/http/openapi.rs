//! The API's description, OpenAPI 3.1: made from the table of routes and the types by a test, kept in the repository,
//! and given to whoever asks.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

const DOCUMENT: &str = include_str!("../../schemas/openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::{JsonSchema, generate::SchemaSettings};
    use serde_json::{Map, Value, json};
    use xene_schemas::{
        access::{ApiToken, JoinToken},
        agent::Agent,
        controller::Controller,
        event::Event,
        firing::Firing,
        meta::API_VERSION,
        notifier::{NotifierObject, NotifierTest},
        object::{PipelineObject, WorkflowObject},
        plan::{PlanReport, WorkflowChange},
        run::Run,
        source::Source,
        why::{InstantWhy, PipelineWhy, RunWhy},
    };

    use super::super::{
        agents::{self, ACTIONS},
        artifacts, hooks, operate,
        routes::{Answer, IF_NONE_MATCH, Said, outer, v1},
        runs, tokens, ui,
    };
    use crate::planning::Upload;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/openapi.json");

    /// Objects of the API.
    const KINDS: &[&str] = &[
        "Agent",
        "Artifact",
        "Controller",
        "Event",
        "Firing",
        "Notifier",
        "Pipeline",
        "Plan",
        "Run",
        "Source",
        "Token",
        "Workflow",
    ];

    /// Schemas of all that goes in and out.
    struct Components(Map<String, Value>);

    impl Components {
        /// One that goes out.
        fn out<T: JsonSchema>(&mut self, name: &str) {
            self.add::<T>(name, without_nulls);
        }

        /// An object: with what it is before itself.
        fn object<T: JsonSchema>(&mut self, kind: &str) {
            self.out::<T>(kind);
            let schema = self.0[kind].as_object_mut().unwrap();
            let own = schema.entry("properties").or_insert_with(|| json!({})).as_object_mut().unwrap();
            let mut properties = Map::new();
            properties.insert("apiVersion".into(), json!({"const": API_VERSION}));
            properties.insert("kind".into(), json!({"const": kind}));
            properties.append(own);
            *own = properties;
            let required = schema.entry("required").or_insert_with(|| json!([])).as_array_mut().unwrap();
            required.splice(0..0, [json!("apiVersion"), json!("kind")]);
        }

        /// One that goes in, where null means absent.
        fn body<T: JsonSchema>(&mut self, name: &str) {
            self.add::<T>(name, |_| {});
        }

        fn add<T: JsonSchema>(&mut self, name: &str, mend: fn(&mut Value)) {
            // As it is read, also of what goes out: what may be left out when it is read may be left out.
            let settings = SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            });
            let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
            // A part of something may have the name of a kind, such as what a step runs.
            for kind in KINDS {
                let Some(part) =
                    schema.pointer_mut("/components/schemas").and_then(|defs| defs.as_object_mut()?.remove(*kind))
                else {
                    continue;
                };
                schema["components"]["schemas"][format!("{kind}Part")] = part;
                let path = |name: &str| format!("\"#/components/schemas/{name}\"");
                let renamed = schema.to_string().replace(&path(kind), &path(&format!("{kind}Part")));
                schema = serde_json::from_str(&renamed).unwrap();
            }
            let defs = schema.pointer_mut("/components/schemas").map(Value::take);
            let fields = schema.as_object_mut().unwrap();
            fields.remove("components");
            fields.remove("title");
            for (name, mut schema) in defs.and_then(|defs| defs.as_object().cloned()).unwrap_or_default() {
                mend(&mut schema);
                self.0.entry(name).or_insert(schema);
            }
            mend(&mut schema);
            assert!(self.0.insert(name.to_owned(), schema).is_none(), "two schemas are named {name}");
        }
    }

    /// Absent means absent: there are no nulls.
    fn without_nulls(schema: &mut Value) {
        match schema {
            Value::Object(fields) => {
                if let Some(Value::Array(types)) = fields.get_mut("type") {
                    types.retain(|kind| kind != "null");
                    if let [only] = &types[..] {
                        let only = only.clone();
                        fields.insert("type".into(), only);
                    }
                }
                if let Some(Value::Array(any)) = fields.get_mut("anyOf") {
                    any.retain(|schema| schema["type"] != "null");
                    if let [only] = &any[..] {
                        let only = only.as_object().cloned().unwrap_or_default();
                        fields.remove("anyOf");
                        fields.extend(only);
                    }
                }
                if fields.get("default") == Some(&Value::Null) {
                    fields.remove("default");
                }
                fields.values_mut().for_each(without_nulls);
            }
            Value::Array(items) => items.iter_mut().for_each(without_nulls),
            _ => {}
        }
    }

    fn components() -> Map<String, Value> {
        let mut all = Components(Map::new());
        all.object::<Controller>("Controller");
        all.object::<Source>("Source");
        all.object::<WorkflowObject>("Workflow");
        all.object::<WorkflowChange>("WorkflowChange");
        all.object::<PipelineObject>("Pipeline");
        all.object::<Firing>("Firing");
        all.object::<PipelineWhy>("PipelineWhy");
        all.object::<InstantWhy>("InstantWhy");
        all.object::<PlanReport>("Plan");
        all.object::<Run>("Run");
        all.object::<RunWhy>("RunWhy");
        all.object::<artifacts::Listed<'_>>("Artifact");
        all.object::<Agent>("Agent");
        all.object::<NotifierObject>("Notifier");
        all.out::<NotifierTest>("NotifierTest");
        // Its own `kind` is the object's: it goes by `type`.
        all.object::<Event>("Event");
        all.object::<ApiToken>("Token");
        all.object::<JoinToken>("JoinToken");
        all.object::<ui::session::NewCode>("SignInCode");
        all.out::<agents::NewToken>("NewJoinToken");
        all.out::<tokens::NewToken>("NewToken");
        all.out::<hooks::Accepted>("Accepted");
        all.body::<runs::StartBody>("StartRequest");
        all.body::<operate::RerunBody>("RerunRequest");
        all.body::<operate::DecisionBody>("DecisionRequest");
        all.body::<operate::SuspendBody>("SuspendRequest");
        all.body::<operate::ApproveBody>("ApprovePruneRequest");
        all.body::<operate::PauseBody>("PauseRequest");
        all.body::<agents::TokenBody>("JoinTokenRequest");
        all.body::<agents::FenceBody>("FenceRequest");
        all.body::<tokens::TokenBody>("TokenRequest");
        all.body::<Upload>("Upload");
        let problem = json!({
            "type": "object",
            "description": "An error, by RFC 9457.",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string", "description": "What is wrong, in a sentence."},
                "hint": {"type": "string", "description": "What may help."},
                "reason": {"type": "string", "description": "`Suspended` if `force` would do it all the same."},
            },
        });
        all.0.insert("Problem".into(), problem);
        all.0
    }

    fn reference(name: &str) -> Value {
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    fn content(answer: Answer) -> Option<Value> {
        let json_of = |schema: Value| json!({"application/json": {"schema": schema}});
        Some(match answer {
            Answer::One(kind) | Answer::Plain(kind) => json_of(reference(kind)),
            Answer::Either(kinds) => {
                json_of(json!({"oneOf": kinds.iter().map(|kind| reference(kind)).collect::<Vec<_>>()}))
            }
            Answer::List(kind) => json_of(json!({
                "type": "object",
                "required": ["apiVersion", "kind", "items"],
                "properties": {
                    "apiVersion": {"const": API_VERSION},
                    "kind": {"const": "List"},
                    "items": {"type": "array", "items": reference(kind)},
                },
            })),
            Answer::Bytes(kinds) => {
                kinds.iter().map(|kind| ((*kind).to_owned(), json!({}))).collect::<Map<_, _>>().into()
            }
            Answer::Nothing => return None,
        })
    }

    /// Its method and the words of its path: where a parameter follows, of one of them.
    fn operation_id(said: &Said) -> String {
        let path = said.path.trim_start_matches("/api/v1");
        let words: Vec<&str> = path.split(['/', '.']).filter(|word| !word.is_empty()).collect();
        let mut id = if matches!(said.answer, Answer::List(_)) { "list" } else { said.method }.to_owned();
        for (at, word) in words.iter().enumerate() {
            let is_param = |word: &&str| word.starts_with('{');
            // One of a kind that has others beside it is told apart by what names it.
            if is_param(word) && !words.get(at.wrapping_sub(1)).is_some_and(is_param) {
                continue;
            }
            let one = words.get(at + 1).is_some_and(is_param);
            let word = word.trim_matches(['{', '}']);
            let word = if one { word.strip_suffix('s').unwrap_or(word) } else { word };
            for part in word.split('-') {
                let (first, rest) = part.split_at(1);
                id.extend([&first.to_ascii_uppercase(), rest]);
            }
        }
        id
    }

    /// What may come of it, beside what it is for.
    fn problems(said: &Said) -> Vec<(u16, &'static str)> {
        let (is_get, is_json) = (said.method == "get", !matches!(said.answer, Answer::Bytes(_) | Answer::Nothing));
        let mut all = vec![];
        if is_get && is_json && said.role.is_some() {
            all.push((304, "The client has it"));
        }
        if said.body.is_some() || !said.query.is_empty() {
            all.push((400, "It can't be understood"));
        }
        if said.role.is_some() {
            all.extend([(401, "No token, or one that is not valid"), (403, "The role or the scope does not allow it")]);
        }
        if said.role.is_some() && said.path.contains('{') {
            all.push((404, "No such object"));
        }
        if said.body.is_some() {
            all.extend([(413, "The body is too long"), (415, "The body is not declared as JSON")]);
        }
        all.extend(said.also);
        all
    }

    fn operation(said: &Said) -> Value {
        let named = said.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let in_path = named.map(|name| {
            let schema = match name {
                "action" => json!({"enum": ACTIONS}),
                _ => json!({"type": "string"}),
            };
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        });
        let in_query = said.query.iter().map(|(name, kind, means)| {
            let schema = match (*name, *kind) {
                ("limit", _) => json!({"type": "integer", "minimum": 1, "maximum": 10_000, "default": 100}),
                ("format", _) => json!({"enum": ["text", "ndjson"], "default": "text"}),
                (_, "integer") => json!({"type": "integer", "minimum": 0}),
                (_, "time") => json!({"type": "string", "format": "date-time"}),
                (_, kind) => json!({"type": kind}),
            };
            json!({"name": name, "in": "query", "required": *name == "rev", "description": means, "schema": schema})
        });
        let is_tagged = said.method == "get" && said.role.is_some() && !matches!(said.answer, Answer::Bytes(_));
        let tagged = is_tagged.then_some(&IF_NONE_MATCH);
        let in_header = said.headers.iter().chain(tagged).map(|(name, means)| {
            json!({"name": name, "in": "header", "required": false, "description": means, "schema": {"type": "string"}})
        });
        let parameters: Vec<Value> = in_path.chain(in_query).chain(in_header).collect();
        let mut answer = json!({"description": "Done"});
        if let Some(content) = content(said.answer) {
            answer["content"] = content;
        }
        let problem = json!({
            "description": "A problem",
            "content": {"application/problem+json": {"schema": reference("Problem")}},
        });
        let mut operation = json!({"operationId": operation_id(said), "summary": said.summary});
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some((body, required)) = said.body {
            operation["requestBody"] =
                json!({"required": required, "content": {"application/json": {"schema": reference(body)}}});
        } else if said.path.starts_with("/hooks/") {
            operation["requestBody"] = json!({"content": {"*/*": {}}});
        }
        let mut responses = Map::new();
        for (status, means) in problems(said) {
            let mut response = json!({"description": means});
            match status {
                206 => response["content"] = answer["content"].clone(),
                400.. => response["content"] = problem["content"].clone(),
                _ => {}
            }
            responses.insert(status.to_string(), response);
        }
        responses.insert(said.status.to_string(), answer);
        responses.sort_keys();
        responses.insert("default".into(), problem);
        operation["responses"] = responses.into();
        match said.role {
            Some(role) => operation["x-role"] = json!(role),
            // A signature does as well.
            None if said.path.starts_with("/hooks/") => operation["security"] = json!([{"token": []}, {}]),
            None if said.path == "/metrics" => {}
            None => operation["security"] = json!([]),
        }
        operation
    }

    fn generate() -> Value {
        let mut paths = Map::new();
        for route in v1().into_iter().chain(outer()) {
            let methods = paths.entry(route.said.path.clone()).or_insert_with(|| json!({}));
            let known = methods.as_object_mut().unwrap().insert(route.said.method.into(), operation(&route.said));
            assert!(known.is_none() && !route.said.summary.is_empty(), "{} {}", route.said.method, route.said.path);
        }
        paths.sort_keys();
        let mut components = components();
        components.sort_keys();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "xene",
                "version": "v1",
                "description": "What people and programs see of a controller, and the few things they may ask of it. \
                                Desired state can't be written: commits do that.",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "security": [{"token": []}],
            "paths": paths,
            "components": {
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
                "schemas": components,
            },
        })
    }

    #[test]
    fn the_description_is_fresh() {
        let fresh = format!("{:#}\n", generate());
        if std::env::var_os("XENE_BLESS").is_some() {
            std::fs::write(PATH, &fresh).unwrap();
        }
        let kept = std::fs::read_to_string(PATH).unwrap_or_default();
        assert!(kept == fresh, "schemas/openapi.json is stale: XENE_BLESS=1 cargo test -p xene --lib openapi");
    }

    #[test]
    fn each_operation_has_an_id_of_its_own() {
        let ids: Vec<String> = v1().into_iter().chain(outer()).map(|route| operation_id(&route.said)).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
        for id in ["listRuns", "getRun", "getRunLogs", "postRunCancel", "getHealthz", "postHooksSource"] {
            assert!(ids.iter().any(|known| known == id), "{id}: {ids:?}");
        }
    }

    #[test]
    fn whatever_is_referred_to_is_there() {
        let document = generate();
        let (mut to_look_at, mut found) = (vec![&document], BTreeSet::new());
        while let Some(value) = to_look_at.pop() {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    to_look_at.extend(fields.values());
                }
                Value::Array(items) => to_look_at.extend(items),
                _ => {}
            }
        }
        assert!(found.len() > 30);
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
