//! `xene run FILE`: runs pipelines here and now, by the agent's own machine, without a controller.

mod approve;
mod load;
mod select;

use std::{
    fs,
    io::{IsTerminal as _, stdin},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
};

use indexmap::IndexMap;
use serde_json::{Value, json};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::{mpsc::unbounded_channel, watch},
};
use xene_agent::{clock, command, content::ContentStore};
use xene_schemas::{
    meta::{API_VERSION, Name, RunName},
    phase::RunPhase,
    pipeline::CompiledPipeline,
    run::{Run, RunSpec, RunTrigger, TriggerType},
};

use self::{
    approve::Asker,
    load::{Loaded, load},
};
use super::{
    Error, Global, controller, dirs, exit,
    follow::{self, NEWS, News, Printed},
    output::{Format, Ui},
    settings, travelling, validate,
};
use crate::{
    compile::params::resolve,
    local::{Approvals, Ended, Local, LocalError, Scratch, Start, Stop, read_lines},
};

/// What `$XENE_AGENT` is.
const AGENT: &str = "local";

/// Arguments of `xene run`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Without --pipeline all pipelines of the workflow run, one after another, in the order that \
                        `after` asks for. Steps see what an agent would give them. Ctrl-C cancels in order: SIGTERM, \
                        the grace period, finally; a second one kills. A task that needs approval asks on the terminal; \
                        without one it is rejected, unless --approve names it. The exit status is that of the run: 0 for \
                        Success, 1 for Error, 130 if it was interrupted.")]
pub struct Args {
    /// A workflow file, a folder of them, or - for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Only this pipeline, PIPELINE or WORKFLOW/PIPELINE.
    #[arg(long, value_name = "PIPELINE")]
    pub pipeline: Option<String>,

    /// Which workflow, where FILE holds several.
    #[arg(long, value_name = "WORKFLOW")]
    pub workflow: Option<String>,

    /// A param of the runs; may be repeated.
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = settings::key_value)]
    pub params: Vec<(String, String)>,

    /// Only this task and what it depends on.
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,

    /// As this revision of the repository around FILE has it; the work tree is left alone.
    #[arg(long, value_name = "REV")]
    pub at: Option<String>,

    /// How many tasks run at once [default: the number of cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: Option<u32>,

    /// Approve this task beforehand, or `all` that ask; may be repeated.
    #[arg(long, value_name = "TASK|all")]
    pub approve: Vec<String>,

    /// Leave the workspaces where they are, and say where.
    #[arg(long)]
    pub keep_workspace: bool,
}

/// Runs pipelines.
///
/// # Errors
/// If the file has problems, what was asked for is not in it, or a run ends in Error.
pub fn run(args: &Args, global: &Global, ui: &mut Ui) -> Result<(), Error> {
    let failed = |message: String| Error::Failed { message, hint: None };
    ui.verbose = global.verbose > 0;
    let scratch = Scratch::new(&format!("xene-run-{}", new_name()?))
        .map_err(|error| failed(format!("no temporary folder can be made: {}", super::error::plain_cause(&error))))?;
    let store = ContentStore::open(&scratch.path().join("files"))
        .map_err(|error| failed(format!("files can't be kept: {}", super::error::plain_cause(&error))))?;
    let Loaded { files, taken, revision, mut problems } = load(&args.file, args.at.as_deref(), &store)?;
    let compiled = travelling::compile(&files, &taken);
    problems.extend(compiled.problems.iter().cloned());
    problems.sort();
    let texts = validate::by_path(&files, &problems);
    for problem in &problems {
        validate::print(problem, &texts, &mut ui.err)?;
    }
    if problems.iter().any(|problem| problem.severity == xene_schemas::diagnostic::Severity::Error) {
        return Err(Error::Status(exit::FAILED));
    }
    let chosen = select::select(args, &compiled.workflows)?;
    let approved = select::approved(args, &chosen)?;
    let given = given(args, &chosen.pipelines)?;
    command::init_logging(global.verbose == 0, global.verbose.saturating_sub(1));

    let mut specs = Vec::new();
    for pipeline in &chosen.pipelines {
        let declared: IndexMap<String, String> = (given.iter())
            .filter(|(name, _)| pipeline.params.contains_key(name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let params = resolve(&pipeline.params, &declared).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Error::usage_with_hint(errors.join("; "), "params are given with -p NAME=VALUE")
        })?;
        let (spec_hash, _) = pipeline.encode();
        let trigger = RunTrigger { kind: TriggerType::Manual, name: None, scheduled_time: None, by: None };
        let (workflow, pipeline) = (pipeline.key.workflow.clone(), pipeline.key.pipeline.clone());
        specs.push(RunSpec {
            workflow,
            pipeline,
            trigger,
            params,
            revision: revision.clone(),
            spec_hash,
            rerun_of: None,
        });
    }
    let runs: Vec<_> = chosen.pipelines.into_iter().zip(specs).collect();
    if runs.len() > 1 {
        let names: Vec<_> = runs.iter().map(|(pipeline, _)| pipeline.key.pipeline.to_string()).collect();
        ui.note(&format!("pipelines, one after another: {}", names.join(", ")));
    }
    let asker = Asker::new(approved, stdin().is_terminal() && ui.err.is_terminal);
    let ended = Runner::new(args, (scratch, store), asker)?.run_all(runs, ui)?;
    report(&ended, ui)
}

