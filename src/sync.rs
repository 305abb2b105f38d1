//! The primitives behind what threads look at together: index, records in flight, slab.
//!
//! Those modules take locks, atomics and the concurrent map from here. In every ordinary build these are std's and
//! dashmap's. With `--cfg larder_model` they are shuttle's, which runs the same code under schedules of its choice
//! (`tests/handover`, `docs/CONCURRENCY.md`).

#[cfg(larder_model)]
mod modelled;

#[cfg(not(larder_model))]
pub(crate) use dashmap::{DashMap as ConcurrentMap, Entry};
#[cfg(larder_model)]
pub(crate) use modelled::{ConcurrentMap, Entry};

#[cfg(larder_model)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, atomic};
#[cfg(not(larder_model))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, atomic};

/// A size, or a smaller one where a model makes and drops the whole structure for each schedule.
pub(crate) const fn scaled(size: usize, modelled: usize) -> usize {
    if cfg!(larder_model) { modelled } else { size }
}
