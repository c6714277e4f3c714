//! A repository of small workflows, and what its newest commit asks for.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use xene::decide::desired::{Desired, DesiredNotifier, DesiredWorkflow, WorkflowBody};
use xene_schemas::{
    meta::{Name, ObjectMeta, PipelineKey, Revision, SpecHash},
    pipeline::{CompiledPipeline, PipelineSpec},
    workflow::WorkflowSpec,
};

use super::{random::Random, setup::Setup};

/// What one workflow says, as drawn.
#[derive(Debug, Clone, PartialEq)]
struct Text {
    pipelines: usize,
    schedule: &'static str,
    catch_up: &'static str,
    autonomy: &'static str,
    policy: &'static str,
    max: u32,
    /// All of its pipelines are of this group.
    group: Option<&'static str>,
    /// The second of its pipelines follows the first.
    follows: bool,
    zone: Option<&'static str>,
    steps: usize,
    /// A second task waits for approval.
    gated: bool,
    suspend: bool,
    exclusive: bool,
    /// Lost runs and due times are started again.
    again: bool,
}

type Tree = BTreeMap<usize, Text>;

/// The repository.
#[derive(Debug, Default)]
pub(super) struct Source {
    commits: Vec<Tree>,
    /// In effect with the next commit.
    pub(super) notifiers: BTreeMap<Name, DesiredNotifier>,
    /// Revisions look like ids of commits, which have a status.
    pub(super) ids: bool,
}

impl Source {
    /// The first commit.
    pub(super) fn begin(&mut self, setup: &Setup, random: &mut Random) {
        let tree = (0..setup.workflows).map(|at| (at, draw(setup, random))).collect();
        self.commits.push(tree);
    }

    /// The first commit, of so many pipelines `w0/p0`, `w1/p0` …
    pub(super) fn begin_with(
        &mut self,
        workflows: usize,
        (schedule, autonomy): (&'static str, &'static str),
        exclusive: bool,
    ) {
        let (catch_up, policy) = ("Latest", "Queue");
        let (max, group, follows, zone) = (1, None, false, None);
        let (pipelines, steps, gated, suspend, again) = (1, 1, false, false, false);
        let text = Text {
            pipelines,
            schedule,
            catch_up,
            autonomy,
            policy,
            max,
            group,
            follows,
            zone,
            steps,
            gated,
            suspend,
            exclusive,
            again,
        };
        self.commits = vec![(0..workflows).map(|at| (at, text.clone())).collect()];
    }

    /// One more commit: a change, a removal, or an earlier tree again. Says what it does.
    pub(super) fn commit(&mut self, setup: &Setup, random: &mut Random) -> String {
        let mut tree = self.commits.last().cloned().unwrap_or_default();
        let which = random.index(setup.workflows);
        let said = match random.between(0, 9) {
            0..5 => {
                tree.insert(which, draw(setup, random));
                format!("changes w{which}")
            }
            5..7 if tree.len() > 1 => {
                tree.remove(&which);
                format!("removes w{which}")
            }
            _ => {
                let back = random.index(self.commits.len());
                tree.clone_from(&self.commits[back]);
                format!("goes back to r{back}")
            }
        };
        self.commits.push(tree);
        format!("r{} {said}", self.commits.len() - 1)
    }

    /// The last commit: nothing fires any more.
    pub(super) fn suspend(&mut self) {
        let mut tree = self.commits.last().cloned().unwrap_or_default();
        tree.values_mut().for_each(|text| text.suspend = true);
        self.commits.push(tree);
    }

    /// What the newest commit asks for.
    pub(super) fn desired(&self) -> Desired {
        let number = self.commits.len().saturating_sub(1);
        let revision = Revision(if self.ids { format!("{number:040x}") } else { format!("r{number}") });
        let tree = self.commits.last();
        Desired {
            revision,
            base: None,
            author: None,
            subject: None,
            folder: String::new(),
            workflows: tree.into_iter().flatten().map(|(at, text)| workflow(*at, text)).collect(),
            notifiers: self.notifiers.clone(),
            complete: true,
            files: BTreeMap::new(),
            problems: Vec::new(),
            ignored: 0,
        }
    }
}

