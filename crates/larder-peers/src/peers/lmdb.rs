//! LMDB by way of heed: a copy-on-write B-tree that is mapped into memory.

use std::path::Path;
use std::time::Duration;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};

use super::batch::{Batch, Writes};
use crate::peer::{Kind, Options, Peer, TtlSupport};
use crate::{Result, failed};

/// Without a sync a commit.
pub const KIND: Kind = Kind {
    name: "lmdb",
    version: "heed 0.23 (LMDB 0.9)",
    configuration: "1000 writes a transaction, NO_SYNC, one forced sync to flush; no compression; no cache of its own",
    ttl: TtlSupport::None,
    unable: &[],
    open,
};

struct Lmdb {
    env: Env<WithoutTls>,
    entries: Database<'static, Bytes, Bytes>,
    batch: Batch,
}

#[expect(unsafe_code, reason = "mapping a file is; nobody else has this one open or changes it")]
fn open(dir: &Path, options: &Options) -> Result<Box<dyn Peer>> {
    // Address space, not memory: B-tree pages are two thirds full, values over a page take whole ones.
    let map_bytes = (options.logical_bytes as usize * 8 + (1 << 30)).next_multiple_of(1 << 20);
    let mut opening = EnvOpenOptions::new().read_txn_without_tls();
    opening.map_size(map_bytes);
    let env = unsafe { opening.flags(EnvFlags::NO_SYNC).open(dir) }.map_err(failed)?;
    let transaction = env.write_txn().map_err(failed)?;
    let entries = env
        .create_databases_and_commit(transaction, |opener, transaction| {
            opener.create_database::<Bytes, Bytes>(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
        })
        .map_err(failed)?
        .unwrap_commit();
    Ok(Box::new(Lmdb { env, entries, batch: Batch::default() }))
}

impl Lmdb {
    fn commit(&self, writes: &Writes) -> Result<()> {
        let mut transaction = self.env.write_txn().map_err(failed)?;
        for (key, value) in writes {
            match value {
                Some(value) => self.entries.put(&mut transaction, key, value).map_err(failed)?,
                None => drop(self.entries.delete(&mut transaction, key).map_err(failed)?),
            }
        }
        transaction.commit().map_err(failed)
    }
}

impl Peer for Lmdb {
    fn put(&self, key: &[u8], value: &[u8], _: Option<Duration>) -> Result<()> {
        self.batch.write(key, Some(value), |writes| self.commit(writes))
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        if let Some(known) = self.batch.get(key, value) {
            return Ok(known);
        }
        let transaction = self.env.read_txn().map_err(failed)?;
        let found = self.entries.get(&transaction, key).map_err(failed)?;
        if let Some(bytes) = found {
            value.extend_from_slice(bytes);
        }
        Ok(found.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.batch.write(key, None, |writes| self.commit(writes))
    }

    fn flush(&self) -> Result<()> {
        self.batch.flush(|writes| self.commit(writes))?;
        self.env.force_sync().map_err(failed)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()?;
        let Self { env, .. } = *self;
        env.prepare_for_closing().wait();
        Ok(())
    }
}