/// The params given, each of them declared by a pipeline.
fn given(args: &Args, pipelines: &[Arc<CompiledPipeline>]) -> Result<IndexMap<String, String>, Error> {
    for (name, _) in &args.params {
        if !pipelines.iter().any(|pipeline| pipeline.params.contains_key(name.as_str())) {
            let known: Vec<&str> = pipelines.iter().flat_map(|p| p.params.keys().map(String::as_str)).collect();
            let hint =
                if known.is_empty() { "there are no params".into() } else { format!("there is: {}", known.join(", ")) };
            return Err(Error::usage_with_hint(format!("there is no param {name}"), hint));
        }
    }
    Ok(args.params.iter().cloned().collect())
}

/// What became of one pipeline.
enum Outcome {
    Ran(Box<Run>),
    /// One that it comes after did not end in Success.
    NotStarted(Name, Name),
}

impl Outcome {
    /// The record, if there was a run.
    fn record(&self) -> Option<&Run> {
        match self {
            Self::Ran(run) => Some(run),
            Self::NotStarted(..) => None,
        }
    }
}

/// All that the runs share. Fields go in this order: what runs, then its runtime, then its folder.
struct Runner {
    local: Option<Local>,
    asker: Option<Asker>,
    stop: watch::Receiver<Stop>,
    kill: Arc<watch::Sender<Stop>>,
    runtime: Runtime,
    scratch: Scratch,
    keep_workspace: bool,
    /// True once Ctrl-C came.
    interrupted: bool,
}

impl Runner {
    fn new(args: &Args, (scratch, store): (Scratch, ContentStore), asker: Asker) -> Result<Self, Error> {
        let failed = |message: String| Error::Failed { message, hint: None };
        let local_failed = |error: LocalError| failed(error.to_string());
        let runtime = controller::runtime()?;
        let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        // One that can't be written is no reason not to run.
        let lasting = dirs::cache_dir().filter(|folder| fs::create_dir_all(folder).is_ok());
        let cache = lasting.unwrap_or_else(|| scratch.path().join("cache"));
        let agent = AGENT.parse().map_err(|error| failed(format!("{error}")))?;
        let (kill, stop) = watch::channel(Stop::No);
        let kill = Arc::new(kill);
        let within = runtime.enter();
        listen(&kill).map_err(|error| failed(format!("signals can't be watched: {error}")))?;
        let folders = (scratch.path(), cache.as_path());
        let local = Local::new(agent, args.slots.unwrap_or(cores), folders, store).map_err(local_failed)?;
        drop(within);
        let keep_workspace = args.keep_workspace;
        let (local, asker) = (Some(local), Some(asker));
        Ok(Self { local, asker, stop, kill, runtime, scratch, keep_workspace, interrupted: false })
    }

    fn run_all(mut self, runs: Vec<(Arc<CompiledPipeline>, RunSpec)>, ui: &mut Ui) -> Result<Vec<Outcome>, Error> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut failed: Vec<Name> = Vec::new();
        for (pipeline, spec) in runs {
            let name = pipeline.key.pipeline.clone();
            if let Some(before) = pipeline.spec.after.0.iter().find(|before| failed.contains(before)) {
                ui.note(&format!("{name} does not start: {before} did not end in Success"));
                failed.push(name.clone());
                outcomes.push(Outcome::NotStarted(name, before.clone()));
                continue;
            }
            let run = self.run_one(pipeline, spec, ui)?;
            if run.status.phase != RunPhase::Success {
                failed.push(name);
            }
            outcomes.push(Outcome::Ran(Box::new(run)));
            if self.interrupted {
                break;
            }
        }
        if self.interrupted {
            // The record of what was interrupted is still a result.
            report_records(&outcomes, ui)?;
            return Err(Error::Status(exit::INTERRUPTED));
        }
        Ok(outcomes)
    }

    /// Runs one pipeline, and shows it.
    fn run_one(&mut self, pipeline: Arc<CompiledPipeline>, spec: RunSpec, ui: &mut Ui) -> Result<Run, Error> {
        let failed = |message: String| Error::Failed { message, hint: None };
        let (Some(mut local), Some(mut asker)) = (self.local.take(), self.asker.take()) else {
            return Err(failed("the runner is gone".into()));
        };
        let name = new_name()?;
        let record = Run::new(name, clock::now().wall, spec.clone());
        let (seen, states) = watch::channel(record.clone());
        let (sender, news) = sync_channel(NEWS);
        self.runtime.spawn_blocking({
            let (log, states, sender) = (local.log(name), states.clone(), sender.clone());
            move || {
                let handle = tokio::runtime::Handle::current();
                handle.block_on(read_lines(log, states, |line| sender.send(News::Line(line)).is_ok()));
                // Nobody listens any more: then nobody misses it.
                let _ = sender.send(News::OutputEnded);
            }
        });
        let ((facts, questions), (decide, decisions)) = (unbounded_channel(), unbounded_channel());
        let asking = self.runtime.spawn_blocking({
            let sender = sender.clone();
            move || {
                tokio::runtime::Handle::current().block_on(asker.answer(questions, decide, sender));
                asker
            }
        });
        self.runtime.spawn_blocking(move || tell_states(states, &sender));
        let start = Start { name, spec, pipeline, keep_workspace: self.keep_workspace };
        let mut stop = self.stop.clone();
        let running = self.runtime.spawn(async move {
            let ended = local.run(start, Approvals { facts, decisions }, &mut stop, &seen).await;
            (local, ended)
        });
        let shown = follow::show(record, &news, Printed::Here, ui);
        if shown.is_err() {
            // Whoever looked on has gone: the run ends in order.
            self.kill.send_if_modified(|stop| {
                let goes_on = *stop == Stop::No;
                *stop = if goes_on { Stop::Cancel } else { *stop };
                goes_on
            });
        }
        drop(news);
        let (local, ended) = self.runtime.block_on(running).map_err(|error| failed(error.to_string()))?;
        self.local = Some(local);
        self.asker = Some(self.runtime.block_on(asking).map_err(|error| failed(error.to_string()))?);
        self.interrupted = *self.stop.borrow() != Stop::No;
        let Ended { run, workspace } = ended.map_err(|error| failed(error.to_string()))?;
        if let Some(workspace) = workspace {
            self.scratch.keep();
            ui.note(&format!("the workspace of {} is kept in {}", run.spec.key(), workspace.display()));
        }
        match shown {
            // The status is the run's all the same.
            Err(Error::BrokenPipe) if run.status.phase != RunPhase::Success => Err(Error::Status(exit::FAILED)),
            shown => shown.map(|_| run),
        }
    }
}