fn draw(setup: &Setup, random: &mut Random) -> Text {
    Text {
        pipelines: random.index(2) + 1,
        schedule: random.pick(setup.schedules),
        catch_up: random.pick(&["Latest", "All", "Skip"]),
        autonomy: random.pick(setup.autonomies),
        policy: random.pick(&["Queue", "Queue", "Skip", "Replace"]),
        max: random.pick(&[1, 1, 2]),
        group: random.chance(setup.grouped).then_some("g"),
        follows: random.chance(setup.following),
        zone: random.chance(setup.zoned).then_some("a"),
        steps: random.index(2) + 1,
        gated: random.chance(setup.gated),
        suspend: random.chance(50),
        exclusive: random.chance(setup.exclusive),
        again: random.chance(setup.again),
    }
}

#[expect(clippy::unwrap_used, reason = "the names and specs are written here")]
fn workflow(at: usize, text: &Text) -> (Name, DesiredWorkflow) {
    let name: Name = format!("w{at}").parse().unwrap();
    let steps: Vec<String> = (0..text.steps).map(|step| format!("step {step}")).collect();
    let mut pipeline = json!({
        "triggers": ["tick"],
        "autonomy": text.autonomy,
        "timeout": "60s",
        "concurrency": {"policy": text.policy, "max": text.max},
        "tasks": {"t": {"steps": steps}},
    });
    if text.gated {
        pipeline["tasks"]["gated"] = json!({"steps": ["step gated"]});
        let approval = json!({"timeout": "20s", "onTimeout": "Approve"});
        pipeline["connectors"] = json!([{"from": "t", "to": "gated", "approval": approval}]);
    }
    if text.exclusive {
        pipeline["exclusive"] = json!(true);
    }
    if text.again {
        pipeline["onAgentLost"] = json!("Retry");
        // A hundred of them would take longer than a world lives.
        pipeline["onAmbiguous"] = if text.catch_up == "All" { json!("Skip") } else { json!("Run") };
    }
    if let Some(zone) = text.zone {
        pipeline["agents"] = json!({"labels": {"zone": zone}});
    }
    if let Some(group) = text.group {
        pipeline["concurrency"]["group"] = json!(group);
    }
    let pipeline: PipelineSpec = serde_json::from_value(pipeline).unwrap();
    let mut pipelines: BTreeMap<Name, PipelineSpec> =
        (0..text.pipelines).map(|at| (format!("p{at}").parse().unwrap(), pipeline.clone())).collect();
    if let Some(second) = pipelines.get_mut("p1").filter(|_| text.follows) {
        second.triggers.0.clear();
        second.after.0.push("p0".parse().unwrap());
    }
    let spec: WorkflowSpec = serde_json::from_value(json!({
        "suspend": text.suspend,
        "triggers": {"tick": {"type": "cron", "schedule": text.schedule, "catchUp": text.catch_up}},
        "pipelines": pipelines,
    }))
    .unwrap();
    let metadata: ObjectMeta = serde_json::from_value(json!({"name": name})).unwrap();
    let compiled = |(pipeline, of): (&Name, &PipelineSpec)| {
        let compiled = CompiledPipeline {
            key: PipelineKey { workflow: name.clone(), pipeline: pipeline.clone() },
            suspend: spec.suspend || of.suspend,
            env: spec.env.clone(),
            params: spec.params.clone(),
            triggers: spec.triggers.clone(),
            spec: of.clone(),
            files: Vec::new(),
        };
        (pipeline.clone(), compiled)
    };
    let pipelines = pipelines.iter().map(compiled).collect();
    let hash = SpecHash::of(&serde_json::to_vec(&spec).unwrap());
    let body = WorkflowBody { metadata, spec, pipelines };
    let path = format!("{name}.yaml");
    (name, DesiredWorkflow { hash, path, line: 1, valid: true, body: Some(Arc::new(body)) })
}
