//! A bad network between an agent and its controller: a relay of UDP that loses, delays, doubles and cuts.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::sim::Random;

/// How often threads look whether the relay is gone.
const LOOK: Duration = Duration::from_millis(200);
/// What one datagram can be.
const DATAGRAM: usize = 1 << 16;

/// What one direction does to datagrams; by default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// So many of a thousand are lost.
    pub loss: u64,
    /// So many of a thousand come twice.
    pub doubled: u64,
    /// Each is this many milliseconds late, drawn anew each time, so that later ones overtake earlier ones.
    pub late: (u64, u64),
}

impl Way {
    /// Nothing gets through.
    pub const CUT: Self = Self { loss: 1000, doubled: 0, late: (0, 0) };
}

/// Both directions of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// From the agent to the controller.
    pub up: Way,
    /// From the controller to the agent.
    pub down: Way,
}

/// A relay; it ends with the value.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    front: UdpSocket,
    state: Mutex<State>,
    woken: Condvar,
    ended: AtomicBool,
}

#[derive(Debug)]
struct State {
    link: Link,
    random: Random,
    /// The socket towards the controller of each who dials.
    behind: HashMap<SocketAddr, Arc<UdpSocket>>,
    late: BinaryHeap<Reverse<Late>>,
    count: u64,
}

#[derive(Debug)]
struct Late {
    due: Instant,
    number: u64,
    datagram: Vec<u8>,
    goes: Goes,
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Late {}

impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Late {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[derive(Debug, Clone)]
enum Goes {
    Up(Arc<UdpSocket>),
    Down(SocketAddr),
}

impl Relay {
    /// A relay to `target` that does no harm yet.
    ///
    /// # Panics
    /// If the system gives no socket.
    pub fn to(target: SocketAddr, seed: u64) -> Self {
        let front = socket(target).expect("a socket");
        let address = front.local_addr().expect("its address");
        let state = State {
            link: Link::default(),
            random: Random::new(seed),
            behind: HashMap::new(),
            late: BinaryHeap::new(),
            count: 0,
        };
        let ended = AtomicBool::new(false);
        let shared = Arc::new(Shared { target, front, state: Mutex::new(state), woken: Condvar::new(), ended });
        let (in_front, late) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || in_front.receive());
        thread::spawn(move || late.deliver());
        Self { address, shared }
    }

    /// Where to dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to datagrams from now on.
    pub fn set(&self, link: Link) {
        self.shared.state().link = link;
    }

    /// As a NAT does that has forgotten: whoever dialed comes from another port now.
    pub fn rebind(&self) {
        self.shared.state().behind.clear();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

/// On the target's own address, which is on loopback.
fn socket(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((target.ip(), 0))?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the relay panics")
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn receive(self: Arc<Self>) {
        let mut buffer = vec![0; DATAGRAM];
        while !self.is_over() {
            let Ok((length, from)) = self.front.recv_from(&mut buffer) else { continue };
            let Some(behind) = self.behind(from) else { continue };
            self.pass(&buffer[..length], Goes::Up(behind));
        }
    }

    /// The socket towards the controller of who dials from there.
    fn behind(self: &Arc<Self>, from: SocketAddr) -> Option<Arc<UdpSocket>> {
        if let Some(known) = self.state().behind.get(&from) {
            return Some(Arc::clone(known));
        }
        let new = Arc::new(socket(self.target).ok()?);
        self.state().behind.insert(from, Arc::clone(&new));
        let (shared, answers) = (Arc::clone(self), Arc::clone(&new));
        thread::spawn(move || {
            let mut buffer = vec![0; DATAGRAM];
            // The map has one, and this thread.
            while !shared.is_over() && Arc::strong_count(&answers) > 1 {
                if let Ok((length, _)) = answers.recv_from(&mut buffer) {
                    shared.pass(&buffer[..length], Goes::Down(from));
                }
            }
        });
        Some(new)
    }

    #[expect(clippy::disallowed_methods, reason = "a test's network, which no suspend matters to")]
    fn pass(&self, datagram: &[u8], goes: Goes) {
        let now = Instant::now();
        let mut state = self.state();
        let way = match goes {
            Goes::Up(_) => state.link.up,
            Goes::Down(_) => state.link.down,
        };
        if state.random.chance(way.loss) {
            return;
        }
        let copies = 1 + u32::from(state.random.chance(way.doubled));
        if way.late.1 == 0 {
            drop(state);
            (0..copies).for_each(|_| self.send(datagram, &goes));
            return;
        }
        for _ in 0..copies {
            let due = now + Duration::from_millis(state.random.between(way.late.0, way.late.1));
            state.count += 1;
            let number = state.count;
            state.late.push(Reverse(Late { due, number, datagram: datagram.to_vec(), goes: goes.clone() }));
        }
        self.woken.notify_one();
    }

    #[expect(clippy::disallowed_methods, reason = "a test's network, which no suspend matters to")]
    fn deliver(&self) {
        let mut state = self.state();
        while !self.is_over() {
            let now = Instant::now();
            let wait = match state.late.peek() {
                Some(Reverse(next)) if next.due <= now => {
                    if let Some(Reverse(Late { datagram, goes, .. })) = state.late.pop() {
                        drop(state);
                        self.send(&datagram, &goes);
                        state = self.state();
                    }
                    continue;
                }
                Some(Reverse(next)) => next.due - now,
                None => LOOK,
            };
            state = self.woken.wait_timeout(state, wait).expect("no thread of the relay panics").0;
        }
    }

    fn send(&self, datagram: &[u8], goes: &Goes) {
        // Nobody may be there just now: that is a lost datagram.
        drop(match goes {
            Goes::Up(behind) => behind.send_to(datagram, self.target),
            Goes::Down(to) => self.front.send_to(datagram, to),
        });
    }
}
