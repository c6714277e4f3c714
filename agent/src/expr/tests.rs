//! Expressions: values, limits, and what hostile ones cost.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn scope(variables: &serde_json::Value) -> Scope {
    let mut scope = Scope::new();
    for (name, value) in variables.as_object().unwrap() {
        scope = scope.with(name.clone().leak(), Value::from_json(value).unwrap());
    }
    scope
}

fn sample() -> serde_json::Value {
    json!({
        "n": 7, "d": 2.5, "s": "refs/heads/main", "t": true, "l": [3, 1, 2], "e": [],
        "m": {"a": 1, "b": "x", "c-d": null}, "big": 9_223_372_036_854_775_807_i64,
    })
}

fn eval(text: &str) -> Result<Value, String> {
    let expr = Expr::parse(text).map_err(|error| error.to_string())?;
    expr.eval(&scope(&sample())).map_err(|error| error.to_string())
}

fn shown(text: &str) -> String {
    match eval(text) {
        Ok(value) => value.to_text().unwrap_or_else(|error| format!("text: {error}")),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn values_are_those_of_cel() {
    for (text, value) in [
        ("1 + 2 * 3", "7"),
        ("-7 / 2", "-3"),
        ("-7 % 2", "-1"),
        ("7 - 2 - 1", "4"),
        ("1.5 + 1.0", "2.5"),
        ("'a' + \"b\" + r'\\n' + '''c'''", "ab\\nc"),
        ("[1, 'a', true, null, {'k': [2.5]}]", r#"[1,"a",true,null,{"k":[2.5]}]"#),
        ("s.startsWith('refs/') && !s.endsWith('/')", "true"),
        ("s.split('/')[2]", "main"),
        ("s.replace('refs/heads/', '')", "main"),
        ("s.matches('^refs/(heads|tags)/')", "true"),
        ("matches(s, 'main$') ? 'yes' : 'no'", "yes"),
        ("size('äöü') + size(l) + m.size()", "9"),
        ("l.filter(x, x > 1).map(x, x * 10)", "[30,20]"),
        ("l.map(x, x > 1, string(x)).join('+')", "3+2"),
        ("l.exists(x, x == 2) && l.all(x, x < 4) && l.exists_one(x, x > 2)", "true"),
        ("e.all(x, false) && !e.exists(x, true)", "true"),
        ("m.exists(k, k == 'c-d')", "true"),
        ("'a' in m && 2 in l && !('z' in m) && !(1 in m) && !(true in m)", "true"),
        ("has(m.a) && !has(m.z)", "true"),
        ("has(m['c-d'])", "true"),
        ("m['a'] == 1 && m.a == 1.0 && 1 != '1'", "true"),
        ("has(m.z) && m.z > 1", "false"),
        ("m.z > 1 && has(m.z)", "false"),
        ("true || m.z", "true"),
        ("int('42') + int(2.9) + int(-2.9)", "42"),
        ("double('1.5') * double(2)", "3"),
        ("bool('true')", "true"),
        ("string(1.5) + string(true)", "1.5true"),
        ("' A b '.trim().lowerAscii().upperAscii()", "A B"),
        ("big == 9223372036854775807 && big < 9223372036854775808.0", "true"),
        ("n /* no */ == 7", "error: `*` is not expected here"),
        ("n == 7 // said twice", "true"),
    ] {
        assert_eq!(shown(text), value, "{text}");
    }
}

#[test]
fn mistakes_are_sentences_with_a_place() {
    let place = |text: &str| {
        let error = match Expr::parse(text) {
            Ok(expr) => expr.eval(&scope(&sample())).unwrap_err(),
            Err(error) => error,
        };
        let place = error.line_column(text).map_or_else(|| "-".into(), |(line, column)| format!("{line}:{column}"));
        format!("{place} {error}")
    };
    for (text, expected) in [
        ("", "1:1 the expression is empty"),
        ("  // nothing", "1:1 the expression is empty"),
        ("n ==", "1:5 the expression ends too early"),
        ("n = 7", "1:3 `=` does not compare; write `==`"),
        ("n == 7 and t", "1:8 `and` is not expected here"),
        ("t & t", "1:3 `&` is not known; write `&&` for and"),
        ("(n == 7", "1:1 `(` is not closed"),
        ("n == 7)", "1:7 `)` has no `(` before it"),
        ("[n)", "1:3 `)` does not close `[`"),
        ("s == 'main", "1:6 the quotes that open here are not closed"),
        ("${{ n }}", "1:1 `$` is not known; an expression stands by itself, without ${{ }}"),
        ("n == 7\n  && ö", "2:6 `ö` is not known outside of quotes"),
        ("if == 1", "1:1 `if` is a reserved word"),
        ("n == 99999999999999999999", "1:6 this whole number does not fit 64 bits"),
        ("s == '\\q'", "1:6 this text has an escape that can't be read; write \\\\ for a backslash"),
        ("startsWith(s, 'r')", "1:11 startsWith is called like this: text.startsWith(\"beginning\")"),
        ("s.startWith('r')", "1:12 there is no function startWith"),
        ("s.matches(s)", "1:11 the pattern of matches has to be written out, in quotes"),
        ("s.matches('(')", "1:11 the pattern can't be read: unclosed group"),
        (
            "l.map(x, l.map(y, y))",
            "1:15 a list is gone through within going through another; only one at a time is allowed",
        ),
        ("l.all(1, t)", "1:6 the first of its arguments names the element, as in all(x, x > 1)"),
        ("1u + 1", "1:1 write the number without u; all are signed here"),
        ("Thing{a: 1}", "1:6 there is no type Thing to make a value of"),
        ("no + 1", "1:1 there is no no here"),
        ("m.z", "1:1 there is no key \"z\"; has(…) asks whether there is one"),
        ("'ä' == s + 'ö' || s + n", "1:19 `+` does not take text and a whole number; string(…) makes text"),
        (
            "n + d",
            "1:1 `+` does not take a whole number and a number with a fraction; double(…) makes one of the other",
        ),
        ("s < n", "1:1 `<` does not take text and a whole number"),
        ("s && t", "1:1 a side of `&&` is text, not true or false"),
        ("l in m", "1:1 a list is no key of a map"),
        ("l[3]", "1:1 the list has no element 3; it has 3, from 0"),
        ("n / 0", "1:1 a whole number can't be divided by 0"),
        ("big + 1", "1:1 the result does not fit a whole number of 64 bits"),
        ("int(s)", "1:4 \"refs/heads/main\" is not a whole number"),
        ("{'a': 1, 'a': 2}", "1:10 the map has the key \"a\" twice"),
    ] {
        assert_eq!(place(text), expected, "{text}");
    }
}

#[test]
fn a_condition_is_true_or_false() {
    let expr = Expr::parse("n").unwrap();
    let error = expr.eval_bool(&scope(&sample())).unwrap_err();
    assert_eq!(error.to_string(), "it gives a whole number, not true or false");
    assert_eq!(shown("m['c-d']"), "text: it gives null, where text is needed");
}

#[test]
fn paths_name_what_is_read() {
    let paths = |text: &str| -> Vec<String> {
        let flags = |path: &Path| format!("{}{}", if path.asked { "?" } else { "" }, if path.open { "*" } else { "" });
        Expr::parse(text).unwrap().paths().iter().map(|path| path.segments.join(".") + &flags(path)).collect()
    };
    assert_eq!(paths("params.x == 1 && tasks['a.b'].outputs.tag != ''"), ["params.x", "tasks.a.b.outputs.tag"]);
    assert_eq!(paths("tasks[params.which].phase"), ["tasks*", "params.which"]);
    assert_eq!(paths("has(tasks.a.outputs.b) ? tasks.a.phase : 'x'"), ["tasks.a.outputs.b?", "tasks.a.phase"]);
    assert_eq!(paths("trigger.payload.list.exists(p, p.x == params.y)"), ["trigger.payload.list", "params.y"]);
    assert_eq!(paths("{'a': l}[m] + [n][0] + size(s)"), ["l", "m", "n", "s"]);
}

/// Each of these is refused, or evaluated within bounds; a debug build is slower, so the bound here is wide.
#[test]
fn hostile_texts_and_data_are_bounded() {
    let numbers: Vec<i64> = (0..90_000).collect();
    let data = json!({
        "l": numbers, "s": "a".repeat(1 << 20), "m": {"x": "y".repeat(1 << 20)},
        "words": vec!["a".repeat(1_000); 500],
    });
    let scope = scope(&data);
    let many = |part: &str, count: usize| vec![part; count].join(" + ");
    let texts = [
        "(".repeat(4_000),
        format!("{}1{}", "(".repeat(33), ")".repeat(33)),
        format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000)),
        "!".repeat(900) + "true",
        "-".repeat(900) + "1",
        "[".repeat(30) + &"]".repeat(30),
        "a.".repeat(499) + "a",
        "a[0]".repeat(200),
        "a ? b : ".repeat(100) + "c",
        many("1", 2_000),
        many("1", 499),
        many("1", 90),
        vec!["true"; 499].join(" || "),
        vec!["m.z"; 300].join(" || "),
        "l.map(x, l.map(y, l.map(z, x * y * z)))".into(),
        "l.map(x, l)".into(),
        "l.map(x, s + s)".into(),
        "l.map(x, s)".into(),
        "l.map(x, [s, s, s, m])".into(),
        "words.all(x, s.contains(x + 'b'))".into(),
        "words.map(x, x.replace('a', s))".into(),
        "words.exists(x, x.matches('^(a|aa|aaa|a*)*b$'))".into(),
        "s.matches('(a?){200}a{200}b')".into(),
        "s.matches('((a{100}){100}){100}')".into(),
        "s.split('').map(x, x + x).join('')".into(),
        "s.replace('', s)".into(),
        "l == l && l == l && l == l".into(),
        "l.all(x, x in l)".into(),
        "l + l + l + l + l + l + l + l".into(),
        format!("[{}]", vec!["s"; 400].join(",")),
        format!("{{{}}}", (0..200).map(|i| format!("'k{i}': s")).collect::<Vec<_>>().join(",")),
        "'".repeat(4_096),
        "\"\"\"".repeat(1_365),
        "a".repeat(4_096),
        "a b ".repeat(249),
        "x(".repeat(31) + &")".repeat(31),
        "{".repeat(32) + &"}".repeat(32),
        "\u{0}".into(),
        "a.\u{301}b".into(),
        "日本語 == '日本語'".into(),
    ];
    for text in texts {
        let start = now();
        if let Ok(expr) = Expr::parse(&text)
            && let Ok(value) = expr.eval(&scope)
        {
            let _ = value.to_text().map_err(|error| assert!(error.to_string().len() < 200));
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}: {}", text.chars().take(60).collect::<String>());
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn data_is_bounded() {
    let many = serde_json::Value::Array(vec![json!(1); 100_000]);
    assert_eq!(Value::from_json(&many).unwrap_err().to_string(), "the data holds more than 100000 values");
    let mut deep = json!(1);
    for _ in 0..70 {
        deep = json!([deep]);
    }
    let message = Value::from_json(&deep).unwrap_err().to_string();
    assert_eq!(message, "lists and maps of the data stand more than 64 deep in each other");
    assert_eq!(Value::from_json(&json!(u64::MAX)), Ok(Value::Double(u64::MAX as f64)));
    let long = Value::from("x".repeat(70_000));
    assert_eq!(long.to_text().unwrap_err().to_string(), "it gives more than 65536 bytes of text");
    let shared = Value::List(vec![long; 100_000].into());
    assert!(shared.to_text().is_err());
}

/// Texts that a person could have typed badly: signs and words in any order.
fn scrambled() -> impl Strategy<Value = String> {
    let words = [
        "n",
        "s",
        "l",
        "m",
        "t",
        "x",
        "1",
        "0",
        "2.5",
        "1u",
        "'a'",
        "\"b\"",
        "r'\\'",
        "b'x'",
        "true",
        "null",
        "in",
        "if",
        "has",
        "all",
        "map",
        "size",
        "matches",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ".",
        ",",
        ":",
        "?",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "&&",
        "||",
        " ",
        "\n",
        "//",
        "'",
        "\"",
        "'''",
        "\\",
        "ä",
        "\u{0}",
        "`",
        "@",
        "0x",
        "1e",
        ".5",
        "l.all(x, ",
        "m['a']",
        "(n)",
        "s.split('/')",
    ];
    proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..40).prop_map(|words| words.concat())
}

/// Expressions within what both engines know, most of them of types that fit.
fn sensible() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("n".to_owned()),
        Just("s".to_owned()),
        Just("t".to_owned()),
        Just("d".to_owned()),
        Just("l".to_owned()),
        Just("m".to_owned()),
        Just("m.a".to_owned()),
        Just("m.z".to_owned()),
        Just("l[1]".to_owned()),
        Just("'main'".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        (-3_i64..10).prop_map(|n| n.to_string()),
        (-2_i64..3).prop_map(|n| format!("{n}.5")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let operator = proptest::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in",
        ]);
        let each = proptest::sample::select(vec!["all", "exists", "exists_one", "filter", "map"]);
        let method = proptest::sample::select(vec!["contains", "startsWith", "endsWith"]);
        let plain = proptest::sample::select(vec!["size", "string", "int", "double"]);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone()).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            1 => inner.clone().prop_map(|a| format!("!{a}")),
            1 => inner.clone().prop_map(|a| format!("-({a})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            1 => (each, inner.clone()).prop_map(|(e, a)| format!("l.{e}(n, {a})").replace(".filter(n, l.", ".filter(n, n.")),
            1 => (inner.clone(), method, inner.clone()).prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
            1 => (plain, inner).prop_map(|(f, a)| format!("{f}({a})")),
            1 => Just("has(m.a)".to_owned()),
        ]
    })
}

/// The same value, as the crate's own interpreter has it.
fn theirs(value: &serde_json::Value) -> cel::Value {
    match value {
        serde_json::Value::Null => cel::Value::Null,
        serde_json::Value::Bool(truth) => cel::Value::Bool(*truth),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => cel::Value::Int(number),
            None => cel::Value::Float(number.as_f64().unwrap()),
        },
        serde_json::Value::String(text) => text.as_str().into(),
        serde_json::Value::Array(list) => cel::Value::List(list.iter().map(theirs).collect::<Vec<_>>().into()),
        serde_json::Value::Object(map) => {
            map.iter().map(|(key, value)| (key.as_str(), theirs(value))).collect::<HashMap<_, _>>().into()
        }
    }
}

