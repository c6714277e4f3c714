//! Any text as an expression, over any JSON: an answer, no panic, in bounds. The JSON stands after a line of `---`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xene_agent::expr::{Expr, ExprErrorKind, Scope, TEXT_LIMIT, Value};

fuzz_target!(|text: &str| {
    let (text, data) = text.split_once("\n---\n").unwrap_or((text, "null"));
    let expr = match Expr::parse(text) {
        Ok(expr) => expr,
        Err(error) => {
            assert!(!matches!(error.kind, ExprErrorKind::Value | ExprErrorKind::TooCostly), "{error}");
            assert!(error.offset.is_none_or(|offset| offset <= text.len()), "{error:?}");
            return;
        }
    };
    assert!(text.len() <= TEXT_LIMIT);
    let data = serde_json::from_str(data).unwrap_or_default();
    let Ok(data) = Value::from_json(&data) else { return };
    match expr.eval(&Scope::new().with("params", data.clone()).with("payload", data)) {
        Ok(value) => drop(value.to_text()),
        Err(error) => assert!(matches!(error.kind, ExprErrorKind::Value | ExprErrorKind::TooCostly), "{error}"),
    }
});
