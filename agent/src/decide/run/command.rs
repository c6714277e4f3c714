//! The process of a step: its program, its variables, and where it runs.

use xene_schemas::step::{Run, Shell};

use super::{
    Reason, RunMachine, StepCommand, StepId,
    environment::{Place, Sources},
};
use crate::decide::event::Program;

impl RunMachine {
    /// The process of a step; or a sentence that says why it can't be had, and the reason in a word.
    pub(super) fn command(&self, task: usize, id: StepId) -> Result<StepCommand, (Reason, String)> {
        let invalid = |message: &str| (Reason::SPEC_INVALID, message.to_owned());
        let spec = self.spec_of(task);
        let step = spec.steps.get(id.step).ok_or_else(|| invalid("there is no such step"))?;
        let step_name = step.name_at(id.step);
        let mut handed = Vec::new();
        for (from, connector) in self.dag.connectors(task, &self.pipeline.spec) {
            let from = self.tasks.name_of_file(from);
            for (variable, name) in &connector.outputs {
                let value = self.output(from, name).map_err(|message| (Reason::SPEC_INVALID, message))?;
                handed.extend(value.map(|value| (variable.as_str(), value)));
            }
        }
        let sources = Sources {
            output: &|task, name| self.output(task, name),
            expr: &|text| self.evaluate(text, task, None)?.to_text().map_err(|error| error.to_string()),
        };
        let env = self.environment.of_step(
            Place {
                task: self.tasks.name(task),
                step: &step_name,
                attempt: id.attempt,
                combination: self.tasks.combination(task),
            },
            [&self.pipeline.env, &self.pipeline.spec.env, &spec.env, &step.env],
            handed,
            &sources,
        )?;
        Ok(StepCommand {
            id,
            pipeline: self.pipeline.key.clone(),
            step_name,
            program: program(&step.run, step.shell.as_ref()).map_err(|message| (Reason::SPEC_INVALID, message))?,
            env,
            context: self.context_of(task),
            working_dir: step.working_dir.clone().or_else(|| spec.working_dir.clone()),
            payload: self.payload.clone(),
            files: self.files.clone(),
            artifacts: self.artifacts_for(task),
            exclusive: self.pipeline.spec.exclusive,
        })
    }
}

impl RunMachine {
    /// The context of a task.
    pub(super) fn context_of(&self, task: usize) -> String {
        self.spec_of(task).context.as_ref().map_or_else(|| "default".into(), ToString::to_string)
    }
}

fn program(run: &Run, shell: Option<&Shell>) -> Result<Program, String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let shell = match (run, shell) {
        (Run::Argv(argv), _) if argv.is_empty() => return Err("run is an empty list".into()),
        (Run::Argv(argv), _) => return Ok(Program::Argv(argv.clone())),
        (_, Some(Shell::Argv(argv))) if argv.is_empty() => return Err("shell is an empty list".into()),
        (_, Some(Shell::Argv(argv))) => argv.clone(),
        (_, None) => words(&["sh", "-e"]),
        (_, Some(Shell::Named(name))) => match name.as_str() {
            "sh" => words(&["sh", "-e"]),
            "bash" => words(&["bash", "-eo", "pipefail"]),
            other => words(&[other]),
        },
    };
    let Run::Script(script) = run else { return Err("run is a list".into()) };
    Ok(Program::Script { shell, script: script.clone() })
}
