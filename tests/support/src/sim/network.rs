//! The network: ordered streams that break, or messages that are lost, doubled and overtake each other.

use xene_schemas::wire::control::{AgentMessage, ControllerMessage};

use super::{
    clock::{Instant, MILLISECOND},
    random::Random,
    setup::Setup,
};

/// Something under way, with the session that it belongs to.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    /// To the controller.
    Up(AgentMessage),
    /// To the agent.
    Down(ControllerMessage),
}

impl Payload {
    /// What a hostile network, too, only delays: how a connection is made, and orders to start a run.
    fn is_safe(&self) -> bool {
        match self {
            Self::Up(message) => matches!(message, AgentMessage::Hello(_)),
            Self::Down(message) => matches!(
                message,
                ControllerMessage::Welcome(_) | ControllerMessage::Refused(_) | ControllerMessage::StartRun(_)
            ),
        }
    }

    fn is_acknowledgement(&self) -> bool {
        matches!(self, Self::Down(ControllerMessage::Acknowledged(_)))
    }
}

/// One direction between an agent and the controller.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Nothing passes.
    pub(super) cut: bool,
    /// When the last message of a stream arrives.
    last: Instant,
    held: Vec<(u64, Payload)>,
}

/// The way between an agent and the controller.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// To the controller.
    pub(super) up: Direction,
    /// To the agent.
    pub(super) down: Direction,
}

impl Link {
    /// True if a connection can be made.
    pub(super) fn is_whole(&self) -> bool {
        !self.up.cut && !self.down.cut
    }

    /// When copies of this message arrive: none, one or two times.
    pub(super) fn arrivals(
        &mut self,
        at: Instant,
        setup: &Setup,
        random: &mut Random,
        session: u64,
        payload: &Payload,
    ) -> [Option<Instant>; 2] {
        let direction = match payload {
            Payload::Up(_) => &mut self.up,
            Payload::Down(_) => &mut self.down,
        };
        let fragile = setup.hostile && !payload.is_safe();
        if direction.cut {
            // A stream sends it again once that has a chance.
            if !fragile {
                direction.held.push((session, payload.clone()));
            }
            return [None, None];
        }
        let mut once = || {
            let late = if random.chance(setup.slow) { random.between(0, setup.long_delay) } else { 0 };
            at + random.between(setup.delay / 20, setup.delay) + late
        };
        let (first, second) = (once(), once());
        if !fragile {
            direction.last = first.max(direction.last + 1);
            return [Some(direction.last), None];
        }
        // That a run is acknowledged to its end comes after the order to start it: an agent that has forgotten the run
        // has nothing but this order in the stream to know an old order by.
        let earliest = if payload.is_acknowledgement() { direction.last + 1 } else { at };
        let (first, second) = (first.max(earliest), second.max(earliest));
        [Some(first).filter(|_| !random.chance(50)), Some(second).filter(|_| random.chance(80))]
    }

    /// The cut is over: what a stream held is on its way again.
    pub(super) fn heal(&mut self) -> Vec<(u64, Payload)> {
        (self.up.cut, self.down.cut) = (false, false);
        let mut held = std::mem::take(&mut self.up.held);
        held.append(&mut self.down.held);
        held
    }

    /// When the end of the stream from the controller arrives, behind all that was said.
    pub(super) fn end(&self, at: Instant) -> Instant {
        self.down.last.max(at) + MILLISECOND
    }
}
