//! Worlds without chance, in which a test does things one after the other and reads what came of it.

use super::{History, Random, Setup, World, clock::SECOND, world::What};

/// What a story's only pipeline is.
#[derive(Debug, Clone, Copy)]
pub struct Fires {
    schedule: &'static str,
    autonomy: &'static str,
}

/// A pipeline with this schedule.
pub fn fires(schedule: &'static str) -> Fires {
    Fires { schedule, autonomy: "5m" }
}

impl Fires {
    /// With this L.
    pub fn autonomy(self, autonomy: &'static str) -> Self {
        Self { autonomy, ..self }
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
        world.source.begin_with(workflows, fires.schedule, fires.autonomy);
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

    /// A host that was gone is back.
    pub fn power_on(&mut self, agent: usize) {
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

    /// Agents are cut off for so many seconds.
    pub fn cut_off(&mut self, agents: &[usize], seconds: u64) {
        for agent in agents {
            self.law(|world| {
                world.cut_off(*agent, seconds * SECOND);
                Ok(())
            });
        }
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
