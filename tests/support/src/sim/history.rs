//! What happened, one line per event; written only when somebody will read it.

use std::{collections::BTreeMap, fmt};

use xene::decide::{
    event::{Command, Effect, Effects, Event},
    rows::Change,
};
use xene_agent::decide::event::{Effect as AgentEffect, Effects as AgentEffects, Event as AgentEvent};
use xene_schemas::wire::control::{AgentMessage, ControllerMessage};

use super::{clock::Instant, node::AgentNode};

/// The lines.
#[derive(Debug, Default)]
pub struct History {
    lines: Vec<String>,
    keep: Keep,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Keep {
    #[default]
    Nothing,
    Marks,
    Everything,
}

impl History {
    /// One that keeps every event, or nothing.
    pub fn new(keep: bool) -> Self {
        Self { lines: Vec::new(), keep: if keep { Keep::Everything } else { Keep::Nothing } }
    }

    /// One that keeps only what [`Self::mark`] is told, for a story.
    pub fn of_marks() -> Self {
        Self { lines: Vec::new(), keep: Keep::Marks }
    }

    /// Adds an event; `what` is looked at only if it is kept.
    pub fn note(&mut self, at: Instant, who: impl fmt::Display, what: impl FnOnce() -> String) {
        if self.keep == Keep::Everything {
            self.lines.push(format!("{:>9} {who:<10} {}", at.to_string(), what()));
        }
    }

    /// Adds something that a story tells.
    pub fn mark(&mut self, at: Instant, who: impl fmt::Display, what: impl FnOnce() -> String) {
        match self.keep {
            Keep::Nothing => {}
            Keep::Marks => self.lines.push(format!("{} {who:<10} {}", time_of_day(at.wall()), what())),
            Keep::Everything => self.note(at, who, what),
        }
    }

    /// Adds what a story tells of the store.
    pub fn store(&mut self, at: Instant, change: &Change) {
        match change {
            Change::PutOwner(key, row) => self.mark(at, "store", || {
                let reason = row.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
                let slots = time_of_day(row.not_before);
                match &row.owner {
                    Some(owner) => {
                        format!("{key} is {owner}'s under epoch {}, slots from {slots}{reason}", n(row.epoch.0))
                    }
                    None => format!("{key} is nobody's{reason}"),
                }
            }),
            Change::PutLedger(row) if row.run.is_none() => {
                self.mark(at, "store", || {
                    let reason = row.reason.as_ref().map(ToString::to_string).unwrap_or_default();
                    format!("no run of {} at {}: {reason}", row.pipeline, time_of_day(row.slot))
                });
            }
            _ => {}
        }
    }

    /// True if every event is kept.
    pub fn is_kept(&self) -> bool {
        self.keep == Keep::Everything
    }

