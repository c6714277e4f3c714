//! What those share who have not shown who they are yet: places for connections, memory for bodies. When they take more
//! than that, whoever came first gives way, so that whoever comes now is heard, also behind a proxy whose address all
//! have in common.

use std::{
    collections::BTreeMap,
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::oneshot;

/// Something bounded, and who has how much of it.
#[derive(Debug)]
pub(super) struct Unproven {
    limit: u64,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    taken: u64,
    /// In the order in which they came.
    next: u64,
    holders: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    amount: u64,
    give_way: oneshot::Sender<()>,
}

/// One that has a part of it, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Unproven>,
    number: u64,
    told: Option<oneshot::Receiver<()>>,
}

/// Ends a [`Place`] from elsewhere, once it is known who has it.
#[derive(Debug, Clone)]
pub(super) struct Leave(Arc<Unproven>, u64);

impl Unproven {
    /// Not more than `limit` of it is taken at a time, unless by one alone.
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, shared: Mutex::default() })
    }

    /// A place for one that comes now, with so much of it.
    pub(super) fn enter(self: &Arc<Self>, amount: u64) -> Place {
        let (give_way, told) = oneshot::channel();
        let mut shared = self.shared();
        let number = shared.next;
        shared.next += 1;
        shared.holders.insert(number, Holder { amount: 0, give_way });
        drop(shared);
        self.add(number, amount);
        Place { of: self.clone(), number, told: Some(told) }
    }

    fn add(&self, number: u64, amount: u64) {
        let mut shared = self.shared();
        // One that gave way, or has shown who it is, takes nothing.
        let Some(holder) = shared.holders.get_mut(&number) else { return };
        holder.amount += amount;
        shared.taken += amount;
        while shared.taken > self.limit {
            let Some(first) = shared.holders.keys().copied().find(|first| *first != number) else { return };
            if let Some(holder) = shared.remove(first) {
                // Nobody may listen any more.
                let _ = holder.give_way.send(());
            }
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn remove(&mut self, number: u64) -> Option<Holder> {
        let holder = self.holders.remove(&number)?;
        self.taken -= holder.amount;
        Some(holder)
    }
}

impl Place {
    /// Takes more of it.
    pub(super) fn take(&self, amount: u64) {
        self.of.add(self.number, amount);
    }

    /// What ends it from elsewhere.
    pub(super) fn leave(&self) -> Leave {
        Leave(self.of.clone(), self.number)
    }

    /// Ready once it must give way.
    pub(super) fn poll_gives_way(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(told) = &mut self.told else { return Poll::Pending };
        match Pin::new(told).poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            // It was left.
            Poll::Ready(Err(_)) => {
                self.told = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits until it must give way.
    pub(super) async fn gives_way(&mut self) {
        let Some(told) = &mut self.told else { return pending().await };
        if told.await.is_err() {
            self.told = None;
            pending::<()>().await;
        }
    }
}

impl Leave {
    /// Who has the place has shown who they are: it counts no more, and need not give way.
    pub(super) fn now(&self) {
        self.0.shared().remove(self.1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.shared().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn gives_way(place: &mut Place) -> bool {
        place.poll_gives_way(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn whoever_came_first_gives_way_to_whoever_comes_now() {
        let of = Unproven::new(3);
        let mut places: Vec<Place> = (0..3).map(|_| of.enter(1)).collect();
        assert!(!places.iter_mut().any(gives_way));
        let mut late = of.enter(1);
        assert!(gives_way(&mut places[0]) && !gives_way(&mut places[1]) && !gives_way(&mut late));
        // It counts no more, whether or not it has gone by then.
        drop(places.remove(0));
        let mut later = of.enter(1);
        assert!(gives_way(&mut places[0]) && !gives_way(&mut places[1]));
        drop(late);
        let _last = of.enter(1);
        assert!(!gives_way(&mut places[1]) && !gives_way(&mut later));
    }

    #[test]
    fn whoever_is_known_has_a_place_of_their_own() {
        let of = Unproven::new(2);
        let mut known = of.enter(1);
        known.leave().now();
        let mut others = [of.enter(1), of.enter(1)];
        assert!(!gives_way(&mut known) && !others.iter_mut().any(gives_way));
        known.take(7);
        assert!(!others.iter_mut().any(gives_way));
    }

    #[test]
    fn who_takes_all_has_it_alone() {
        let of = Unproven::new(10);
        let mut first = of.enter(0);
        let mut second = of.enter(4);
        first.take(6);
        assert!(!gives_way(&mut first) && !gives_way(&mut second));
        first.take(6);
        assert!(gives_way(&mut second) && !gives_way(&mut first), "it does not give way to itself");
        assert_eq!(of.shared().taken, 12);
        drop((first, second));
        assert_eq!(of.shared().taken, 0);
    }
}
