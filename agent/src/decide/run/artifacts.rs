//! Artifacts of a run: saved when a task's steps have succeeded, laid into the workspace of later ones before their first.

use xene_schemas::run::Artifact;

use super::{Now, Output, Reason, RunMachine, StepCommand, task::State};
use crate::decide::event::{ExitStatus, Program};

impl RunMachine {
    /// The patterns of what a task saves, if it saves anything.
    pub(super) fn saves(&self, task: usize) -> Option<Vec<String>> {
        let artifacts = self.spec_of(task).artifacts.as_ref()?;
        (!artifacts.save.is_empty()).then(|| artifacts.save.clone())
    }

    /// What the first step of a task's attempt finds beside what was there: artifacts of tasks in other contexts.
    pub(super) fn artifacts_for(&self, task: usize) -> Vec<Artifact> {
        let State::Running(attempt) = &self.states[task] else { return Vec::new() };
        let Some(artifacts) = self.spec_of(task).artifacts.as_ref().filter(|_| !attempt.has_begun()) else {
            return Vec::new();
        };
        // Of a matrix all instances.
        let from = artifacts.from.iter().filter_map(|name| self.tasks.of_name(name.as_str()));
        let from = from.flat_map(|of| self.tasks.members(of).0);
        // In the same context they lie there already.
        let elsewhere = from.filter(|from| self.context_of(*from) != self.context_of(task));
        elsewhere.filter_map(|from| self.artifacts.get(&from)).flatten().cloned().collect()
    }

    /// All steps have succeeded: what the task saves is saved, as if by one more step.
    pub(super) fn save_artifacts(&mut self, task: usize, patterns: Vec<String>) {
        let State::Running(attempt) = &self.states[task] else { return };
        let command = StepCommand {
            id: self.step_id(task, attempt),
            pipeline: self.pipeline.key.clone(),
            step_name: "artifacts".into(),
            program: Program::Save(patterns),
            env: Vec::new(),
            context: self.context_of(task),
            working_dir: None,
            payload: None,
            files: [].into(),
            artifacts: Vec::new(),
            exclusive: false,
        };
        self.out.push(Output::Spawn(Box::new(command)));
        self.process_runs(task);
    }

    /// The executor is done with that.
    pub(super) fn artifacts_saved(&mut self, now: Now, task: usize, status: ExitStatus) {
        let why = match status {
            ExitStatus::Saved(artifacts) => {
                self.artifacts.insert(task, artifacts);
                None
            }
            ExitStatus::NotSaved(why) | ExitStatus::StartFailed(why) => Some(why),
            ExitStatus::Code(_) | ExitStatus::Signal(_) | ExitStatus::Lost => Some("it was interrupted".into()),
        };
        self.end_attempt_saved(now, task, why.map(|why| (Reason::ARTIFACTS_NOT_SAVED, why)));
    }
}
