//! What the controller knows, durably: LMDB tables, and one writer that groups commits.

use std::{path::Path, sync::Arc};

use crate::decide::rows::{Batch, Change, Loaded};

pub mod logs;

/// The store. Cheap to clone; reads never block.
#[derive(Debug, Clone)]
pub struct Store {}

/// Why the store can't do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {}

/// What was committed together, as watchers get it.
#[derive(Debug)]
pub struct Committed {
    /// Counts up with every group of commits.
    pub revision: u64,
    /// In order.
    pub changes: Vec<Arc<Change>>,
}

impl Store {
    /// Opens or makes the store in the folder `store/` of `data`.
    ///
    /// # Errors
    /// If it can't be opened, or a newer version wrote it.
    pub fn open(_data: &Path) -> Result<Self, StoreError> {
        unimplemented!()
    }

    /// Reads the working set.
    ///
    /// # Errors
    /// If a row can't be read.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        unimplemented!()
    }

    /// Queues a batch; `done` is called from the writer once it and all before it are synced, or with the error that
    /// ends the store. Batches are applied in the order of the calls, whole or not at all.
    pub fn commit(&self, _batch: Batch, _done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        unimplemented!()
    }
}
