//! API tokens, and whose word a command is.

use std::time::Duration;

use xene_agent::decide::time::{Now, before};
use xene_schemas::{event::EventType, meta::Name};

use super::{
    Controller,
    event::{Answer, Command, Effects, Refusal, RunOrder},
    note,
    rows::{ApiTokenRow, Change, JoinTokenRow},
};

/// So long an expired join token is there to be seen.
const EXPIRED_SHOWN: Duration = Duration::from_secs(24 * 3_600);

/// What an event says of a command: reason, about what, in a few words.
type Words = (&'static str, String, String);

fn words_of(order: &RunOrder) -> Words {
    let forced = if order.force { ", even if suspended" } else { "" };
    ("RunRequested", format!("run/{}", order.run), format!("of {}{forced}", order.pipeline))
}

/// The events of a command that leaves no other word of who asked.
fn words(command: &Command) -> Vec<Words> {
    vec![match command {
        Command::StartRun(order) => words_of(order),
        Command::StartRuns(orders) => return orders.iter().map(words_of).collect(),
        Command::Rerun(again) => {
            let which = if again.failed { "the failed tasks of" } else { "all of" };
            let original = again.original.run.metadata.name;
            ("RunRequested", format!("run/{}", again.run), format!("{which} run {original} again"))
        }
        Command::CancelRun { run, .. } => ("CancelRequested", format!("run/{run}"), "it is to end".into()),
        Command::Approve(decision) => {
            let reason = if decision.approved { "Approved" } else { "Rejected" };
            let message = if decision.task.is_empty() { "all tasks".into() } else { format!("task {}", decision.task) };
            (reason, format!("run/{}", decision.run), message)
        }
        Command::Drain(agent) => ("DrainRequested", format!("agent/{agent}"), "it is to give all back".into()),
        Command::Undrain(agent) => ("UndrainRequested", format!("agent/{agent}"), "its drain ends".into()),
        Command::Revoke(agent) => ("RevokeRequested", format!("agent/{agent}"), "its identity is refused".into()),
        Command::Forget(agent) => ("ForgetRequested", format!("agent/{agent}"), "it will not come back".into()),
        Command::CreateJoinToken(row) => {
            let message = format!("join token {}, for {} uses until {:.0}", row.id, row.uses_left, row.expires_at);
            ("JoinTokenCreated", "controller".into(), message)
        }
        Command::RevokeJoinToken(id) => {
            ("JoinTokenRevoked", "controller".into(), format!("join token {id} lets nobody in any more"))
        }
        Command::CreateApiToken(row) => {
            let scope = row.scope.as_ref().map(|names| {
                let names: Vec<&str> = names.iter().map(Name::as_str).collect();
                format!(" for {}", names.join(", "))
            });
            let until = row.expires_at.map(|at| format!(" until {at:.0}"));
            let message = format!("{}{}{}", row.role, scope.unwrap_or_default(), until.unwrap_or_default());
            ("TokenCreated", format!("token/{}", row.name), message)
        }
        Command::RevokeApiToken(name) => ("TokenRevoked", format!("token/{name}"), "it is refused".into()),
        // These keep it themselves, or nobody is behind them.
        Command::Suspend { .. }
        | Command::Resume { .. }
        | Command::ApprovePrune { .. }
        | Command::Pause { .. }
        | Command::Unpause { .. }
        | Command::ConfirmClock { .. }
        | Command::Fence { .. }
        | Command::Enrol { .. }
        | Command::Certify { .. }
        | Command::By { .. } => return Vec::new(),
    }]
}

impl Controller {
    /// Carries a command out, and keeps whose word it was.
    pub(super) fn command_by(
        &mut self,
        now: Now,
        by: &str,
        command: Command,
        fx: &mut Effects,
    ) -> Result<Answer, Refusal> {
        let mut words = words(&command);
        let answer = self.command(now, command, fx)?;
        if let Answer::Runs(runs) = &answer {
            // Pipelines that are suspended were left out.
            let made: Vec<String> = runs.iter().map(|run| format!("run/{}", run.metadata.name)).collect();
            words.retain(|(_, regarding, _)| made.contains(regarding));
        }
        for (reason, regarding, message) in words {
            note(fx, now, EventType::Normal, reason, regarding, format!("{message}, by {by}"));
        }
        Ok(answer)
    }

    pub(super) fn create_api_token(&mut self, now: Now, row: ApiTokenRow, fx: &mut Effects) -> Result<Answer, Refusal> {
        if let Some(known) = self.api_tokens.get(&row.name) {
            if !known.is_expired(now.wall) {
                return Err(Refusal::TokenNameTaken(row.name));
            }
            fx.commit.push(Change::DeleteApiToken(known.id.clone()));
        }
        fx.commit.push(Change::PutApiToken(row.clone()));
        self.api_tokens.insert(row.name.clone(), row);
        Ok(Answer::Done)
    }

    pub(super) fn revoke_api_token(&mut self, name: &Name, fx: &mut Effects) -> Result<Answer, Refusal> {
        let row = self.api_tokens.remove(name);
        let row = row.ok_or_else(|| Refusal::NotFound { kind: "token", name: name.to_string() })?;
        fx.commit.push(Change::DeleteApiToken(row.id));
        Ok(Answer::Done)
    }

    /// Of join tokens that nobody revokes those go that have long been expired.
    pub(super) fn create_join_token(&mut self, now: Now, row: JoinTokenRow, fx: &mut Effects) -> Answer {
        let long_ago = before(now.wall, EXPIRED_SHOWN);
        for (id, _) in self.tokens.extract_if(.., |_, token| token.is_expired(long_ago)) {
            fx.commit.push(Change::DeleteJoinToken(id));
        }
        fx.commit.push(Change::PutJoinToken(row.clone()));
        self.tokens.insert(row.id.clone(), row);
        Answer::Done
    }

    pub(super) fn revoke_join_token(&mut self, id: String, fx: &mut Effects) -> Result<Answer, Refusal> {
        if self.tokens.remove(&id).is_none() {
            return Err(Refusal::NotFound { kind: "join token", name: id });
        }
        fx.commit.push(Change::DeleteJoinToken(id));
        Ok(Answer::Done)
    }
}
