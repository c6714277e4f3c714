//! What kind of world it is: how many hosts, how bad the network, what happens how often.

use xene_agent::decide::mutant::Mutant;

use super::{clock::SECOND, random::Random};

/// Something that happens to a world from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A commit lands on the branch.
    Commit,
    /// A person starts a pipeline.
    Trigger,
    /// A person ends a run.
    Cancel,
    /// A person starts a run again, as it was.
    Rerun,
    /// A person lets a task run that waits for approval, or does not.
    Approve,
    /// A person suspends a workflow, a pipeline or the source.
    Suspend,
    /// A person takes that back.
    Resume,
    /// The network between an agent and the controller is cut, in one direction or both.
    Cut,
    /// A session breaks.
    Break,
    /// An agent's process is killed.
    CrashAgent,
    /// An agent's host goes down and comes up again.
    Reboot,
    /// An agent loses its data folder.
    Wipe,
    /// The controller's process is killed.
    CrashController,
    /// An agent's process stands still.
    PauseAgent,
    /// The controller's process stands still.
    PauseController,
    /// A wall clock is stepped.
    StepClock,
    /// A person drains an agent, or takes that back.
    Drain,
    /// An agent's host wants its process to end in order.
    Terminate,
    /// An agent's host is copied, and the copy is switched on.
    Copy,
    /// The controller's disk has no room for a while.
    FillDisk,
    /// A person forgets an agent that is gone.
    Forget,
    /// A person revokes an agent that is up.
    Revoke,
    /// A person says that the machine of an agent is off, as it is.
    Fence,
    /// Most agents are cut off at once.
    Partition,
    /// A person announces downtime of the controller, or takes that back.
    Pause,
    /// An agent's disk refuses.
    JournalFails,
    /// The store is copied.
    Backup,
    /// The controller's process is killed, and started on the copy.
    Restore,
}

/// The kind of a world.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The rule that is left out.
    pub mutant: Option<Mutant>,
    /// How many agents.
    pub agents: usize,
    /// How many workflows at most, of one or two pipelines each.
    pub workflows: usize,
    /// When they fire.
    pub schedules: &'static [&'static str],
    /// L.
    pub autonomies: &'static [&'static str],
    /// How many of a thousand workflows want an agent of zone a.
    pub zoned: u64,
    /// How many of a thousand workflows are of one group.
    pub grouped: u64,
    /// How many of a thousand workflows have a pipeline that follows another.
    pub following: u64,
    /// How many of a thousand workflows have a task that waits for approval.
    pub gated: u64,
    /// How many of a thousand workflows are exclusive; their steps take long.
    pub exclusive: u64,
    /// The longest that one of their steps takes, in seconds.
    pub lasts: u64,
    /// How many of a thousand workflows have lost runs and due times started again.
    pub again: u64,
    /// How many of a thousand worlds have notifiers.
    pub notified: u64,
    /// How fast elapsed time of a host runs, in thousandths.
    pub rates: &'static [u64],
    /// True: messages are lost, doubled and overtake each other. False: sessions are ordered streams that break.
    pub hostile: bool,
    /// The longest ordinary delay of a message, in nanoseconds.
    pub delay: u64,
    /// How many messages of a thousand take up to [`Self::long_delay`].
    pub slow: u64,
    /// In nanoseconds.
    pub long_delay: u64,
    /// ε, in seconds: how long a process may stand still between check and start.
    pub pause_margin: u64,
    /// How many starts of a thousand have such a pause.
    pub pauses: u64,
    /// How many effects of ten thousand their process dies before.
    pub crashes: u64,
    /// How long things happen, in seconds.
    pub horizon: u64,
    /// The longest time between two actions, in seconds.
    pub calm: u64,
    /// The longest outage of a host, a process or a link, in seconds.
    pub outage: u64,
    /// How often each action is chosen, in proportion.
    pub actions: Vec<(Action, u64)>,
}

const QUICK: &[&str] = &["*/10 * * * * *", "*/15 * * * * *", "0 * * * * *"];
const RARE: &[&str] = &["0 */2 * * * *", "0 */3 * * * *"];
const MIXED: &[&str] = &["*/10 * * * * *", "0 * * * * *", "0 */2 * * * *"];
const SHORT: &[&str] = &["30s", "30s", "60s"];
const ANY: &[&str] = &["30s", "60s", "2m", "Forever"];

