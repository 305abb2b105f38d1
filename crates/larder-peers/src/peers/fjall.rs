//! fjall: an LSM tree, with or without values in files of their own.

use std::path::Path;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use crate::peer::{Kind, Options, Peer, TtlSupport};
use crate::{Result, failed};

/// Values among the keys.
pub const KIND: Kind = Kind {
    name: "fjall",
    version: "fjall 3.1",
    configuration: "defaults (LZ4, 4 KiB blocks); memtables are written out to settle",
    // It has compaction filters, but takes them in shared ownership, of which there is none in this project.
    ttl: TtlSupport::None,
    unable: &[],
    open: |dir, options| open(dir, options, false),
};

/// Values of 100 bytes and more in blob files.
pub const BLOBS: Kind = Kind {
    name: "fjall-blobs",
    version: "fjall 3.1",
    configuration: "as fjall, key-value separation from 100 bytes on (LZ4)",
    ttl: TtlSupport::None,
    unable: &[],
    open: |dir, options| open(dir, options, true),
};

const SEPARATED_BYTES: u32 = 100;

struct Fjall {
    store: Database,
    entries: Keyspace,
}

fn open(dir: &Path, options: &Options, blobs: bool) -> Result<Box<dyn Peer>> {
    let builder = Database::builder(dir).cache_size(options.cache_bytes as u64);
    let store = builder.open().map_err(failed)?;
    let keyspace = || {
        let separation = KvSeparationOptions::default().separation_threshold(SEPARATED_BYTES);
        KeyspaceCreateOptions::default().with_kv_separation(blobs.then_some(separation))
    };
    let entries = store.keyspace("entries", keyspace).map_err(failed)?;
    Ok(Box::new(Fjall { store, entries }))
}

impl Peer for Fjall {
    fn put(&self, key: &[u8], value: &[u8], _: Option<Duration>) -> Result<()> {
        self.entries.insert(key, value).map_err(failed)
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        let found = self.entries.get(key).map_err(failed)?;
        if let Some(bytes) = &found {
            value.extend_from_slice(bytes);
        }
        Ok(found.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.entries.remove(key).map_err(failed)
    }

    fn flush(&self) -> Result<()> {
        self.store.persist(PersistMode::SyncAll).map_err(failed)
    }

    fn begin_to_settle(&self) -> Result<()> {
        self.entries.rotate_memtable_and_wait().map_err(failed)
    }

    fn is_busy(&self) -> Result<bool> {
        Ok(self.store.outstanding_flushes() > 0 || self.store.active_compactions() > 0)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }
}
