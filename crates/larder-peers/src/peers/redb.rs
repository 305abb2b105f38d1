//! redb: a copy-on-write B-tree in one file.

use std::path::Path;
use std::time::Duration;

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::batch::{Batch, Writes};
use crate::peer::{Kind, Options, Peer, TtlSupport};
use crate::{Result, failed};

/// Transactions without a sync, and one with.
pub const KIND: Kind = Kind {
    name: "redb",
    version: "redb 4.6",
    configuration: "1000 writes a transaction, Durability::None, one Immediate commit to flush; no compression",
    ttl: TtlSupport::None,
    unable: &[],
    open,
};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

struct Redb {
    store: Database,
    batch: Batch,
}

fn open(dir: &Path, options: &Options) -> Result<Box<dyn Peer>> {
    let store =
        Database::builder().set_cache_size(options.cache_bytes).create(dir.join("redb")).map_err(failed)?;
    let peer = Redb { store, batch: Batch::default() };
    // Makes the table, without which reads fail.
    peer.commit(&Writes::new(), Durability::Immediate)?;
    Ok(Box::new(peer))
}

impl Redb {
    fn commit(&self, writes: &Writes, durability: Durability) -> Result<()> {
        let mut transaction = self.store.begin_write().map_err(failed)?;
        transaction.set_durability(durability).map_err(failed)?;
        {
            let mut table = transaction.open_table(TABLE).map_err(failed)?;
            for (key, value) in writes {
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), value.as_slice()).map_err(failed)?),
                    None => drop(table.remove(key.as_slice()).map_err(failed)?),
                }
            }
        }
        transaction.commit().map_err(failed)
    }
}

impl Peer for Redb {
    fn put(&self, key: &[u8], value: &[u8], _: Option<Duration>) -> Result<()> {
        self.batch.write(key, Some(value), |writes| self.commit(writes, Durability::None))
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        if let Some(known) = self.batch.get(key, value) {
            return Ok(known);
        }
        let transaction = self.store.begin_read().map_err(failed)?;
        let table = transaction.open_table(TABLE).map_err(failed)?;
        let found = table.get(key).map_err(failed)?;
        if let Some(bytes) = &found {
            value.extend_from_slice(bytes.value());
        }
        Ok(found.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.batch.write(key, None, |writes| self.commit(writes, Durability::None))
    }

    fn flush(&self) -> Result<()> {
        self.batch.flush(|writes| self.commit(writes, Durability::Immediate))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }
}
