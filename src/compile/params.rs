//! Params of a run: what is declared, laid over each other, and what is given, checked.

use indexmap::IndexMap;
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
        match param.check(name, &value) {
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
