//! RocksDB: an LSM tree, with or without values in blob files.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rocksdb::compaction_filter::Decision;
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, FlushOptions, Options as Settings};

use super::expiry::{stamp, unstamp};
use crate::peer::{Kind, Options, Peer, TtlSupport};
use crate::{Result, failed};

/// Values among the keys.
pub const KIND: Kind = Kind {
    name: "rocksdb",
    version: "rocksdb 0.25",
    configuration: "zstd in all levels, 4 KiB blocks (default), Bloom filters of 10 bits, 2 background jobs; memtables \
                    are written out to settle; a compaction filter where entries expire",
    ttl: TtlSupport::Filter,
    unable: &[],
    open: |dir, options| open(dir, options, &Layout { block_bytes: 4 << 10, blobs: false }),
};

/// Smaller on disk, slower to read.
pub const LARGE_BLOCKS: Kind = Kind {
    name: "rocksdb-16k",
    version: KIND.version,
    configuration: "as rocksdb, 16 KiB blocks",
    open: |dir, options| open(dir, options, &Layout { block_bytes: 16 << 10, blobs: false }),
    ..KIND
};

/// BlobDB.
pub const BLOBS: Kind = Kind {
    name: "rocksdb-blobs",
    version: KIND.version,
    configuration: "as rocksdb, values of 100 bytes and more in blob files (zstd), collected from an age of 0.25 on",
    open: |dir, options| open(dir, options, &Layout { block_bytes: 4 << 10, blobs: true }),
    ..KIND
};

const SEPARATED_BYTES: u64 = 100;
const BLOOM_BITS: f64 = 10.0;
/// What counts as running, by the names of its properties.
const BUSY: [&str; 4] = [
    "rocksdb.num-running-compactions",
    "rocksdb.num-running-flushes",
    "rocksdb.compaction-pending",
    "rocksdb.mem-table-flush-pending",
];
/// It has settled when nothing has run for so long.
const QUIET: Duration = Duration::from_secs(1);

struct Layout {
    block_bytes: usize,
    blobs: bool,
}

struct RocksDb {
    store: DB,
    ttl: bool,
}

fn open(dir: &Path, options: &Options, layout: &Layout) -> Result<Box<dyn Peer>> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(layout.block_bytes);
    blocks.set_bloom_filter(BLOOM_BITS, false);
    blocks.set_block_cache(&Cache::new_lru_cache(options.cache_bytes));
    let mut settings = Settings::default();
    settings.create_if_missing(true);
    settings.set_block_based_table_factory(&blocks);
    settings.set_compression_type(DBCompressionType::Zstd);
    settings.set_max_background_jobs(2);
    if layout.blobs {
        settings.set_enable_blob_files(true);
        settings.set_min_blob_size(SEPARATED_BYTES);
        settings.set_blob_compression_type(DBCompressionType::Zstd);
        settings.set_enable_blob_gc(true);
    }
    if options.ttl {
        settings.set_compaction_filter("expiry", |_, _, value| {
            if unstamp(value).is_none() { Decision::Remove } else { Decision::Keep }
        });
    }
    let store = DB::open(&settings, dir).map_err(failed)?;
    Ok(Box::new(RocksDb { store, ttl: options.ttl }))
}

impl RocksDb {
    fn is_busy(&self) -> Result<bool> {
        for name in BUSY {
            if self.store.property_int_value(name).map_err(failed)?.unwrap_or(0) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn write_memtables(&self) -> Result<()> {
        let mut waiting = FlushOptions::default();
        waiting.set_wait(true);
        self.store.flush_opt(&waiting).map_err(failed)
    }
}

impl Peer for RocksDb {
    fn put(&self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<()> {
        if self.ttl {
            return self.store.put(key, stamp(value, ttl)).map_err(failed);
        }
        self.store.put(key, value).map_err(failed)
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        let found = self.store.get_pinned(key).map_err(failed)?;
        let found = found.as_deref();
        let found = if self.ttl { found.and_then(unstamp) } else { found };
        if let Some(bytes) = found {
            value.extend_from_slice(bytes);
        }
        Ok(found.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.store.delete(key).map_err(failed)
    }

    fn flush(&self) -> Result<()> {
        self.store.flush_wal(true).map_err(failed)
    }

    fn settle(&self) -> Result<()> {
        // So that what is in memory is counted as it will be stored, and not as a log.
        self.write_memtables()?;
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET {
            if self.is_busy()? {
                quiet_since = Instant::now();
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()?;
        self.store.cancel_all_background_work(true);
        Ok(())
    }
}
