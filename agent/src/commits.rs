//! Effects that wait for their commit: "durable before spoken", in the order in which it was decided.

use std::collections::VecDeque;

/// Commits on their way to the disk, each with the effects that follow it.
#[derive(Debug)]
pub struct Commits<E> {
    waiting: VecDeque<Waiting<E>>,
    /// The number of the first one that waits.
    first: u64,
}

#[derive(Debug)]
struct Waiting<E> {
    durable: bool,
    then: Vec<E>,
}

impl<E> Default for Commits<E> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), first: 0 }
    }
}

impl<E> Commits<E> {
    /// Queues effects behind all earlier ones; `durable` if they have no commit of their own. Gives their number.
    pub fn push(&mut self, then: Vec<E>, durable: bool) -> u64 {
        self.waiting.push_back(Waiting { durable, then });
        self.first + self.waiting.len() as u64 - 1
    }

    /// The commit of this number is durable.
    pub fn durable(&mut self, number: u64) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(waiting) = at.and_then(|at| self.waiting.get_mut(at)) {
            waiting.durable = true;
        }
    }

    /// The next effects whose commit, and all before it, are durable.
    pub fn next_durable(&mut self) -> Option<Vec<E>> {
        if !self.waiting.front()?.durable {
            return None;
        }
        self.first += 1;
        self.waiting.pop_front().map(|waiting| waiting.then)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_spoken_before_what_came_before_it_is_durable() {
        let mut commits = Commits::default();
        let first = commits.push(vec!["first"], false);
        let second = commits.push(vec!["second"], false);
        commits.push(vec!["no commit"], true);
        commits.durable(second);
        assert_eq!(commits.next_durable(), None);
        commits.durable(first);
        let spoken: Vec<_> = std::iter::from_fn(|| commits.next_durable()).flatten().collect();
        assert_eq!(spoken, ["first", "second", "no commit"]);
        commits.durable(first);
        assert!(commits.is_empty(), "a late word about an old commit changes nothing");
    }
}
