//! Requests that nobody means: each operation that the API describes, with odd values in each of its places, answers as it
//! is described, and never that it failed. What is sent follows from a seed.

use std::{collections::BTreeSet, io::Read as _, time::Duration};

use serde_json::{Map, Value, json};
use ureq::{Agent, Body, http};
use xene_test_support::cluster::Cluster;

const SEED: u64 = 0x0b5e_55ed;
/// Requests to each operation.
const ROUNDS: usize = 40;
/// Longer than any address takes.
const HUGE: usize = 65 << 20;
/// A longer body may not be read where its head is refused.
const LONG: usize = 16 << 10;
/// What may come of any request, whatever it is for: an address that is no text or leads nowhere, too much at once.
const ANYWHERE: [u16; 3] = [400, 404, 429];

const ODD: &[&str] = &[
    "",
    " ",
    ".",
    "..",
    "...",
    "/",
    "//",
    "../../etc/passwd",
    "a/b",
    "%2e%2e%2f",
    "\0",
    "a\0b",
    "\n",
    "a\r\nx: y",
    "\t",
    "\u{7f}",
    "\u{feff}a",
    "\u{202e}abc",
    "é",
    "ｗ",
    "🦀",
    "\u{10ffff}",
    "-",
    "--",
    "-a",
    "a-",
    "_",
    "0",
    "1",
    "-1",
    "00",
    "0x10",
    "1.5",
    "1e999",
    "NaN",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "true",
    "TRUE",
    "null",
    "undefined",
    "[]",
    "{}",
    "[1",
    "=",
    "a=",
    "=b",
    "a=b",
    "a=b,c",
    "a==b",
    ",",
    ",,",
    "*",
    "?",
    "&",
    "#",
    "a#b",
    ";",
    "'",
    "\"",
    "\\",
    "`",
    "$(id)",
    "${x}",
    "{{x}}",
    "%",
    "%zz",
    "%s%n",
    "<script>",
    "0s",
    "1ms",
    "1h",
    "-1h",
    "30d",
    "99999999999999d",
    "18446744073709551615d",
    "h",
    "1h1h",
    "P1D",
    "2026-11-27T12:00:00Z",
    "2026-02-30T12:00:00Z",
    "2026-11-27T12:00:00+99:00",
    "9999-12-31T23:59:59.999Z",
    "-9999-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "HEAD",
    "HEAD~1",
    "main",
    "main..other",
    "-rf",
    "--upload-pack=x",
    "refs/heads/main",
    "0000000",
    "01m8991xq0000000000000000a",
    "7zzzzzzzzzzzzzzzzzzzzzzzzz",
    "8zzzzzzzzzzzzzzzzzzzzzzzzz",
    "workflow/w",
    "run/x",
    "agent/",
    "tokens",
    "admin",
    "text",
    "ndjson",
    "bytes=0-",
    "bytes=-1",
    "bytes=5-2",
    "bytes=0-0,2-3",
    "bytes=18446744073709551615-",
    "*",
    "\"x\"",
    "W/\"x\"",
];

/// What bodies hold that are no JSON, or not what is meant.
fn odd_bodies() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "",
        " ",
        "null",
        "true",
        "0",
        "-0",
        "1e999",
        "\"\"",
        "[]",
        "[null]",
        "{",
        "{}",
        "{}{}",
        "{\"a\":1}",
        "{\"\":null}",
        "nul",
        "\u{feff}{}",
        "{\"ttl\":1e999}",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "{\"name\":\"\\ud800\"}",
        "{\"for\":\"1h\",}",
        "'a'",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    all.extend([
        b"\xff\xfe".to_vec(),
        b"{\"a\":\"\xff\"}".to_vec(),
        vec![0; 64],
        vec![b'['; 100_000],
        "{\"a\":".repeat(100_000).into(),
    ]);
    all
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end as u64).unwrap()
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    fn odd(&mut self) -> String {
        match self.below(20) {
            0 => self.pick(ODD).repeat(300),
            1 => format!("{}{}", self.pick(ODD), self.pick(ODD)),
            _ => (*self.pick(ODD)).to_owned(),
        }
    }
}

