//! The loop between the controller's machine and its shells: event in, commit, then effects out.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{broadcast, mpsc, oneshot};
use xene_agent::decide::time::Now;

use crate::{
    decide::{
        Controller,
        event::{Answer, Command, Event, Refusal, RequestId},
    },
    store::{Committed, Store, logs::LogStore},
};

/// Inputs wait here while the machine is busy. A thousand messages are a few milliseconds of work; a session or a
/// request that finds it full waits, and so slows its sender, not the memory.
const INPUTS: usize = 1024;

/// What can be asked of a running controller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    requests: Arc<AtomicU64>,
    watch: broadcast::Sender<Arc<Committed>>,
    store: Store,
    logs: LogStore,
}

/// The controller is shutting down and takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller is shutting down")]
pub struct Closed;

type View = Box<dyn FnOnce(&Controller, Now) + Send>;

enum Input {
    Event(Event),
    Ask(RequestId, Command, oneshot::Sender<Result<Answer, Refusal>>),
    View(View),
}

impl Handle {
    /// Tells the machine what happened.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub async fn tell(&self, event: Event) -> Result<(), Closed> {
        self.inputs.send(Input::Event(event)).await.map_err(|_| Closed)
    }

    /// [`Self::tell`] from a thread that is not async.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub fn tell_blocking(&self, event: Event) -> Result<(), Closed> {
        self.inputs.blocking_send(Input::Event(event)).map_err(|_| Closed)
    }

    /// Asks for something and waits until it is durable, or refused.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub async fn ask(&self, command: Command) -> Result<Result<Answer, Refusal>, Closed> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Ask(request, command, reply)).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }

    /// Looks at the machine; `look` must be quick.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Controller, Now) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let (reply, answer) = oneshot::channel();
        let view: View = Box::new(move |controller, now| drop(reply.send(look(controller, now))));
        self.inputs.send(Input::View(view)).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }

    /// What is committed from now on. A watcher that falls behind gets `Lagged`, and must read the store anew.
    pub fn watch(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.watch.subscribe()
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The logs.
    pub fn logs(&self) -> &LogStore {
        &self.logs
    }
}

#[cfg(test)]
impl Handle {
    /// A handle without a machine, for tests: `answer` takes its commands, all else is dropped.
    pub(crate) fn for_tests(
        store: Store,
        logs: LogStore,
        mut answer: impl FnMut(Command) -> Result<Answer, Refusal> + Send + 'static,
    ) -> Self {
        let (inputs, mut asked) = mpsc::channel(INPUTS);
        tokio::spawn(async move {
            while let Some(input) = asked.recv().await {
                if let Input::Ask(_, command, reply) = input {
                    drop(reply.send(answer(command)));
                }
            }
        });
        Self { inputs, requests: Arc::default(), watch: store.committed().clone(), store, logs }
    }
}
