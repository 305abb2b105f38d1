//! Larder, as it is without being configured, but for the sync each second that no other store here makes.

use std::path::Path;
use std::time::Duration;

use larder::{ColdTier, ColdTierConfig, CompactionTask, Durability};

use crate::Result;
use crate::peer::{Kind, Options, Peer, TtlSupport};

/// Maintains itself.
pub const KIND: Kind = Kind {
    name: "larder",
    version: "larder (this tree)",
    configuration: "defaults (tunes its compression and compacts by itself), but Durability::Never; no cache of its own",
    ttl: TtlSupport::Native,
    unable: &[],
    open: |dir, options| open(dir, options, false),
};

/// Is told to after the load.
pub const TUNED: Kind = Kind {
    name: "larder-compacted",
    version: "larder (this tree)",
    configuration: "as larder; to settle, OptimizeCompression and CompactData are asked for and waited for",
    ttl: TtlSupport::Native,
    unable: &[],
    open: |dir, options| open(dir, options, true),
};

struct Larder {
    store: ColdTier,
    compacts: bool,
}

fn open(dir: &Path, _: &Options, compacts: bool) -> Result<Box<dyn Peer>> {
    let store = ColdTier::open(ColdTierConfig::new(dir).durability(Durability::Never))?;
    Ok(Box::new(Larder { store, compacts }))
}

impl Peer for Larder {
    fn put(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        match ttl {
            None => self.store.insert(key, value)?,
            Some(ttl) => self.store.insert_with_ttl(key, value, ttl)?,
        }
        Ok(())
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        let found = self.store.get(key)?;
        if let Some(bytes) = &found {
            value.extend_from_slice(bytes);
        }
        Ok(found.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.store.remove(key)?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.store.flush()?)
    }

    fn begin_to_settle(&self) -> Result<()> {
        if self.compacts {
            self.store.run(CompactionTask::OptimizeCompression)?;
            self.store.run(CompactionTask::CompactData)?;
        }
        Ok(())
    }

    fn is_busy(&self) -> Result<bool> {
        Ok(self.store.compaction_state().is_compacting())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.store.close()?)
    }

    fn index_bytes(&self) -> Option<u64> {
        Some(self.store.stats().index_bytes)
    }
}
