//! RocksDB: an LSM tree, with or without values in blob files.

use std::path::Path;
use std::time::Duration;

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
    open: |dir, options| open(dir, options, &PLAIN),
};

/// Smaller on disk, slower to read.
pub const LARGE_BLOCKS: Kind = Kind {
    name: "rocksdb-16k",
    version: KIND.version,
    configuration: "as rocksdb, 16 KiB blocks",
    open: |dir, options| open(dir, options, &Layout { block_bytes: 16 << 10, ..PLAIN }),
    ..KIND
};

/// Smaller still, by dictionaries that it trains for each of its files.
pub const DICTIONARIES: Kind = Kind {
    name: "rocksdb-dict",
    version: KIND.version,
    configuration: "as rocksdb, 4 KiB blocks, dictionaries of 16 KiB trained from 1600 KiB in all levels",
    open: |dir, options| open(dir, options, &Layout { dictionary_bytes: DICTIONARY_BYTES, ..PLAIN }),
    ..KIND
};

/// Both.
pub const LARGE_BLOCKS_DICTIONARIES: Kind = Kind {
    name: "rocksdb-16k-dict",
    version: KIND.version,
    configuration: "as rocksdb-dict, 16 KiB blocks",
    open: |dir, options| {
        open(dir, options, &Layout { block_bytes: 16 << 10, dictionary_bytes: DICTIONARY_BYTES, ..PLAIN })
    },
    ..KIND
};

/// BlobDB.
pub const BLOBS: Kind = Kind {
    name: "rocksdb-blobs",
    version: KIND.version,
    configuration: "as rocksdb, values of 100 bytes and more in blob files (zstd), collected from an age of 0.25 on",
    open: |dir, options| open(dir, options, &Layout { blobs: true, ..PLAIN }),
    ..KIND
};

const SEPARATED_BYTES: u64 = 100;
const BLOOM_BITS: f64 = 10.0;
const DICTIONARY_BYTES: i32 = 16 << 10;
/// Its documentation's advice: a hundred times the dictionary.
const TRAINING_PER_DICTIONARY: i32 = 100;
/// What it has unless it is told otherwise: the window, and the level, which for zstd is then 3.
const WINDOW_BITS: i32 = -14;
const LEVEL: i32 = 32767;
/// What counts as running, by the names of its properties.
const BUSY: [&str; 4] = [
    "rocksdb.num-running-compactions",
    "rocksdb.num-running-flushes",
    "rocksdb.compaction-pending",
    "rocksdb.mem-table-flush-pending",
];

#[derive(Clone, Copy)]
struct Layout {
    block_bytes: usize,
    blobs: bool,
    /// Bytes of the dictionary of each file; 0 is none.
    dictionary_bytes: i32,
}

const PLAIN: Layout = Layout { block_bytes: 4 << 10, blobs: false, dictionary_bytes: 0 };

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
    if layout.dictionary_bytes > 0 {
        settings.set_compression_options(WINDOW_BITS, LEVEL, 0, layout.dictionary_bytes);
        settings.set_zstd_max_train_bytes(layout.dictionary_bytes * TRAINING_PER_DICTIONARY);
    }
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

    fn begin_to_settle(&self) -> Result<()> {
        let mut waiting = FlushOptions::default();
        waiting.set_wait(true);
        self.store.flush_opt(&waiting).map_err(failed)
    }

    fn is_busy(&self) -> Result<bool> {
        for name in BUSY {
            if self.store.property_int_value(name).map_err(failed)?.unwrap_or(0) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()?;
        self.store.cancel_all_background_work(true);
        Ok(())
    }
}
