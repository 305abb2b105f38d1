//! foyer: a cache in memory before one on disk. Its disk engine drops what it is given faster than it can write, so the
//! adapter waits for it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, HybridCachePolicy,
};
use tokio::runtime::Runtime;

use crate::peer::{Kind, Options, Peer, TtlSupport};
use crate::{Result, failed};

/// Slowed down so that it drops nothing.
pub const KIND: Kind = Kind {
    name: "foyer",
    version: "foyer 0.22",
    configuration: "disk engine, written on insertion, paced: a wait for its flushers every 4 MiB of pages, without \
                    which it drops writes; no compression; it has no sync to ask for",
    ttl: TtlSupport::None,
    unable: &[],
    open,
};

/// Each entry takes whole pages of its device.
const PAGE_BYTES: usize = 4096;
/// Half of what one of its buffers holds.
const PACE_BYTES: usize = 4 << 20;
const RUNTIME_THREADS: usize = 2;

struct Foyer {
    store: HybridCache<Vec<u8>, Vec<u8>>,
    runtime: Runtime,
    /// Bytes of pages since the last wait.
    unpaced_bytes: Mutex<usize>,
}

fn open(dir: &Path, options: &Options) -> Result<Box<dyn Peer>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build()?;
    let capacity = (options.logical_bytes as usize * 8 + (1 << 30)).next_multiple_of(16 << 20);
    let device = FsDeviceBuilder::new(dir).with_capacity(capacity).build().map_err(failed)?;
    let building = HybridCacheBuilder::new()
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(options.cache_bytes)
        .with_weighter(|key: &Vec<u8>, value: &Vec<u8>| key.len() + value.len())
        .storage()
        .with_engine_config(BlockEngineConfig::new(device))
        .build();
    let store = runtime.block_on(building).map_err(failed)?;
    Ok(Box::new(Foyer { store, runtime, unpaced_bytes: Mutex::new(0) }))
}

impl Foyer {
    fn pace(&self, entry_bytes: usize) {
        let bytes = entry_bytes.next_multiple_of(PAGE_BYTES);
        // Who waits holds the lock: the other writers wait too.
        let mut unpaced_bytes = self.unpaced_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *unpaced_bytes += bytes;
        if *unpaced_bytes >= PACE_BYTES {
            *unpaced_bytes = 0;
            self.runtime.block_on(self.store.storage().wait());
        }
    }
}

impl Peer for Foyer {
    fn put(&self, key: &[u8], value: &[u8], _: Option<Duration>) -> Result<()> {
        self.store.insert(key.to_vec(), value.to_vec());
        self.pace(key.len() + value.len());
        Ok(())
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        let found = self.runtime.block_on(self.store.get(&key.to_vec())).map_err(failed)?;
        if let Some(entry) = &found {
            value.extend_from_slice(entry.value());
        }
        Ok(found.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.store.remove(&key.to_vec());
        self.pace(PAGE_BYTES);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.runtime.block_on(self.store.storage().wait());
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.runtime.block_on(self.store.close()).map_err(failed)
    }
}
