//! Rules broken: what people then see. Every one is broken on its page in `docs/reference/diagnostics/`.
//!
//! The expected texts are written by `UPDATE_EXPECT=1 cargo test`, and read by a person.

use expect_test::Expect;

use super::{render::render, validate};

mod cases;
mod documents;
mod example;
mod expressions;
mod files;
mod legacy;
mod limits;
mod matrices;
mod pages;
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

/// Both readers give the same of what is right: the one for explanations must not see mistakes of its own.
#[test]
fn the_second_reader_agrees_with_the_first() {
    let mut texts = vec![include_str!("../../schemas/tests/every-field.yaml").to_owned()];
    for rule in super::rules::ALL {
        let examples = example::examples(rule.page).into_iter();
        texts.extend(examples.filter(|e| e.language == example::Language::Yaml && !e.is_wrong).map(|e| e.text));
    }
    let (mut count, nothing) = (0, std::collections::HashSet::new());
    for text in texts {
        let Ok(first) = serde_yaml::from_str::<xene_schemas::workflow::Workflow>(&text) else { continue };
        let outline = super::outline::Outline::read(&text).unwrap();
        assert_eq!(super::reread::read(&outline, &nothing).ok(), Some(first), "{text}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}
