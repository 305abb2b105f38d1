//! What a store has to do to be measured here.

use std::path::Path;
use std::time::Duration;

use crate::Result;
use crate::plan::Workload;

/// A store that is open. Threads borrow it.
pub trait Peer: Send + Sync {
    /// Stores an entry. With a time to live only where [`Kind::ttl`] is not [`TtlSupport::None`].
    fn put(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()>;

    /// Copies the value into `value`, which is empty, and says whether there is one. Who can give a reference copies
    /// too: a caller keeps what it reads.
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool>;

    /// Takes an entry away.
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Everything accepted before is on stable storage afterwards.
    fn flush(&self) -> Result<()>;

    /// Begins what a store that is left alone would do sooner or later, so that what is in memory is counted as it will
    /// be stored.
    fn begin_to_settle(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the store says that it is at work by itself, where it says so. See `settle`.
    fn is_busy(&self) -> Result<bool> {
        Ok(false)
    }

    /// Closes it as its documentation asks for.
    fn close(self: Box<Self>) -> Result<()>;

    /// That it is no store: the driver puts into the buffer what a store would have found.
    fn is_nothing(&self) -> bool {
        false
    }

    /// Bytes of memory that its index takes, where the store says so.
    fn index_bytes(&self) -> Option<u64> {
        None
    }
}

/// What a store is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for its block or page cache, where it has one of its own.
    pub cache_bytes: usize,
    /// Entries will have a time to live: what implements it is switched on.
    pub ttl: bool,
    /// An upper bound of what will be stored, for those that have to know beforehand.
    pub logical_bytes: u64,
}

/// How entries come to their end by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlSupport {
    /// Part of the store.
    Native,
    /// A compaction filter, and a look at the time on reading: written here, as a user of the store would.
    Filter,
    /// None: the driver deletes what has expired.
    None,
}

/// A store with its configuration.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// As it is called on the command line and in tables.
    pub name: &'static str,
    /// Crate and version.
    pub version: &'static str,
    /// What is set, and what a reader of its figures has to know.
    pub configuration: &'static str,
    /// How it expires entries.
    pub ttl: TtlSupport,
    /// Workloads that it cannot do, and why.
    pub unable: &'static [(Workload, &'static str)],
    /// Opens or creates it in a directory that exists.
    pub open: fn(&Path, &Options) -> Result<Box<dyn Peer>>,
}

impl Kind {
    /// Why it cannot do a workload.
    pub fn unable(&self, workload: Workload) -> Option<&'static str> {
        self.unable.iter().find(|(of, _)| *of == workload).map(|(_, why)| *why)
    }
}
