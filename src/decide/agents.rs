//! Agents: how they enrol, drain, are revoked and forgotten, and how the API shows them.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use xene_agent::decide::{
    mutant::Mutant,
    time::{Now, before},
};
use xene_schemas::{
    agent::{Agent, AgentMeta, AgentStatus},
    duration::Duration as Span,
    event::EventType,
    meta::{AgentName, Epoch, Labels, PipelineKey, RunName},
    phase::{AgentPhase, Reason, Transport},
    pipeline::Autonomy,
    why::Verdict,
};

use super::{
    Controller,
    event::{Answer, Command, Effect, Effects, Refusal, SessionId},
    note,
    rows::{AgentRow, Change},
    twins::{Chain, twin_message},
};

/// An agent whose clock is further off than this gets nothing new.
pub(super) const SKEW_LIMIT: Duration = Duration::from_secs(60);

/// What is known of one agent.
#[derive(Debug)]
pub(super) struct AgentState {
    /// As stored; `None` once it is forgotten, while what it owned is waited for.
    pub(super) row: Option<AgentRow>,
    pub(super) session: Option<SessionState>,
    /// When its last renewal came that counts.
    pub(super) renewed_at: Option<xene_agent::decide::time::BootTime>,
    /// What it owns.
    pub(super) owned: BTreeSet<PipelineKey>,
    /// Its runs that are not final.
    pub(super) runs: BTreeSet<RunName>,
    /// Its claims have run out and nobody could take over: they are looked at when it is heard again.
    pub(super) silent: bool,
    /// Pipelines whose L became shorter while it had them, until it shows that it has heard.
    pub(super) shortened: BTreeSet<PipelineKey>,
    /// When a claim of it ran out, while it was not heard again.
    pub(super) expired: Option<xene_agent::decide::time::BootTime>,
    /// A person says that its machine is off, and what it has is being given to others.
    pub(super) fenced: bool,
    /// It said that it is about to stop.
    pub(super) leaving: bool,
    /// How far its clock is off.
    pub(super) skew: Duration,
    /// Since when each renewal has been said late, or by a clock that is.
    pub(super) late_since: Option<xene_agent::decide::time::BootTime>,
    pub(super) busy: u32,
    /// It says that its journal can't be written.
    pub(super) disk_full: bool,
    /// This process has welcomed it.
    pub(super) greeted: bool,
    /// It has shown to go by all that it is to own, and nothing of that has changed since.
    pub(super) current: bool,
    /// This process has recovered on its word.
    pub(super) believed: bool,
    /// What it may show with its next renewal; `None`: this process does not know.
    pub(super) chain: Option<Chain>,
}

/// The session of an agent.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) id: SessionId,
    /// Of the certificate that it showed.
    pub(super) fingerprint: String,
    pub(super) address: String,
    pub(super) transport: Transport,
    /// The version of the assignments that were sent; 0: none yet.
    pub(super) set_version: u64,
    /// The version of the list of claims that is held; 0: none.
    pub(super) claims_version: u64,
    /// Claims of that list that are not the agent's: every answer says so until the list is a new one.
    pub(super) stale: BTreeSet<(PipelineKey, Epoch)>,
    /// The newest answer that the agent has shown to have got, and since when it stands there.
    pub(super) answered: (u64, xene_agent::decide::time::BootTime),
    /// Which process of the agent it is.
    pub(super) instance: u64,
    /// The newest Renew.
    pub(super) seq: u64,
    /// The longest L of all agents, as this one was told.
    pub(super) longest: Option<Span>,
    /// The token of its Welcome, until it has shown that it keeps tokens.
    pub(super) pending: Option<u64>,
}