/// What is there, so that not everything asks for what is not.
struct World {
    cluster: Cluster,
    agent: Agent,
    document: Value,
    run: String,
    revision: String,
}

impl World {
    fn new() -> Self {
        let mut cluster = Cluster::start(&[]);
        cluster.start_agent("a", &[]);
        let text = "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: w, labels: {a: b}}\nspec:\n  triggers: {push: {type: webhook}}\n  \
                    pipelines:\n    p:\n      triggers: push\n      params: {n: {type: integer, default: 1}}\n      tasks:\n        t: {steps: \
                    [{name: s, run: 'echo out; echo saved > out.txt'}], artifacts: {save: [out.txt]}}\n---\napiVersion: xene/v1\nkind: Notifier\n\
                    metadata: {name: chat}\nspec: {on: [AgentLost], slack: {credential: chat}}\n";
        cluster.repository.write("xene.d/w.yaml", text);
        let revision = cluster.commit("w");
        cluster.scheduled("w/p");
        let run = cluster.run(&["trigger", "w/p", "--wait"]).expect(0).stdout.trim().to_owned();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(60)));
        let agent: Agent = config.build().into();
        let document = agent.get(format!("{}/openapi.json", cluster.server())).call().unwrap().body_mut().read_json();
        Self { agent, document: document.unwrap(), run, revision, cluster }
    }

    /// A value that there is, by the name of its place.
    fn known(&self, path: &str, name: &str) -> Option<&str> {
        Some(match name {
            "name" if path.contains("/runs/") => &self.run,
            "name" if path.contains("/workflows/") => "w",
            "name" if path.contains("/agents") => "a",
            "name" if path.contains("/notifiers/") => "chat",
            "name" => "ci",
            "workflow" => "w",
            "pipeline" => "p",
            "trigger" => "push",
            "task" => "t",
            "step" => "s",
            "path" => "out.txt",
            "id" => "1",
            "agent" => "a",
            "rev" | "against" | "commit" | "revision" => &self.revision,
            "since" | "until" | "for" | "ttl" => "1h",
            "limit" | "tail" | "offset" | "n" => "3",
            "at" => "2026-11-27T12:00:00Z",
            "role" => "operator",
            "kinds" => "run,event",
            "labels" => "a=b",
            _ => return None,
        })
    }

    /// A value of this schema; now and then an odd one.
    fn value(&self, path: &str, name: &str, schema: &Value, dice: &mut Dice) -> Value {
        if dice.once_in(8) {
            return match dice.below(7) {
                0 => Value::Null,
                1 => json!([]),
                2 => json!({"a": {}}),
                3 => json!(dice.number()),
                4 => json!(-1.5e300),
                5 => json!(dice.once_in(2)),
                _ => json!(dice.odd()),
            };
        }
        if let Some(reference) = schema["$ref"].as_str() {
            return self.value(path, name, self.document.pointer(&reference[1..]).unwrap(), dice);
        }
        for several in ["anyOf", "oneOf"] {
            if let Some(all) = schema[several].as_array() {
                return self.value(path, name, dice.pick(all), dice);
            }
        }
        if let Some(all) = schema["enum"].as_array() {
            return dice.pick(all).clone();
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => dice.pick(kinds).as_str(),
            kind => kind.as_str(),
        };
        match kind {
            Some("object") => {
                let mut object = Map::new();
                let required = schema["required"].as_array().cloned().unwrap_or_default();
                for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
                    let is_left_out = if required.contains(&json!(field)) { dice.once_in(20) } else { dice.once_in(2) };
                    if !is_left_out {
                        object.insert(field.clone(), self.value(path, field, schema, dice));
                    }
                }
                if schema["additionalProperties"].is_object() && dice.once_in(2) {
                    let (key, schema) = (dice.odd(), &schema["additionalProperties"]);
                    object.insert(key, self.value(path, "", schema, dice));
                }
                Value::Object(object)
            }
            Some("array") => (0..dice.below(3)).map(|_| self.value(path, name, &schema["items"], dice)).collect(),
            Some("string") => {
                self.known(path, name).filter(|_| !dice.once_in(4)).map_or_else(|| json!(dice.odd()), Value::from)
            }
            Some("integer") => json!(*dice.pick(&[0, 1, 2, u64::from(u32::MAX), u64::MAX])),
            Some("boolean") => json!(dice.once_in(2)),
            _ => Value::Null,
        }
    }

    /// The text of a parameter.
    fn text(&self, path: &str, name: &str, schema: &Value, dice: &mut Dice) -> String {
        if dice.once_in(3) {
            return dice.odd();
        }
        if let Some(all) = schema["enum"].as_array() {
            return dice.pick(all).as_str().unwrap().to_owned();
        }
        self.known(path, name).map_or_else(|| dice.odd(), str::to_owned)
    }

    /// A request to an operation, and what it is for people.
    fn request(
        &self,
        method: &str,
        path: &str,
        operation: &Value,
        dice: &mut Dice,
    ) -> (http::Request<Vec<u8>>, String) {
        let (mut address, mut query, mut headers) = (path.to_owned(), Vec::new(), Vec::new());
        for param in operation["parameters"].as_array().into_iter().flatten() {
            let (name, place) = (param["name"].as_str().unwrap(), param["in"].as_str().unwrap());
            if place != "path" && dice.once_in(2) {
                continue;
            }
            let text = self.text(path, name, &param["schema"], dice);
            match place {
                "path" => address = address.replace(&format!("{{{name}}}"), &encode(&text, dice)),
                "query" => query.push(format!("{name}={}", encode(&text, dice))),
                _ => headers.push((name.to_owned(), text)),
            }
        }
        if dice.once_in(10) {
            query.push(format!("{}={}", encode(&dice.odd(), dice), encode(&dice.odd(), dice)));
        }
        let mut kind = "application/json".to_owned();
        let mut body = Vec::new();
        if let Some(taken) = operation.get("requestBody") {
            let schema = taken.pointer("/content/application~1json/schema").unwrap_or(&Value::Null);
            body = match dice.below(3) {
                0 => dice.pick(&odd_bodies()).clone(),
                _ => self.value(path, "", schema, dice).to_string().into_bytes(),
            };
            if dice.once_in(10) {
                kind =
                    (*dice.pick(&["", "text/plain", "application/json; charset=latin1", "multipart/form-data", "x"]))
                        .to_owned();
            }
        }
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let address = format!("{}{address}{query}", self.cluster.server());
        let mut request = http::Request::builder().method(&*method.to_uppercase()).uri(&address);
        let told = format!("{method} {address} {headers:?} {kind} {}", String::from_utf8_lossy(&body));
        for (name, value) in headers {
            if let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes()) {
                request = request.header(name, value);
            }
        }
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        request = request.header("authorization", format!("Bearer {}", self.cluster.token()));
        (request.body(body).unwrap(), told)
    }

    /// Sends it; what the answer breaks of what is said of the operation.
    fn answers(&self, request: http::Request<Vec<u8>>, operation: &Value) -> (u16, Option<String>) {
        let is_long = request.body().len() > LONG;
        let mut answer = match self.agent.run(request) {
            Ok(answer) => answer,
            // It was refused, and the connection closed, before all of it was sent.
            Err(_) if is_long => return (0, None),
            Err(error) => return (0, Some(format!("no answer: {error}"))),
        };
        let status = answer.status().as_u16();
        (status, self.wrong(status, &mut answer, operation))
    }

    fn wrong(&self, status: u16, answer: &mut http::Response<Body>, operation: &Value) -> Option<String> {
        let kind =
            answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        if status >= 500 {
            let mut text = String::new();
            let _ = answer.body_mut().as_reader().take(2_000).read_to_string(&mut text);
            return Some(format!("{status}: {text}"));
        }
        let said = &operation["responses"][status.to_string()];
        if said.is_null() && !ANYWHERE.contains(&status) {
            let text = answer.body_mut().read_to_string().unwrap_or_default();
            return Some(format!("{status} is not described: {text}"));
        }
        if status >= 400 {
            if kind != "application/problem+json" {
                return Some(format!("{status} comes as {kind:?}"));
            }
            let problem: Value = answer.body_mut().read_json().unwrap_or_default();
            let is_whole = problem["status"] == status
                && ["type", "title", "detail"].iter().all(|field| problem[field].is_string());
            return (!is_whole).then(|| format!("{status} with {problem}"));
        }
        // What comes is not read: it may go on for ever.
        match said["content"].as_object() {
            Some(content) => (!content.contains_key(kind)).then(|| format!("{status} comes as {kind:?}")),
            None => (!kind.is_empty()).then(|| format!("{status} comes as {kind:?}, and nothing is described")),
        }
    }
}

