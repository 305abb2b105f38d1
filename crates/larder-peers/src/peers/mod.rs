//! The stores, an adapter each. All write without a sync for each write, and sync once when they are told to.

#[cfg(any(feature = "lmdb", feature = "redb"))]
mod batch;
#[cfg(feature = "rocksdb")]
mod expiry;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "foyer")]
mod foyer;
mod larder;
#[cfg(feature = "lmdb")]
mod lmdb;
mod none;
mod raw;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "sled")]
mod sled;

use crate::peer::Kind;

/// Every store that was built in.
pub fn all() -> Vec<Kind> {
    vec![
        larder::KIND,
        larder::TUNED,
        none::KIND,
        raw::KIND,
        #[cfg(feature = "fjall")]
        fjall::KIND,
        #[cfg(feature = "fjall")]
        fjall::BLOBS,
        #[cfg(feature = "rocksdb")]
        rocksdb::KIND,
        #[cfg(feature = "rocksdb")]
        rocksdb::LARGE_BLOCKS,
        #[cfg(feature = "rocksdb")]
        rocksdb::DICTIONARIES,
        #[cfg(feature = "rocksdb")]
        rocksdb::LARGE_BLOCKS_DICTIONARIES,
        #[cfg(feature = "rocksdb")]
        rocksdb::BLOBS,
        #[cfg(feature = "lmdb")]
        lmdb::KIND,
        #[cfg(feature = "redb")]
        redb::KIND,
        #[cfg(feature = "sled")]
        sled::KIND,
        #[cfg(feature = "foyer")]
        foyer::KIND,
    ]
}
