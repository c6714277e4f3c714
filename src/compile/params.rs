//! Params of a run: what is declared, laid over each other, and what is given, checked.

use indexmap::IndexMap;
use regex::{Regex, RegexBuilder};
use xene_schemas::{
    map::UniqueMap,
    param::{Param, ParamError},
};

/// The values of a run: those given, and defaults for the rest, in the order of the declaration.
///
/// # Errors
/// With every value that is not as declared, every one that is missing, every one that nobody declared.
pub fn resolve(
    declared: &UniqueMap<String, Param>,
    given: &IndexMap<String, String>,
) -> Result<IndexMap<String, String>, Vec<ParamError>> {
    let (mut values, mut errors) = (IndexMap::new(), Vec::new());
    for (name, param) in declared {
        let value = match (given.get(name), &param.default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => default.to_string(),
            (None, None) if param.required => {
                errors.push(ParamError::Missing(name.clone()));
                continue;
            }
            (None, None) => continue,
        };
        match check_value(name, param, &value) {
            Ok(()) => drop(values.insert(name.clone(), value)),
            Err(error) => errors.push(error),
        }
    }
    for name in given.keys().filter(|name| !declared.contains_key(*name)) {
        let known = declared.keys().map(String::as_str).collect::<Vec<_>>();
        let declared = if known.is_empty() { "none".into() } else { known.join(", ") };
        errors.push(ParamError::Unknown { name: name.clone(), declared });
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

/// Checks one value given as text against all that its declaration says.
///
/// # Errors
/// If it does not fit. A pattern that can't be used lets nothing through.
pub fn check_value(name: &str, param: &Param, value: &str) -> Result<(), ParamError> {
    param.check(name, value)?;
    // Neither an environment nor an argument can hold one.
    if value.contains('\0') {
        let value = value.chars().take(200).collect();
        return Err(ParamError::Type { name: name.into(), expected: "text without NUL characters".into(), value });
    }
    let Some(pattern) = &param.pattern else { return Ok(()) };
    if Pattern::new(pattern).is_ok_and(|compiled| compiled.matches(value)) {
        return Ok(());
    }
    let value = value.chars().take(200).collect();
    Err(ParamError::Pattern { name: name.into(), pattern: pattern.clone(), value })
}

/// The `pattern` of a param.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// The compiled pattern's size in bytes. At worst the engine goes through all of it for each byte of a value.
    const SIZE: usize = 256 * 1024;
    /// The longest value that is compared, in bytes.
    const VALUE: usize = 4 * 1024;

    /// Compiles it, or says in a sentence why that can't be done.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let build = |text: &str| RegexBuilder::new(text).size_limit(Self::SIZE).nest_limit(50).build();
        // By itself first: `a)|(b` is one only between other brackets.
        build(pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z"))).map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large; repeat less often".into(),
            // The last line of the library's text says what is wrong; those before it draw where.
            error => {
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("the pattern can't be read: {why}")
            }
        })
    }

    fn matches(&self, value: &str) -> bool {
        value.len() <= Self::VALUE && self.0.is_match(value)
    }
}

/// The workflow's params, overlaid by the pipeline's.
pub fn overlay(workflow: &UniqueMap<String, Param>, pipeline: &UniqueMap<String, Param>) -> UniqueMap<String, Param> {
    let mut params = workflow.clone().into_inner();
    params.extend(pipeline.iter().map(|(name, param)| (name.clone(), param.clone())));
    params.into()
}

/// The variable that steps see a param as.
pub(super) fn env_name(param: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("XENE_PARAM_{}", param.chars().map(letter).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> UniqueMap<String, Param> {
        serde_yaml::from_str(
            "who: {required: true}\nlevel: {type: integer, default: 3}\nnote: {}\nsize: {type: choice, choices: [s, m]}",
        )
        .unwrap()
    }

    fn given(pairs: &[(&str, &str)]) -> IndexMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn defaults_fill_what_is_not_given() {
        let values = resolve(&declared(), &given(&[("size", "m"), ("who", "me")])).unwrap();
        assert_eq!(values, given(&[("who", "me"), ("level", "3"), ("size", "m")]));
        assert_eq!(values.keys().collect::<Vec<_>>(), ["who", "level", "size"], "in declared order");
    }

    #[test]
    fn a_pattern_matches_the_whole_text() {
        let param = |pattern: &str| Param { pattern: Some(pattern.into()), ..serde_yaml::from_str("{}").unwrap() };
        for (pattern, value, fits) in [
            ("[a-z]+", "main", true),
            ("[a-z]+", "main; touch x", false),
            ("a|b", "ab", false),
            ("^v[0-9]+$", "v12", true),
            ("^v[0-9]+$", "v12\n", false),
            ("(?m)^v$", "v\n$(touch x)", false),
            (".*", "a\nb", false),
            ("", "", true),
            ("a*", &"a".repeat(5_000), false),
            ("(", "(", false),
        ] {
            assert_eq!(check_value("p", &param(pattern), value).is_ok(), fits, "{pattern} {value:?}");
        }
        let error = check_value("p", &param("[a-z]+"), "A").unwrap_err();
        assert_eq!(error.to_string(), "param p takes text that matches [a-z]+, not \"A\"");
        for bad in ["(", "a)|(b", "(a{1000}){1000}", &"(".repeat(200)] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_no_environment_can_hold_is_refused() {
        let errors = resolve(&declared(), &given(&[("who", "a\0b")])).unwrap_err();
        assert_eq!(errors[0].to_string(), "param who takes text without NUL characters, not \"a\\0b\"");
        assert!(resolve(&declared(), &given(&[("who", "a\tb\u{1}")])).is_ok());
    }

    #[test]
    fn every_error_is_told_at_once() {
        let errors = resolve(&declared(), &given(&[("level", "x"), ("size", "xl"), ("sise", "s")])).unwrap_err();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "param who is required",
                "param level takes a whole number, not \"x\"",
                "param size takes one of s, m, not \"xl\"",
                "there is no param sise; declared are: who, level, note, size",
            ]
        );
    }
}