impl Setup {
    /// A world in which nothing happens by itself.
    pub fn calm(agents: usize) -> Self {
        Self {
            mutant: None,
            agents,
            workflows: 1,
            schedules: QUICK,
            autonomies: SHORT,
            zoned: 0,
            grouped: 0,
            following: 0,
            gated: 0,
            exclusive: 0,
            lasts: 90,
            again: 0,
            notified: 0,
            rates: &[1000],
            hostile: false,
            delay: SECOND / 100,
            slow: 0,
            long_delay: 0,
            pause_margin: 60,
            pauses: 0,
            crashes: 0,
            horizon: 0,
            calm: 0,
            outage: 0,
            actions: Vec::new(),
        }
    }

    /// A world like those that people run, with more bad luck.
    pub fn ordinary(random: &mut Random) -> Self {
        use Action::{
            Approve, Backup, Break, Cancel, Commit, Copy, CrashAgent, CrashController, Cut, Drain, Fence, Forget,
            JournalFails, Partition, PauseAgent, PauseController, Reboot, Rerun, Restore, Resume, StepClock, Suspend,
            Terminate, Trigger, Wipe,
        };
        let every = [
            (Commit, 10),
            (Trigger, 12),
            (Cancel, 4),
            (Rerun, 2),
            (Approve, 4),
            (Suspend, 2),
            (Resume, 3),
            (Cut, 10),
            (Break, 6),
            (CrashAgent, 8),
            (Reboot, 5),
            (Wipe, 1),
            (CrashController, 6),
            (PauseAgent, 4),
            (PauseController, 3),
            (StepClock, 3),
            (Drain, 8),
            (Terminate, 2),
            (Copy, 1),
            (Forget, 1),
            (Fence, 2),
            (Partition, 2),
            (Action::Pause, 2),
            (JournalFails, 1),
            (Backup, 2),
            (Restore, 1),
        ];
        // Swarm: a world in which half of all kinds of trouble are absent has more of the other half.
        let actions = every.into_iter().filter(|_| random.chance(600)).collect();
        let workflows = random.pick(&[1, 1, 2, 2, 2, 3, 3, 3, 5, 15]);
        let many = workflows > 3;
        Self {
            mutant: None,
            agents: random.index(4) + 2,
            workflows,
            schedules: if many { RARE } else { random.pick(&[QUICK, RARE, MIXED]) },
            autonomies: random.pick(&[SHORT, ANY]),
            zoned: random.pick(&[0, 0, 300]),
            grouped: if many { 0 } else { random.pick(&[0, 0, 700]) },
            following: random.pick(&[0, 500]),
            gated: random.pick(&[0, 0, 500]),
            exclusive: random.pick(&[0, 0, 400]),
            lasts: random.pick(&[90, 90, 180]),
            again: random.pick(&[0, 0, 500]),
            notified: 300,
            rates: &[950, 970, 1000, 1000, 1030, 1050],
            hostile: random.chance(400),
            delay: random.pick(&[SECOND / 100, SECOND / 4, 2 * SECOND]),
            slow: random.pick(&[0, 10, 50]),
            long_delay: random.pick(&[5, 20, 60]) * SECOND,
            pause_margin: random.pick(&[1, 5, 60]),
            pauses: random.pick(&[0, 50, 300]),
            crashes: random.pick(&[0, 5, 20]),
            horizon: random.pick(&[200, 400, 600]),
            calm: random.pick(&[10, 20, 60]),
            outage: random.pick(&[10, 60, 200]),
            actions,
        }
    }

    /// An ordinary world in which the controller's disk is full for a while, over and over, and sessions break.
    pub fn full(random: &mut Random) -> Self {
        let mut setup = Self::ordinary(random);
        setup.actions.extend([(Action::FillDisk, 30), (Action::Break, 30)]);
        setup.outage = setup.outage.max(60);
        setup
    }

