//! The limit: values one after another in a file, their places in a map. Nothing is checked, nothing given back.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::Result;
use crate::peer::{Kind, Options, Peer, TtlSupport};
use crate::plan::Workload;

const FORGETS: &str = "its index is in memory alone";

/// Append and positional read.
pub const KIND: Kind = Kind {
    name: "raw",
    version: "a file and a HashMap",
    configuration: "appends of 256 KiB, one positional read a hit; no compression, checksum, reclaim or restart",
    ttl: TtlSupport::None,
    unable: &[(Workload::Restart, FORGETS), (Workload::Kill, FORGETS)],
    open,
};

const BUFFER_BYTES: usize = 256 << 10;

/// Where a value begins, and its bytes.
type Place = (u64, u32);

struct Raw {
    file: File,
    tail: Mutex<Tail>,
    places: RwLock<HashMap<Box<[u8]>, Place>>,
}

/// What is not in the file yet, and where it will begin.
struct Tail {
    begin: u64,
    bytes: Vec<u8>,
}

fn open(dir: &Path, _: &Options) -> Result<Box<dyn Peer>> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(dir.join("values"))?;
    // As Larder and RocksDB do: of what lies beside a value nothing is fetched. Advice.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
    let tail = Mutex::new(Tail { begin: 0, bytes: Vec::with_capacity(BUFFER_BYTES * 2) });
    Ok(Box::new(Raw { file, tail, places: RwLock::default() }))
}

impl Tail {
    fn write(&mut self, file: &File) -> Result<()> {
        file.write_all_at(&self.bytes, self.begin)?;
        self.begin += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

impl Peer for Raw {
    fn put(&self, key: &[u8], value: &[u8], _: Option<Duration>) -> Result<()> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (tail.begin + tail.bytes.len() as u64, value.len() as u32);
        tail.bytes.extend_from_slice(value);
        // Before the place can be read, and in the order of the writes.
        self.places.write().unwrap_or_else(PoisonError::into_inner).insert(key.into(), place);
        if tail.bytes.len() >= BUFFER_BYTES {
            tail.write(&self.file)?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        let place = self.places.read().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        let Some((at, bytes)) = place else { return Ok(false) };
        value.resize(bytes as usize, 0);
        if self.file.read_exact_at(value, at).is_err() {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            tail.write(&self.file)?;
            self.file.read_exact_at(value, at)?;
        }
        Ok(true)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.places.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).write(&self.file)?;
        Ok(self.file.sync_data()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.flush()
    }

    fn index_bytes(&self) -> Option<u64> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let keys: usize = places.keys().map(|key| key.len()).sum();
        // A slot is a fat pointer and a place, and a byte of control.
        Some((keys + places.capacity() * (size_of::<(Box<[u8]>, Place)>() + 1)) as u64)
    }
}
