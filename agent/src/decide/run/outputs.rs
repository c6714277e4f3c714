//! What the steps of a task publish: names, caps, and that later steps win.

use indexmap::IndexMap;
use xene_schemas::task::is_output_name;

use crate::decide::event::OutputsError;

/// Of one value, in bytes.
const VALUE_LIMIT: usize = 64 * 1024;
/// Of all names and values of a task together, in bytes.
const TASK_LIMIT: usize = 1024 * 1024;

/// What an attempt of a task has published so far.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    values: IndexMap<String, String>,
    bytes: usize,
}

/// Why an output is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Unusable(#[from] OutputsError),
    #[error("{0:?} is not the name of an output: a letter or _, then letters, digits, _ and -")]
    Name(String),
}

impl Outputs {
    /// Takes what a step published; gives the names that the task does not declare, which are dropped.
    ///
    /// What comes before a refused value is kept.
    pub(super) fn add(
        &mut self,
        published: Vec<(String, String)>,
        declared: Option<&[String]>,
    ) -> Result<Vec<String>, Refusal> {
        let mut undeclared = Vec::new();
        for (name, value) in published {
            if !is_output_name(&name) {
                return Err(Refusal::Name(name.chars().take(64).collect()));
            }
            if declared.is_some_and(|declared| !declared.contains(&name)) {
                undeclared.push(name);
                continue;
            }
            let too_large = |what, size: usize, limit: usize| {
                Refusal::Unusable(OutputsError::TooLarge { what, size: size as u64, limit: limit as u64 })
            };
            if value.len() > VALUE_LIMIT {
                return Err(too_large(format!("output {name}"), value.len(), VALUE_LIMIT));
            }
            let replaced = self.values.get(&name).map_or(0, |old| name.len() + old.len());
            let bytes = self.bytes - replaced + name.len() + value.len();
            if bytes > TASK_LIMIT {
                return Err(too_large("the sum of the task's outputs".into(), bytes, TASK_LIMIT));
            }
            self.bytes = bytes;
            self.values.insert(name, value);
        }
        Ok(undeclared)
    }

    pub(super) fn values(&self) -> &IndexMap<String, String> {
        &self.values
    }

    pub(super) fn into_values(self) -> IndexMap<String, String> {
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn later_values_win_and_undeclared_ones_are_named() {
        let mut outputs = Outputs::default();
        let declared = ["a".to_owned(), "b-2".to_owned()];
        assert_eq!(outputs.add(pairs(&[("a", "1"), ("x", "?"), ("b-2", "")]), Some(&declared)), Ok(vec!["x".into()]));
        assert_eq!(outputs.add(pairs(&[("a", "22")]), Some(&declared)), Ok(vec![]));
        assert_eq!(outputs.bytes, "a22".len() + "b-2".len());
        assert_eq!(outputs.into_values().into_iter().collect::<Vec<_>>(), pairs(&[("a", "22"), ("b-2", "")]));
    }

    #[test]
    fn names_are_identifiers() {
        for good in ["a", "_", "_a-b", "A1_"] {
            assert_eq!(Outputs::default().add(pairs(&[(good, "")]), None), Ok(vec![]), "{good}");
        }
        for bad in ["", "1a", "-a", "a b", "a.b", "ä"] {
            assert!(matches!(Outputs::default().add(pairs(&[(bad, "")]), None), Err(Refusal::Name(_))), "{bad}");
        }
    }

    #[test]
    fn caps_name_the_real_size() {
        let message = |result: Result<Vec<String>, Refusal>| result.unwrap_err().to_string();
        let mut outputs = Outputs::default();
        let full = "x".repeat(VALUE_LIMIT);
        assert_eq!(
            message(outputs.add(vec![("big".into(), full.clone() + "y")], None)),
            "output big is 65537 bytes, above the limit of 65536"
        );
        for i in 0..15 {
            assert_eq!(outputs.add(vec![(format!("n{i}"), full.clone())], None), Ok(vec![]));
        }
        assert_eq!(
            outputs.add(vec![("n0".into(), full.clone())], None),
            Ok(vec![]),
            "a replaced value does not count twice"
        );
        assert_eq!(
            message(outputs.add(vec![("last".into(), full)], None)),
            "the sum of the task's outputs is 1048615 bytes, above the limit of 1048576"
        );
    }
}