/// Turns signals into stops: the first cancels, the second kills.
fn listen(stop: &Arc<watch::Sender<Stop>>) -> std::io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signals, stop) = (signal(kind)?, Arc::clone(stop));
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                stop.send_modify(|stop| *stop = if *stop == Stop::No { Stop::Cancel } else { Stop::Kill });
            }
        });
    }
    Ok(())
}

/// Sends each state of the record, and last that it has ended.
fn tell_states(mut states: watch::Receiver<Run>, news: &SyncSender<News>) {
    let handle = tokio::runtime::Handle::current();
    while handle.block_on(states.changed()).is_ok() {
        let run = states.borrow_and_update().clone();
        let ended = run.status.phase.is_final();
        let one = if ended { News::Ended(Box::new(Ok(run))) } else { News::Run(Box::new(run)) };
        if news.send(one).is_err() || ended {
            return;
        }
    }
    // It could not be run to its end; whoever started it knows why.
    let _ = news.send(News::Ended(Box::new(Err(Error::Status(exit::FAILED)))));
}

/// A new name, by the clock and 80 random bits.
fn new_name() -> Result<RunName, Error> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits)
        .map_err(|error| Error::Failed { message: format!("the system gives no random bytes: {error}"), hint: None })?;
    Ok(RunName::new(clock::now().wall, u128::from_le_bytes(bits)))
}

/// The result of all runs: their records, and the exit status.
fn report(outcomes: &[Outcome], ui: &mut Ui) -> Result<(), Error> {
    report_records(outcomes, ui)?;
    let sentences: Vec<String> = outcomes.iter().filter_map(sentence).collect();
    match &sentences[..] {
        [] => Ok(()),
        _ => Err(Error::Failed { message: sentences.join("; "), hint: None }),
    }
}

fn report_records(outcomes: &[Outcome], ui: &mut Ui) -> Result<(), Error> {
    let runs: Vec<&Run> = outcomes.iter().filter_map(Outcome::record).collect();
    match ui.format {
        Format::Table | Format::Wide => Ok(()),
        Format::Name => runs.iter().try_for_each(|run| ui.out.line(format!("run/{}", run.metadata.name))),
        Format::Json | Format::Yaml => match &runs[..] {
            [run] => ui.value(&shown(run)),
            runs => {
                let items: Vec<Value> = runs.iter().map(|run| shown(run)).collect();
                ui.value(&json!({"apiVersion": API_VERSION, "kind": "List", "items": items}))
            }
        },
    }
}

/// A run as the API shows it.
fn shown(run: &Run) -> Value {
    let head = json!({"apiVersion": API_VERSION, "kind": "Run"});
    let (Value::Object(mut object), Value::Object(run)) = (head, json!(run)) else { return Value::Null };
    object.extend(run);
    Value::Object(object)
}

/// Why an outcome is no Success.
fn sentence(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::NotStarted(name, before) => Some(format!("{name} did not start, since {before} failed")),
        Outcome::Ran(run) if run.status.phase == RunPhase::Success => None,
        Outcome::Ran(run) => {
            let reason = run.status.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let message = run.status.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
            Some(format!("{} ended in {}{reason}{message}", run.spec.key(), run.status.phase))
        }
    }
}
