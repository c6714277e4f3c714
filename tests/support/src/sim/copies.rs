//! Hosts that are copied, and what a person does about two with one name.

use xene::decide::rows::AgentRow;
use xene_agent::decide::event::Recovered;
use xene_schemas::pipeline::Autonomy;

use super::{
    clock::{Clock, SECOND},
    invariants::Violation,
    network::Link,
    node::AgentNode,
    world::{What, World},
};

impl World {
    /// A host is copied as it is, and the copy is switched on some time later.
    pub(super) fn copy(&mut self, agent: usize, outage: u64) {
        let journal = self.agents[agent].journal.clone();
        // What it has without end a copy starts as soon as it is on: nobody promises anything of that.
        let endless = journal.claims.values().any(|row| row.claimed && row.autonomy == Autonomy::Forever);
        if endless || journal.token.is_none() || self.agents[agent].copy_of.is_some() {
            return;
        }
        self.history.mark(self.at, &self.agents[agent].name, || "is copied".into());
        self.break_session(agent, SECOND);
        self.later(10 * SECOND + outage, What::StartCopy { agent, journal: Box::new(journal) });
    }

    /// Of the first after another nobody can tell which it is; so this is about copies of what has gone on since.
    pub(super) fn start_copy(&mut self, agent: usize, journal: Recovered) -> Result<(), Violation> {
        let row = self.controller.store.agents.get(&self.agents[agent].name);
        let superseded =
            |row: &AgentRow| !row.tokens.is_empty() && !journal.token.is_some_and(|t| row.tokens.contains(&t));
        if !self.acting || self.restored || !row.is_some_and(superseded) {
            return Ok(());
        }
        let rate = self.random.pick(self.setup.rates);
        let mut node = AgentNode::new(self.agents[agent].name.clone(), Clock::boot(self.at, rate));
        (node.journal, node.boots) = (journal, 1_000 + u32::try_from(self.agents.len()).unwrap_or(0));
        (node.forgotten, node.copy_of) = (true, Some(agent));
        self.history.mark(self.at, &node.name, || "has a copy, which is switched on".into());
        self.agents.push(node);
        self.links.push(Link::default());
        self.start_process(self.agents.len() - 1)
    }

    /// An agent's row says that there are two of it: a person sees that, sooner or later.
    pub(super) fn notice_twin(&mut self, row: &AgentRow) {
        let known = self.controller.store.agents.get(&row.name).is_some_and(|known| known.twin.is_some());
        if row.twin.is_some()
            && !known
            && let Some(agent) = self.agents.iter().position(|node| node.name == row.name)
        {
            self.history.mark(self.at, &row.name, || "is there twice".into());
            let wait = self.random.between(SECOND, 20 * SECOND);
            self.later(wait, What::Part { agent });
        }
    }

    /// A person switches off all that have this name, and forgets it.
    pub(super) fn part(&mut self, agent: usize) -> Result<(), Violation> {
        let all = 0..self.agents.len();
        for at in all.filter(|at| *at == agent || self.agents[*at].copy_of == Some(agent)).collect::<Vec<_>>() {
            self.crash_agent(at)?;
        }
        self.agents[agent].forgotten = true;
        let wait = self.random.between(70 * SECOND, 100 * SECOND);
        self.later(wait, What::Forget { agent });
        Ok(())
    }
}
