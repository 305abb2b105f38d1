//! Writes of several calls in one transaction, for the stores whose transactions cost more than their writes.
//!
//! Until the transaction is committed its writes are found here, so that a caller reads what it wrote.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::Result;

/// Writes a transaction.
pub const BATCH_WRITES: usize = 1000;

/// `None` is a deletion.
pub type Writes = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// Writes that are not in a transaction yet.
#[derive(Default)]
pub struct Batch {
    /// Held for as long as a write or a commit takes; readers do not need it.
    turn: Mutex<()>,
    writes: RwLock<Writes>,
    /// So that readers need not take the lock where there is nothing.
    count: AtomicUsize,
}

impl Batch {
    /// Adds a write, and commits when there are enough of them.
    pub fn write(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        commit: impl FnOnce(&Writes) -> Result<()>,
    ) -> Result<()> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writes = self.writes.write().unwrap_or_else(PoisonError::into_inner);
        writes.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        let count = writes.len();
        self.count.store(count, Ordering::Release);
        drop(writes);
        if count >= BATCH_WRITES {
            self.commit(commit)?;
        }
        drop(turn);
        Ok(())
    }

    /// Commits what there is.
    pub fn flush(&self, commit: impl FnOnce(&Writes) -> Result<()>) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.commit(commit)
    }

    /// With the turn held. Readers go on meanwhile; they lose sight of the writes when the store has them.
    fn commit(&self, commit: impl FnOnce(&Writes) -> Result<()>) -> Result<()> {
        commit(&self.writes.read().unwrap_or_else(PoisonError::into_inner))?;
        self.writes.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.count.store(0, Ordering::Release);
        Ok(())
    }

    /// What is known of a key here: nothing, or its deletion (`Some(false)`), or its value.
    pub fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Option<bool> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let writes = self.writes.read().unwrap_or_else(PoisonError::into_inner);
        let write = writes.get(key)?;
        if let Some(bytes) = write {
            value.extend_from_slice(bytes);
        }
        Some(write.is_some())
    }
}
