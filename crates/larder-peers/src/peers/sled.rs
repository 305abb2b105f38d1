//! sled: a lock-free tree of leaves, kept in memory for as long as there is room, written compressed.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sled::{Config, Db};

use crate::Result;
use crate::peer::{Kind, Options, Peer, TtlSupport};

/// Entries a leaf; the default of sled's own documentation.
const LEAF_FANOUT: usize = 1024;

/// The alpha of 1.0.
pub const KIND: Kind = Kind {
    name: "sled",
    version: "sled 1.0.0-alpha.124",
    configuration: "zstd 3 (default), 1024 entries a leaf (default), flushes by itself every 200 ms (default)",
    ttl: TtlSupport::None,
    unable: &[],
    open,
};

/// A handle of sled belongs to one thread. Each thread has a clone of its own, which it keeps.
struct Sled {
    store: Mutex<Db<LEAF_FANOUT>>,
    number: u64,
}

/// So that a thread does not take the handle of a store that was closed for that of another.
static STORES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static HANDLE: RefCell<Option<(u64, Db<LEAF_FANOUT>)>> = const { RefCell::new(None) };
}

impl Sled {
    fn with<T>(&self, act: impl FnOnce(&Db<LEAF_FANOUT>) -> io::Result<T>) -> Result<T> {
        HANDLE.with_borrow_mut(|handle| {
            if handle.as_ref().is_none_or(|(number, _)| *number != self.number) {
                let store = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
                *handle = Some((self.number, store));
            }
            let (_, store) = handle.as_ref().expect("it was set just now");
            Ok(act(store)?)
        })
    }
}

fn open(dir: &Path, options: &Options) -> Result<Box<dyn Peer>> {
    let store = Config::new().path(dir).cache_capacity_bytes(options.cache_bytes).open()?;
    Ok(Box::new(Sled { store: Mutex::new(store), number: STORES.fetch_add(1, Ordering::Relaxed) }))
}

impl Peer for Sled {
    fn put(&self, key: &[u8], value: &[u8], _: Option<Duration>) -> Result<()> {
        self.with(|store| store.insert(key, value).map(drop))
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        let found = self.with(|store| store.get(key))?;
        if let Some(bytes) = &found {
            value.extend_from_slice(bytes);
        }
        Ok(found.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.with(|store| store.remove(key).map(drop))
    }

    fn flush(&self) -> Result<()> {
        self.with(|store| store.flush().map(drop))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()?;
        HANDLE.set(None);
        Ok(())
    }
}