    /// All lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// What an agent says, in short.
pub(super) fn agent_says(message: &AgentMessage) -> String {
    match message {
        AgentMessage::Hello(hello) => {
            let claims: Vec<String> =
                hello.claims.iter().map(|claim| format!("{}@{}", claim.pipeline, n(claim.epoch.0))).collect();
            format!("Hello [{}]", claims.join(" "))
        }
        AgentMessage::Renew(renew) => match &renew.claims {
            Some(claims) => {
                let claims: Vec<String> =
                    claims.iter().map(|claim| format!("{}@{}", claim.pipeline, n(claim.epoch.0))).collect();
                format!("Renew {} v{} [{}]", renew.seq, renew.claims_version, claims.join(" "))
            }
            None => format!("Renew {} v{}", renew.seq, renew.claims_version),
        },
        AgentMessage::Released(released) => {
            format!("Released {}@{} up to {:.0}", released.pipeline, n(released.epoch.0), released.watermark)
        }
        AgentMessage::Report(report) => {
            let facts: Vec<String> = (report.facts.iter())
                .map(|fact| format!("{}#{} {}", tail(&fact.run), fact.index, word(&fact.event)))
                .collect();
            format!("Report {}", facts.join(", "))
        }
        AgentMessage::SpecsWanted(wanted) => format!("SpecsWanted {}", wanted.hashes.len()),
        AgentMessage::FilesWanted(wanted) => format!("FilesWanted {}", wanted.hashes.len()),
        AgentMessage::SetWanted(_) => "SetWanted".into(),
        AgentMessage::CertificateWanted(_) => "CertificateWanted".into(),
        AgentMessage::Skipped(skipped) => {
            let rows: Vec<String> =
                skipped.rows.iter().map(|row| format!("{} {:.0} {}", row.pipeline, row.slot, row.reason)).collect();
            format!("Skipped {}", rows.join(", "))
        }
        AgentMessage::Pong(_) => "Pong".into(),
    }
}

/// What a controller says, in short.
pub(super) fn controller_says(message: &ControllerMessage) -> String {
    match message {
        ControllerMessage::Welcome(_) => "Welcome".into(),
        ControllerMessage::Refused(refused) => format!("Refused {}", refused.reason),
        ControllerMessage::Assignments(assignments) => {
            let entry = |a: &xene_schemas::wire::control::Assignment| {
                let revoked = if a.revoked { " revoked" } else { "" };
                format!("{}@{} from {:.0}{revoked}", a.pipeline, n(a.epoch.0), a.not_before)
            };
            let mut entries: Vec<String> = assignments.set.iter().map(entry).collect();
            entries.extend(assignments.gone.iter().map(|key| format!("{key} gone")));
            let kind = if assignments.base.is_some() { "Delta" } else { "Set" };
            format!("{kind} [{}]", entries.join(", "))
        }
        ControllerMessage::Renewed(renewed) => {
            let nacks: Vec<String> =
                renewed.nacks.iter().map(|(key, epoch)| format!(" no {key}@{}", n(epoch.0))).collect();
            format!("Renewed {} v{}{}", renewed.seq, renewed.claims_version, nacks.concat())
        }
        ControllerMessage::StartRun(start) => {
            format!("StartRun {} of {}@{}", tail(&start.run), start.spec.key(), n(start.epoch.0))
        }
        ControllerMessage::Decide(decision) => {
            let word = if decision.approved { "approved" } else { "rejected" };
            format!("Decide {} of {}: {word}", decision.task, tail(&decision.run))
        }
        ControllerMessage::CancelRun(cancel) => format!("CancelRun {}", tail(&cancel.run)),
        ControllerMessage::Acknowledged(acknowledged) => {
            let runs: Vec<String> =
                acknowledged.runs.iter().map(|(run, count)| format!("{}<{count}", tail(run))).collect();
            format!("Acknowledged {}", runs.join(", "))
        }
        ControllerMessage::LogAcknowledged(_) => "LogAcknowledged".into(),
        ControllerMessage::ArtifactStored(_) => "ArtifactStored".into(),
        ControllerMessage::SkippedAcknowledged(skipped) => format!("SkippedAcknowledged <{}", skipped.next),
        ControllerMessage::Specs(specs) => format!("Specs {}", specs.specs.len()),
        ControllerMessage::Certificate(_) => "Certificate".into(),
        ControllerMessage::Ping(_) => "Ping".into(),
        ControllerMessage::Roots(_) => "Roots".into(),
    }
}

/// What happens to a controller, in short.
pub(super) fn controller_hears(event: &Event, agents: &[AgentNode], sessions: &BTreeMap<u64, usize>) -> String {
    let who = |session: u64| sessions.get(&session).map_or("?", |agent| agents[*agent].name.as_str());
    match event {
        Event::Compiled(desired) => format!("compiled {}", desired.revision),
        Event::Drifted(desired, _) => format!("drifted from {}", desired.revision),
        Event::Withheld(desired) => format!("withheld {}", desired.revision),
        Event::Source(_) => "source".into(),
        Event::SessionOpened { session, agent, .. } => format!("s{} of {agent} opens", session.0),
        Event::Message { session, message } => format!("{}: {}", who(session.0), agent_says(message)),
        Event::SessionClosed(session) => format!("s{} ends", session.0),
        Event::Asked { command, .. } => match command {
            Command::StartRun(order) => format!("asked to start {} as {}", order.pipeline, tail(&order.run)),
            Command::CreateJoinToken(_) => "asked for a join token".into(),
            Command::Enrol { name, .. } => format!("asked to enrol {name}"),
            Command::CancelRun { run, .. } => format!("asked to cancel {}", tail(run)),
            other => format!("asked {other:?}"),
        },
        Event::CertificateIssued { .. } => "certificate".into(),
        Event::Authority { .. } => "authority".into(),
        Event::Delivered { .. } => "delivered".into(),
        Event::StoreFull(true) => "has no room".into(),
        Event::StoreFull(false) => "has room again".into(),
        Event::StoreSize { .. } => "store measured".into(),
        Event::ClockSynchronized => "clock synchronized".into(),
    }
}

/// What happens to an agent, in short.
pub(super) fn agent_hears(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Connected => "connected".into(),
        AgentEvent::Disconnected => "disconnected".into(),
        AgentEvent::Message(message) => controller_says(message),
        AgentEvent::IntentDurable(run) => format!("intent of {} durable", tail(run)),
        AgentEvent::StepExited { id, exit } => format!("step {} of {} ended {:?}", id.step, tail(&id.run), exit.status),
        AgentEvent::LogDelivered(run) => format!("log of {} delivered", tail(run)),
        AgentEvent::FilesReady(spec) => format!("files of {spec:?} are there"),
        AgentEvent::DrainRequested => "asked to drain".into(),
        AgentEvent::StopRequested => "asked to stop".into(),
        AgentEvent::JournalFailed => "journal failed".into(),
        AgentEvent::JournalWorks => "journal works".into(),
    }
}

/// What a controller does about an event, in short.
pub(super) fn controller_does(fx: &Effects) -> String {
    let does = |effect: &Effect| match effect {
        Effect::Send { session, message } => format!("{} to s{}", controller_says(message), session.0),
        Effect::Close { session, .. } => format!("close s{}", session.0),
        Effect::SendSpecs { hashes, .. } => format!("send {} specs", hashes.len()),
        Effect::Reply { result, .. } => match &**result {
            Ok(_) => "reply yes".into(),
            Err(refusal) => format!("reply: {refusal}"),
        },
        Effect::Alert(text) => format!("alert: {text}"),
        other => format!("{other:?}"),
    };
    summary(fx.now.iter().map(does), fx.commit.len(), fx.then.iter().map(does))
}

/// What an agent does about an event, in short.
pub(super) fn agent_does(fx: &AgentEffects) -> String {
    let does = |effect: &AgentEffect| match effect {
        AgentEffect::Send(message) => agent_says(message),
        AgentEffect::ConfirmIntent(run) => format!("confirm {}", tail(run)),
        AgentEffect::SpawnStep(command) => {
            format!("START {} of {} step {}", tail(&command.id.run), command.pipeline, command.id.step)
        }
        AgentEffect::SignalStep { id, signal } => format!("{signal:?} {}", tail(&id.run)),
        AgentEffect::FinishRun { run, .. } => format!("finish {}", tail(run)),
        AgentEffect::ForgetRun(run) => format!("forget {}", tail(run)),
        AgentEffect::Alert(text) => format!("alert: {text}"),
        other => format!("{other:?}"),
    };
    let told = |effect: &&AgentEffect| !matches!(effect, AgentEffect::Remember { .. } | AgentEffect::KeepRenewal(_));
    summary(fx.now.iter().filter(told).map(does), fx.commit.len(), fx.then.iter().map(does))
}

fn summary(now: impl Iterator<Item = String>, commit: usize, then: impl Iterator<Item = String>) -> String {
    let mut parts: Vec<String> = now.collect();
    if commit > 0 {
        parts.push(format!("commit {commit}"));
    }
    let then: Vec<String> = then.collect();
    if !then.is_empty() {
        parts.push(format!("then {}", then.join("; ")));
    }
    if parts.is_empty() { String::new() } else { format!(" → {}", parts.join("; ")) }
}

/// `08:01:40`
pub(super) fn time_of_day(at: jiff::Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// The low bits of an epoch, which people count by.
pub(super) fn n(epoch: u64) -> u64 {
    epoch & 0xF_FFFF
}

/// The end of a run's name.
pub(super) fn tail(run: &xene_schemas::meta::RunName) -> String {
    run.to_string()[22..].to_owned()
}

fn word(event: &xene_schemas::run::RunEvent) -> String {
    use xene_schemas::run::RunEvent as E;
    match event {
        E::Created { .. } => "created".into(),
        E::Queued { .. } => "queued".into(),
        E::Started { .. } => "started".into(),
        E::TaskStarted { .. } => "task started".into(),
        E::StepStarted { step, .. } => format!("step {step} started"),
        E::StepEnded { step, .. } => format!("step {step} ended"),
        E::TaskEnded { .. } => "task ended".into(),
        E::ApprovalWanted { .. } => "approval wanted".into(),
        E::ApprovalDecided { approved, .. } => (if *approved { "approved" } else { "rejected" }).into(),
        E::ShuttingDown { .. } => "shutting down".into(),
        E::Ended { phase, reason, .. } => match reason {
            Some(reason) => format!("{phase} {reason}"),
            None => phase.to_string(),
        },
    }
}
