//! What happened, one line per event; written only when somebody will read it.

use std::{collections::BTreeMap, fmt};

use xene::decide::event::{Command, Effect, Effects, Event};
use xene_agent::decide::event::{Effect as AgentEffect, Effects as AgentEffects, Event as AgentEvent};
use xene_schemas::wire::control::{AgentMessage, ControllerMessage};

use super::{clock::Instant, node::AgentNode};

/// The lines.
#[derive(Debug, Default)]
pub struct History {
    lines: Option<Vec<String>>,
}

impl History {
    /// One that keeps its lines, or not.
    pub fn new(keep: bool) -> Self {
        Self { lines: keep.then(Vec::new) }
    }

    /// Adds a line; `what` is looked at only if it is kept.
    pub fn note(&mut self, at: Instant, who: impl fmt::Display, what: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9} {who:<10} {}", at.to_string(), what()));
        }
    }

    /// True if lines are kept.
    pub fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    /// All lines.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

/// What an agent says, in short.
pub fn agent_says(message: &AgentMessage) -> String {
    match message {
        AgentMessage::Hello(hello) => {
            let claims: Vec<String> = hello.claims.iter().map(|claim| format!("{}@{}", claim.pipeline, n(claim.epoch.0))).collect();
            format!("Hello [{}]", claims.join(" "))
        }
        AgentMessage::Renew(renew) => match &renew.claims {
            Some(claims) => {
                let claims: Vec<String> = claims.iter().map(|claim| format!("{}@{}", claim.pipeline, n(claim.epoch.0))).collect();
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
        AgentMessage::SetWanted(_) => "SetWanted".into(),
        AgentMessage::CertificateWanted(_) => "CertificateWanted".into(),
        AgentMessage::Skipped(skipped) => {
            let rows: Vec<String> =
                skipped.rows.iter().map(|row| format!("{} {:.0} {}", row.pipeline, row.slot, row.reason)).collect();
            format!("Skipped {}", rows.join(", "))
        }
    }
}

/// What a controller says, in short.
pub fn controller_says(message: &ControllerMessage) -> String {
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
            let nacks: Vec<String> = renewed.nacks.iter().map(|(key, epoch)| format!(" no {key}@{}", n(epoch.0))).collect();
            format!("Renewed {} v{}{}", renewed.seq, renewed.claims_version, nacks.concat())
        }
        ControllerMessage::StartRun(start) => format!("StartRun {} of {}@{}", tail(&start.run), start.spec.key(), n(start.epoch.0)),
        ControllerMessage::CancelRun(cancel) => format!("CancelRun {}", tail(&cancel.run)),
        ControllerMessage::Acknowledged(acknowledged) => {
            let runs: Vec<String> = acknowledged.runs.iter().map(|(run, count)| format!("{}<{count}", tail(run))).collect();
            format!("Acknowledged {}", runs.join(", "))
        }
        ControllerMessage::LogAcknowledged(_) => "LogAcknowledged".into(),
        ControllerMessage::Specs(specs) => format!("Specs {}", specs.specs.len()),
        ControllerMessage::Certificate(_) => "Certificate".into(),
    }
}

/// What happens to a controller, in short.
pub fn controller_hears(event: &Event, agents: &[AgentNode], sessions: &BTreeMap<u64, usize>) -> String {
    let who = |session: u64| sessions.get(&session).map_or("?", |agent| agents[*agent].name.as_str());
    match event {
        Event::Compiled(desired) => format!("compiled {}", desired.revision),
        Event::Source(_) => "source".into(),
        Event::SessionOpened { session, agent, .. } => format!("s{} of {agent} opens", session.0),
        Event::Message { session, message } => format!("{}: {}", who(session.0), agent_says(message)),
        Event::SessionClosed(session) => format!("s{} ends", session.0),
        Event::Asked { command, .. } => match command {
            Command::StartRun { pipeline, run, .. } => format!("asked to start {pipeline} as {}", tail(run)),
            Command::CreateJoinToken { .. } => "asked for a join token".into(),
            Command::Enrol { name, .. } => format!("asked to enrol {name}"),
            Command::CancelRun { run, .. } => format!("asked to cancel {}", tail(run)),
            other => format!("asked {other:?}"),
        },
        Event::CertificateIssued { .. } => "certificate".into(),
    }
}

/// What happens to an agent, in short.
pub fn agent_hears(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Connected => "connected".into(),
        AgentEvent::Disconnected => "disconnected".into(),
        AgentEvent::Message(message) => controller_says(message),
        AgentEvent::IntentDurable(run) => format!("intent of {} durable", tail(run)),
        AgentEvent::StepExited { id, exit } => format!("step {} of {} ended {:?}", id.step, tail(&id.run), exit.status),
        AgentEvent::LogDelivered(run) => format!("log of {} delivered", tail(run)),
        AgentEvent::DrainRequested => "asked to drain".into(),
        AgentEvent::StopRequested => "asked to stop".into(),
        AgentEvent::JournalFailed => "journal failed".into(),
    }
}

/// What a controller does about an event, in short.
pub fn controller_does(fx: &Effects) -> String {
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
pub fn agent_does(fx: &AgentEffects) -> String {
    let does = |effect: &AgentEffect| match effect {
        AgentEffect::Send(message) => agent_says(message),
        AgentEffect::ConfirmIntent(run) => format!("confirm {}", tail(run)),
        AgentEffect::SpawnStep(command) => format!("START {} of {} step {}", tail(&command.id.run), command.pipeline, command.id.step),
        AgentEffect::SignalStep { id, signal } => format!("{signal:?} {}", tail(&id.run)),
        AgentEffect::FinishRun { run, .. } => format!("finish {}", tail(run)),
        AgentEffect::ForgetRun(run) => format!("forget {}", tail(run)),
        AgentEffect::Alert(text) => format!("alert: {text}"),
        other => format!("{other:?}"),
    };
    summary(fx.now.iter().map(does), fx.commit.len(), fx.then.iter().map(does))
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

/// The low bits of an epoch, which people count by.
pub fn n(epoch: u64) -> u64 {
    epoch & 0xF_FFFF
}

/// The end of a run's name.
pub fn tail(run: &xene_schemas::meta::RunName) -> String {
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
        E::ShuttingDown { .. } => "shutting down".into(),
        E::Ended { phase, reason, .. } => match reason {
            Some(reason) => format!("{phase} {reason}"),
            None => phase.to_string(),
        },
    }
}