fn as_theirs(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(truth) => cel::Value::Bool(*truth),
        Value::Int(number) => cel::Value::Int(*number),
        Value::Double(number) => cel::Value::Float(*number),
        Value::String(text) => (&**text).into(),
        Value::List(list) => cel::Value::List(list.iter().map(as_theirs).collect::<Vec<_>>().into()),
        Value::Map(map) => {
            map.iter().map(|(key, value)| (key.as_str(), as_theirs(value))).collect::<HashMap<_, _>>().into()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = Expr::parse(&text).map_err(|error| error.line_column(&text));
    }

    #[test]
    fn scrambled_words_never_panic(text in scrambled()) {
        match Expr::parse(&text) {
            Ok(expr) => _ = expr.eval(&scope(&sample())),
            Err(error) => prop_assert!(error.offset.is_none_or(|at| text.is_char_boundary(at)), "{error:?}"),
        }
    }

    /// The crate's interpreter is the oracle: same value, or no value in both.
    #[test]
    fn values_agree_with_the_crate(text in sensible()) {
        let Ok(expr) = Expr::parse(&text) else { return Ok(()) };
        let ours = expr.eval(&scope(&sample()));
        let mut context = cel::Context::default();
        for (name, value) in sample().as_object().unwrap() {
            context.add_variable_from_value(name.as_str(), theirs(value));
        }
        let program = cel::Program::compile(&text).unwrap();
        match (ours, program.execute(&context)) {
            (Ok(ours), Ok(value)) => {
                let ours = as_theirs(&ours);
                let both_nan = matches!((&ours, &value), (cel::Value::Float(a), cel::Value::Float(b)) if a.is_nan() && b.is_nan());
                prop_assert!(both_nan || ours == value, "{text}: {ours:?} {value:?}");
            }
            (Err(_), Err(_)) => {}
            (ours, value) => prop_assert!(false, "{text}: {ours:?} {value:?}"),
        }
    }
}

#[test]
fn what_the_fuzzer_found_once_gives_an_answer() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/cel");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let (text, data) = text.split_once("\n---\n").unwrap_or((&text, "null"));
        let data = Value::from_json(&serde_json::from_str(data).unwrap_or_default()).unwrap_or(Value::Null);
        if let Ok(expr) = Expr::parse(text) {
            let _ = expr
                .eval(&Scope::new().with("params", data.clone()).with("payload", data))
                .map(|value| value.to_text());
        }
        count += 1;
    }
    assert!(count > 4, "{count}");
}
