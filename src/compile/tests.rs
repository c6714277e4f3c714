//! Every rule broken once: what people then see.
//!
//! The expected texts are written by `UPDATE_EXPECT=1 cargo test`, and read by a person.

use expect_test::Expect;

use super::{render::render, rules, validate};

mod cases;
mod documents;
mod limits;
mod shared;
mod values;
mod workflows;

#[expect(clippy::needless_pass_by_value, reason = "as `expect!` is written at the place of use")]
fn check_file(path: &str, text: &[u8], expected: Expect) {
    let (_, problems) = validate(&[(path.to_owned(), text.to_vec())]);
    let text = std::str::from_utf8(text).ok();
    let shown: Vec<String> = problems.iter().map(|problem| render(problem, text)).collect();
    expected.assert_eq(&shown.join("\n"));
}

fn check(text: &str, expected: Expect) {
    check_file("a.yaml", text.as_bytes(), expected);
}

#[test]
fn every_rule_has_an_example() {
    let here = [
        include_str!("tests/cases.rs"),
        include_str!("tests/documents.rs"),
        include_str!("tests/workflows.rs"),
        include_str!("tests/values.rs"),
        include_str!("tests/limits.rs"),
        include_str!("tests/shared.rs"),
        include_str!("catalog/tests.rs"),
    ];
    let here = here.concat();
    let mut last = "";
    for rule in rules::ALL {
        assert!(here.contains(&format!("[{}]", rule.code)), "{}: {} has no example", rule.code, rule.title);
        assert!(last < rule.code, "the table is not in order at {}", rule.code);
        last = rule.code;
    }
}