/// As part of an address; now and then as it is.
fn encode(text: &str, dice: &mut Dice) -> String {
    let is_raw = dice.once_in(4);
    let keep = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (is_raw && b"%=,:;@!$'()*+".contains(&byte))
    };
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[test]
fn whatever_is_asked_is_answered_as_described() {
    let world = World::new();
    let mut dice = Dice(SEED);
    let (mut wrong, mut statuses) = (Vec::new(), BTreeSet::new());
    let operations = || {
        let paths = world.document["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(move |(method, said)| (path, method, said))
        })
    };
    for (path, method, operation) in operations() {
        for _ in 0..ROUNDS {
            let (request, told) = world.request(method, path, operation, &mut dice);
            let (status, broken) = world.answers(request, operation);
            statuses.insert(status);
            wrong.extend(broken.map(|broken| format!("{}: {broken}", told.chars().take(600).collect::<String>())));
        }
    }
    // What no dice throws: more than is taken, nobody who asks, a method that is not there.
    for (path, method, operation) in operations() {
        let address = format!("{}{path}", world.cluster.server()).replace(['{', '}'], "");
        let request = |method: &str| http::Request::builder().method(&*method.to_uppercase()).uri(&address);
        let admin = format!("Bearer {}", world.cluster.token());
        let mut odd = vec![];
        if operation["security"] != json!([]) {
            odd.push(("nobody", request(method).body(Vec::new()).unwrap()));
        }
        if operation.pointer("/requestBody/content/application~1json").is_some() {
            let request = request(method).header("authorization", &admin).header("content-type", "application/json");
            odd.push(("huge", request.body(vec![b' '; HUGE]).unwrap()));
        }
        for (what, request) in odd {
            let (status, broken) = world.answers(request, operation);
            let expected = match what {
                "nobody" => status == 401 || operation["x-role"].is_null(),
                _ => status == 413 || status == 0,
            };
            if !expected || broken.is_some() {
                wrong.push(format!("{method} {path}, {what}: {status} {broken:?}"));
            }
        }
        let methods = &world.document["paths"][path];
        if methods.get("put").is_none() {
            let answer =
                world.agent.run(request("put").header("authorization", &admin).body(Vec::new()).unwrap()).unwrap();
            if answer.status() != 405 {
                wrong.push(format!("put {path}: {}", answer.status()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of seed {SEED:#x}:\n{}", wrong.len(), wrong.join("\n"));
    for status in [200, 201, 202, 204, 304, 400, 404, 409, 415] {
        assert!(
            statuses.contains(&status),
            "{status} is not among {statuses:?}: what is sent is too odd, or not odd enough"
        );
    }
    let health = world.agent.get(format!("{}/readyz", world.cluster.server())).call().unwrap();
    assert_eq!(health.status(), 200, "it goes on");
    let said = world.cluster.controller.as_ref().unwrap().output();
    assert!(!said.contains("panicked"), "{said}");
}
