//! Worlds without chance, in which a test does things one after the other and reads what came of it.

use std::collections::BTreeSet;

use super::{History, Random, Setup, World, clock::SECOND, history::time_of_day, world::What};

/// What a story's only pipeline is.
#[derive(Debug, Clone, Copy)]
pub struct Fires {
    schedule: &'static str,
    autonomy: &'static str,
    exclusive: bool,
}

/// A pipeline with this schedule.
pub fn fires(schedule: &'static str) -> Fires {
    Fires { schedule, autonomy: "5m", exclusive: false }
}

impl Fires {
    /// With this L.
    pub fn autonomy(self, autonomy: &'static str) -> Self {
        Self { autonomy, ..self }
    }

    /// Its runs never overlap, whatever the network does; their steps take up to a minute and a half.
    pub fn exclusive(self) -> Self {
        Self { exclusive: true, ..self }
    }
}

/// A world in which only what the test does happens. Agents are `a`, `b` …, by number.
#[derive(Debug)]
pub struct Story(World);

impl Story {
    /// With so many agents; the first was there first, and owns the pipeline.
    pub fn begin(agents: usize, fires: Fires) -> Self {
        Self::begin_with(agents, 1, fires)
    }

    /// The same with so many pipelines, each in a workflow of its own.
    pub fn begin_with(agents: usize, workflows: usize, fires: Fires) -> Self {
        let mut world = World::new(Setup::calm(agents), Random::new(0), History::of_marks());
        world.source.begin_with(workflows, (fires.schedule, fires.autonomy), fires.exclusive);
        world.acting = fires.exclusive;
        let mut story = Self(world);
        story.law(World::begin);
        for agent in 0..agents {
            story.law(|world| world.start_agent(agent));
            story.pass(2);
        }
        story
    }

    fn law(&mut self, act: impl FnOnce(&mut World) -> Result<(), super::Violation>) {
        if let Err(violation) = act(&mut self.0) {
            panic!("{violation}\n{}", self.0.history.lines().join("\n"));
        }
    }

    /// Time passes, in seconds.
    pub fn pass(&mut self, seconds: u64) {
        self.law(|world| world.run_until(world.at + seconds * SECOND));
    }

    /// A host is gone for good.
    pub fn power_off(&mut self, agent: usize) {
        self.law(|world| world.crash_agent(agent));
    }

    /// A host that was gone boots, and is back.
    pub fn power_on(&mut self, agent: usize) {
        self.0.reboot(agent);
        self.law(|world| world.start_agent(agent));
    }

    /// A host goes down and comes up again this many seconds later.
    pub fn reboot(&mut self, agent: usize, seconds: u64) {
        self.law(|world| {
            world.crash_agent(agent)?;
            world.reboot(agent);
            world.later(seconds * SECOND, What::StartAgent { agent });
            Ok(())
        });
    }

    /// A process stands still for so many seconds.
    pub fn stand_still(&mut self, agent: usize, seconds: u64) {
        self.law(|world| {
            world.pause_agent(agent, seconds * SECOND);
            Ok(())
        });
    }

    /// The disk of the controller is full for so many seconds.
    pub fn fill_disk(&mut self, seconds: u64) {
        self.law(|world| world.fill_disk(seconds * SECOND));
    }

    /// The session of an agent breaks, and it dials again.
    pub fn break_session(&mut self, agent: usize) {
        self.0.history.mark(self.0.at, &self.0.agents[agent].name, || "loses its session".into());
        self.0.break_session(agent, SECOND);
    }

    /// Agents are cut off for so many seconds.
    pub fn cut_off(&mut self, agents: &[usize], seconds: u64) {
        for agent in agents {
            self.law(|world| {
                world.cut_off(*agent, seconds * SECOND);
                Ok(())
            });
        }
    }

    /// A host is copied, and the copy is switched on some ten seconds later.
    pub fn copy(&mut self, agent: usize) {
        self.law(|world| {
            world.acting = true;
            world.copy(agent, SECOND);
            Ok(())
        });
    }

    /// What an agent's journal is told takes so many seconds longer from now on.
    pub fn slow_disk(&mut self, agent: usize, seconds: u64) {
        self.0.agents[agent].slow_disk = seconds * SECOND;
    }

    /// The wall clock of the controller's host is set to so many seconds ahead of true time.
    pub fn controllers_clock(&mut self, ahead: i64) {
        self.0.history.mark(self.0.at, "controller", || format!("its clock is {ahead} s ahead"));
        self.0.controller.clock.set_offset(ahead * SECOND.cast_signed());
    }

    /// A person has the certificate authority replaced.
    pub fn rotate(&mut self) {
        self.law(World::rotate);
    }

    /// Tells of whom the rotation waits.
    pub fn tell_rotation(&mut self) {
        let machine = self.0.controller.machine.as_ref();
        let rotation = machine.and_then(|machine| machine.status().ca_rotation);
        self.0.history.mark(self.0.at, "controller", || match rotation {
            Some(rotation) => {
                let waiting: Vec<String> = rotation.waiting.iter().map(ToString::to_string).collect();
                format!("trusts two authorities, and waits for {}", waiting.join(", "))
            }
            None => "trusts one authority".into(),
        });
    }

    /// Tells until when the processes of an agent's runs live, by what shims are told.
    pub fn tell_bounds(&mut self, agent: usize) {
        let node = &self.0.agents[agent];
        let runs: BTreeSet<_> = node.running.iter().map(|id| id.run).collect();
        for run in runs {
            let Some(until) = node.bounds.get(&run) else { continue };
            let until = time_of_day(node.clock.when(*until).wall());
            self.0.history.mark(self.0.at, &node.name, || {
                format!("the run that was due {} ends by {until}", time_of_day(run.at()))
            });
        }
    }

    /// What the ledger says of each due time, in order.
    pub fn ledger(&self) -> Vec<String> {
        let rows = self.0.controller.store.ledger.values();
        let told = rows.map(|row| {
            let what = row.reason.as_ref().map_or_else(|| "run".to_owned(), ToString::to_string);
            let until = row.until.map(|until| format!("-{}", time_of_day(until))).unwrap_or_default();
            format!("{}{until} {what}", time_of_day(row.slot))
        });
        told.collect()
    }

    /// A person says that the machine of an agent is off.
    pub fn fence(&mut self, agent: usize) {
        self.law(|world| world.fence(agent));
    }

    /// A person lets agents go on alone for so many seconds.
    pub fn announce(&mut self, seconds: u64) {
        self.law(|world| world.announce(Some(seconds)));
    }

    /// The controller stands still for so many seconds.
    pub fn controller_stands_still(&mut self, seconds: u64) {
        self.law(|world| {
            world.pause_controller(seconds * SECOND);
            Ok(())
        });
    }

    /// A person drains an agent.
    pub fn drain(&mut self, agent: usize) {
        self.law(|world| world.drain(agent));
    }

    /// A person takes that back.
    pub fn undrain(&mut self, agent: usize) {
        self.drain(agent);
    }

    /// The controller ends.
    pub fn stop_controller(&mut self) {
        self.law(World::stop_controller);
    }

    /// The controller comes back.
    pub fn start_controller(&mut self) {
        self.law(World::start_controller);
    }

    /// What happened, but for what is said all the time.
    pub fn tell(&self) -> String {
        self.0.history.lines().iter().map(|line| format!("{line}\n")).collect()
    }
}