/// What makes an agent that asks to join the one that asked before: the token that it shows, the key that it holds, and the
/// name that it would like. Who has the token alone is another.
fn join_digest(id: &str, secret_hash: &str, key: &str, name: &AgentName) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("xene 2026-11-27 what an agent joins by");
    for part in [id, secret_hash, key, name.as_str()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

impl AgentState {
    pub(super) fn new(row: Option<AgentRow>) -> Self {
        Self {
            row,
            session: None,
            renewed_at: None,
            owned: BTreeSet::new(),
            runs: BTreeSet::new(),
            silent: false,
            shortened: BTreeSet::new(),
            expired: None,
            fenced: false,
            leaving: false,
            skew: Duration::ZERO,
            late_since: None,
            disk_full: false,
            busy: 0,
            greeted: false,
            current: false,
            believed: false,
            chain: None,
        }
    }

    pub(super) fn slots(&self) -> u32 {
        self.row.as_ref().map_or(1, |row| row.slots.max(1))
    }

    /// When it was heard last, as far as is known.
    pub(super) fn last_seen(&self, now: Now) -> Option<Timestamp> {
        let renewed = self.renewed_at.map(|at| before(now.wall, now.boot.since(at)));
        renewed.or_else(|| self.row.as_ref().and_then(|row| row.last_seen))
    }

    pub(super) fn phase(&self, row: &AgentRow) -> AgentPhase {
        match &self.session {
            _ if row.revoked => AgentPhase::Revoked,
            _ if row.draining || self.leaving => AgentPhase::Draining,
            Some(_) => AgentPhase::Connected,
            None => AgentPhase::Disconnected,
        }
    }

    /// Why it gets nothing new, if it does not.
    pub(super) fn unavailable(&self, row: &AgentRow) -> Option<Verdict> {
        if row.revoked {
            Some(Verdict::Revoked)
        } else if row.draining || self.leaving {
            Some(Verdict::Draining)
        } else if self.session.is_none() {
            Some(Verdict::Disconnected)
        } else if self.skew > SKEW_LIMIT {
            Some(Verdict::ClockSkew)
        } else {
            None
        }
    }
}

impl Controller {
    pub(super) fn command(&mut self, now: Now, command: Command, fx: &mut Effects) -> Result<Answer, Refusal> {
        match command {
            Command::StartRun(order) => self.order_run(now, order.into(), fx).map(|run| Answer::Run(Box::new(run))),
            Command::StartRuns(orders) => self.order_runs(now, orders, fx).map(Answer::Runs),
            Command::Rerun(again) => self.rerun(now, *again, fx).map(|run| Answer::Run(Box::new(run))),
            Command::Approve(decision) => self.approve(decision, fx),
            Command::Suspend { what, suspension } => self.suspend(now, what, suspension, fx),
            Command::Resume { what, by } => self.resume(now, what, &by, fx),
            Command::ApprovePrune { commit, by } => self.approve_prune(now, &commit, &by, fx),
            Command::CancelRun { run, by } => self.cancel_run(now, run, by, fx),
            Command::Drain(agent) => {
                self.change_agent(&agent, fx, |row| row.draining = true)?;
                note(
                    fx,
                    now,
                    EventType::Normal,
                    "Draining",
                    format!("agent/{agent}"),
                    "gives its pipelines back".into(),
                );
                for key in self.agents[&agent].owned.clone() {
                    self.revoke(&key, format!("{agent} is draining"), fx);
                }
                Ok(Answer::Done)
            }
            Command::Undrain(agent) => {
                self.change_agent(&agent, fx, |row| row.draining = false)?;
                note(fx, now, EventType::Normal, "Undrained", format!("agent/{agent}"), "gets pipelines again".into());
                if let Some(state) = self.agents.get_mut(&agent) {
                    state.leaving = false;
                }
                self.place_waiting(now, fx);
                Ok(Answer::Done)
            }
            Command::Revoke(agent) => {
                self.change_agent(&agent, fx, |row| (row.revoked, row.joined_by) = (true, None))?;
                note(fx, now, EventType::Warning, "Revoked", format!("agent/{agent}"), "is refused from now on".into());
                if !self.mutants.is(Mutant::RevokedIsAnswered) {
                    self.shut_out(&agent, "its identity was revoked", fx);
                }
                self.end_rotation_if_all_came(fx);
                self.count_found(now, &agent, fx);
                Ok(Answer::Done)
            }
            Command::Forget(agent) => self.forget(now, &agent, fx),
            Command::Pause { lasts, by } => Ok(self.pause(now, lasts, by, fx)),
            Command::Unpause { by } => self.unpause(now, &by, fx),
            Command::ConfirmClock { by } => self.clock_confirmed(now, &by, fx),
            Command::Fence { agent, by } => self.fence(now, &agent, &by, fx),
            Command::CreateJoinToken(row) => Ok(self.create_join_token(now, row, fx)),
            Command::RevokeJoinToken(id) => self.revoke_join_token(id, fx),
            Command::CreateApiToken(row) => self.create_api_token(now, row, fx),
            Command::RevokeApiToken(name) => self.revoke_api_token(&name, fx),
            Command::By { by, command } => self.command_by(now, &by, *command, fx),
            Command::Enrol { id, secret_hash, key, name, labels } => {
                let joins_by = join_digest(&id, &secret_hash, &key, &name);
                self.enrol(now, (&id, &secret_hash), joins_by, (name, labels), fx)
            }
            Command::Certify { agent, fingerprint } => self.certify(&agent, fingerprint, fx).map(|()| Answer::Done),
        }
    }

    pub(super) fn change_agent(
        &mut self,
        agent: &AgentName,
        fx: &mut Effects,
        change: impl FnOnce(&mut AgentRow),
    ) -> Result<(), Refusal> {
        let row = self.agents.get_mut(agent).and_then(|state| state.row.as_mut());
        let row = row.ok_or_else(|| Refusal::NotFound { kind: "agent", name: agent.to_string() })?;
        change(row);
        fx.commit.push(Change::PutAgent(Box::new(row.clone())));
        Ok(())
    }

    /// It will not come back: claims with an end are waited out, those without are free on a person's word.
    fn forget(&mut self, now: Now, agent: &AgentName, fx: &mut Effects) -> Result<Answer, Refusal> {
        let known = self.agents.get_mut(agent).filter(|state| state.row.is_some());
        let state = known.ok_or_else(|| Refusal::NotFound { kind: "agent", name: agent.to_string() })?;
        state.row = None;
        let runs = state.runs.clone();
        fx.commit.push(Change::DeleteAgent(agent.clone()));
        self.note_forgotten(now, agent, fx);
        note(fx, now, EventType::Warning, "Forgotten", format!("agent/{agent}"), "will not come back".into());
        self.shut_out(agent, "it was forgotten", fx);
        self.end_rotation_if_all_came(fx);
        for run in runs {
            self.lose_run(now, run, fx);
        }
        self.judge(now, agent, fx);
        self.count_found(now, agent, fx);
        Ok(Answer::Done)
    }

    /// Ends the agent's session, if it has one, once what was decided is durable.
    pub(super) fn close(&mut self, agent: &AgentName, reason: &str, fx: &mut Effects) {
        let close = self.end_session(agent, reason);
        fx.then.extend(close);
    }

    /// Ends the agent's session, if it has one, whatever becomes of the commit: a disk may be slow, or full.
    fn shut_out(&mut self, agent: &AgentName, reason: &str, fx: &mut Effects) {
        let close = self.end_session(agent, reason);
        fx.now.extend(close);
    }

    fn end_session(&mut self, agent: &AgentName, reason: &str) -> Option<Effect> {
        let session = self.agents.get_mut(agent)?.session.take()?.id;
        self.sessions.remove(&session);
        self.arm_agent(agent);
        Some(Effect::Close { session, reason: reason.to_owned() })
    }

    fn enrol(
        &mut self,
        now: Now,
        (id, secret_hash): (&str, &str),
        joins_by: String,
        (name, labels): (AgentName, Labels),
        fx: &mut Effects,
    ) -> Result<Answer, Refusal> {
        // It is let in already, and the answer was lost: a controller, an agent or the way between them broke off.
        let mut rows = self.agents.values().filter_map(|state| state.row.as_ref());
        if let Some(row) = rows.find(|row| row.joined_by.as_ref() == Some(&joins_by)) {
            return Ok(Answer::Enrolled(row.name.clone()));
        }
        // Absent, wrong, expired and spent are answered alike: whoever guesses learns nothing.
        let token = self.tokens.get(id).filter(|token| token.secret_hash == secret_hash);
        let token = token.filter(|token| !token.is_expired(now.wall) && token.uses_left > 0).ok_or(Refusal::Token)?;
        let name = token.name.clone().unwrap_or(name);
        if self.agents.get(&name).is_some_and(|state| state.row.is_some()) {
            return Err(Refusal::NameTaken(name));
        }
        let mut token = token.clone();
        token.uses_left -= 1;
        if token.uses_left == 0 {
            self.tokens.remove(id);
            fx.commit.push(Change::DeleteJoinToken(id.to_owned()));
        } else {
            fx.commit.push(Change::PutJoinToken(token.clone()));
            self.tokens.insert(id.to_owned(), token.clone());
        }
        let labels_fixed = token.labels.is_some();
        let row = AgentRow::new(name.clone(), token.labels.unwrap_or(labels), now.wall);
        let row = AgentRow { labels_fixed, joined_by: Some(joins_by), ..row };
        fx.commit.push(Change::PutAgent(Box::new(row.clone())));
        note(fx, now, EventType::Normal, "Enrolled", format!("agent/{name}"), format!("with join token {id}"));
        // A forgotten agent of that name may still own something: it is waited out.
        self.agents.entry(name.clone()).or_insert_with(|| AgentState::new(None)).row = Some(row);
        Ok(Answer::Enrolled(name))
    }

    pub(super) fn show(&self, now: Now, agent: &AgentState) -> Option<Agent> {
        let row = agent.row.as_ref()?;
        let phase = agent.phase(row);
        let renewed = agent.renewed_at.map(|at| before(now.wall, now.boot.since(at)));
        let autonomies = agent.owned.iter().filter_map(|key| self.owners.get(key)).filter(|owned| owned.claimed);
        let longest = autonomies.filter_map(|owned| match owned.row.autonomy {
            Autonomy::For(l) => Some(Duration::from(l)),
            Autonomy::Forever => None,
        });
        let lease = longest.max().map(|l| l * 19 / 20);
        let (reason, message) = if let Some(why) = &row.twin {
            (Some(Reason::DUPLICATE_IDENTITY), Some(twin_message(&row.name, why)))
        } else if agent.skew > SKEW_LIMIT {
            let seconds = agent.skew.as_secs();
            let message = format!("its clock is {seconds} s off: it gets nothing new until that is mended");
            (Some(Reason::CLOCK_SKEW), Some(message))
        } else if agent.disk_full {
            (Some(Reason::AGENT_DISK), Some("its disk is full: it starts nothing until there is room".into()))
        } else {
            (None, None)
        };
        Some(Agent {
            metadata: AgentMeta { name: row.name.clone(), labels: row.labels.clone() },
            status: AgentStatus {
                phase,
                address: agent.session.as_ref().map(|session| session.address.clone()),
                transport: agent.session.as_ref().map(|session| session.transport),
                version: row.version.clone(),
                slots: row.slots,
                busy: agent.busy,
                last_seen: agent.last_seen(now),
                lease_until: renewed.zip(lease).map(|(at, l)| xene_agent::decide::time::after(at, l)),
                pipelines: agent.owned.iter().cloned().collect(),
                reason,
                message,
            },
        })
    }
}