    /// An ordinary world without one rule, with more of what that rule is for.
    pub fn without(mutant: Mutant, random: &mut Random) -> Self {
        let mut setup = Self::ordinary(random);
        let mut more = |actions: &[Action]| setup.actions.extend(actions.iter().map(|action| (*action, 30)));
        match mutant {
            Mutant::LeaseFromReceipt => {
                more(&[Action::Cut]);
                (setup.pause_margin, setup.slow, setup.long_delay) = (1, 100, 25 * SECOND);
            }
            Mutant::GrantStartsLease => {
                more(&[Action::PauseAgent, Action::Drain, Action::Cut]);
                setup.outage = 200;
            }
            Mutant::RestartWithoutWaiting => more(&[Action::CrashController, Action::Cut]),
            Mutant::LeaseKeptOverReboot => more(&[Action::Reboot]),
            Mutant::CatchUpAfterTakeover => {
                more(&[Action::Cut, Action::Reboot]);
                setup.schedules = QUICK;
            }
            Mutant::IntentAfterStart => {
                setup.crashes = 50;
                more(&[Action::CrashAgent]);
            }
            Mutant::NoHighestEpoch => {
                more(&[Action::Drain]);
                (setup.hostile, setup.slow, setup.long_delay) = (true, 200, 20 * SECOND);
            }
            Mutant::RestoreTrustsTable | Mutant::RecoveryAdoptsDeadClaim => {
                more(&[Action::Backup, Action::Restore, Action::Drain, Action::Cut]);
            }
            Mutant::BreakerOff => {
                setup.agents = 5;
                more(&[Action::Partition]);
                (setup.outage, setup.horizon, setup.workflows) = (400, 600, 5);
            }
            Mutant::StallUnnoticed => {
                more(&[Action::PauseController]);
                (setup.outage, setup.workflows) = (200, 5);
            }
            Mutant::ShorterAtOnce => {
                more(&[Action::Pause, Action::Cut]);
                setup.pause_margin = 1;
            }
            Mutant::RunsOutliveLease => {
                more(&[Action::Cut, Action::Drain]);
                (setup.exclusive, setup.pause_margin, setup.schedules) = (1_000, 1, QUICK);
            }
            Mutant::BoundsKeepLongerL => {
                more(&[Action::Pause, Action::Cut]);
                (setup.exclusive, setup.pause_margin, setup.schedules) = (1_000, 1, QUICK);
                setup.lasts = 180;
            }
            Mutant::MessageGoneTooEarly => {
                more(&[Action::CrashController]);
                setup.notified = 1_000;
            }
            Mutant::RetryTooEarly => {
                more(&[Action::Cut, Action::Reboot]);
                (setup.again, setup.exclusive) = (1_000, 500);
            }
            Mutant::RetryUncounted => {
                // A run has to lose four agents, one after the other.
                setup.actions = vec![(Action::Fence, 1)];
                (setup.again, setup.exclusive, setup.gated) = (1_000, 1_000, 1_000);
                (setup.horizon, setup.calm) = (1_500, 10);
            }
            Mutant::AmbiguousByDefault => {
                more(&[Action::Cut, Action::Reboot]);
                (setup.again, setup.schedules) = (0, QUICK);
            }
            Mutant::AmbiguousUnderItsName => {
                more(&[Action::Cut]);
                (setup.again, setup.schedules) = (1_000, QUICK);
            }
            Mutant::LastCheckDoubts => more(&[Action::Cut]),
            Mutant::DeltaKeepsSpec => {
                more(&[Action::Commit]);
                (setup.schedules, setup.hostile, setup.slow, setup.pause_margin) = (QUICK, false, 0, 1);
            }
            Mutant::ReplacedSpecGoesOn => {
                more(&[Action::Commit, Action::Cut]);
                (setup.schedules, setup.hostile, setup.slow, setup.pause_margin) = (QUICK, false, 0, 1);
            }
            Mutant::RevokedIsAnswered => {
                setup.agents = setup.agents.max(3);
                more(&[Action::Revoke]);
            }
            Mutant::WorkflowRowStays => more(&[Action::Commit]),
            Mutant::TakeoverAtL => {
                more(&[Action::Cut]);
                (setup.pause_margin, setup.pauses) = (60, 300);
            }
            Mutant::AcknowledgedEarly => more(&[Action::CrashController]),
            Mutant::JournalUnsynced => more(&[Action::Reboot]),
            Mutant::AnyToken => more(&[Action::Copy, Action::Cut, Action::Reboot]),
            Mutant::FenceKeepsEpoch => more(&[Action::Fence]),
            Mutant::WatermarksNotMerged => more(&[Action::Drain, Action::Cut]),
        }
        if mutant != Mutant::NoHighestEpoch {
            setup.autonomies = SHORT;
        }
        setup.outage = setup.outage.max(60);
        setup.mutant = Some(mutant);
        setup
    }
}
