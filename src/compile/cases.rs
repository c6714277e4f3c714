//! Documents of workflow tests: where their parts stand, and how they fit the workflow that they name.

use xene_schemas::{diagnostic::Diagnostic, workflow_test::WorkflowTest};

use super::{
    outline::Outline,
    parse::{Chunk, placed},
    path::Segment,
    rules::{Problem, cases},
};
use crate::decide::desired::WorkflowBody;

/// A document of workflow tests.
#[derive(Debug)]
pub struct TestDocument {
    /// Its file.
    pub path: String,
    /// Where it begins, from 1.
    pub line: u32,
    /// What it says.
    pub test: WorkflowTest,
    outline: Option<Outline>,
    lines_before: u32,
}

impl TestDocument {
    pub(super) fn new(path: &str, line: u32, test: WorkflowTest, outline: Option<Outline>, chunk: Chunk<'_>) -> Self {
        Self { path: path.into(), line, test, outline, lines_before: chunk.lines_before }
    }

    /// Line and column, from 1, of the value at `path` or of the nearest thing around it; with `at_key`, of its key.
    pub fn locate(&self, path: &[Segment], at_key: bool) -> (u32, u32) {
        let place = self.outline.as_ref().and_then(|outline| outline.locate(path, at_key));
        place.map_or((self.line, 1), |place| (place.line + self.lines_before, place.column))
    }

    /// What is wrong with it by itself, or with `workflow` what does not fit that.
    pub(super) fn check(&self, workflow: Option<&WorkflowBody>) -> Vec<Diagnostic> {
        let problems = match workflow {
            Some(workflow) => cases::check_against(&self.test, workflow),
            None => cases::check(&self.test),
        };
        problems.into_iter().map(|problem| self.place(problem)).collect()
    }

    /// There is no such workflow.
    pub(super) fn without_workflow(&self) -> Diagnostic {
        self.place(cases::unknown_workflow(&self.test))
    }

    fn place(&self, problem: Problem) -> Diagnostic {
        let chunk = Chunk { text: "", lines_before: self.lines_before };
        placed(&self.path, &chunk, self.line, self.outline.as_ref(), problem)
    }
}
