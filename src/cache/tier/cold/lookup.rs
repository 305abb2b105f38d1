//! Finding the newest record of a key: what `get`, `multi_get`, `iter` and tuning read by.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::Ordering;

use super::core::names;
use super::core::segment::{ReadError, decode_record, read_record_by};
use super::hand_over::Newest;
use super::in_flight::EncodedRecord;
use super::metadata_index::{EntryId, IndexEntry};
use super::serialization::record::RecordMeta;
use super::shared::Shared;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::io::{Disk, DiskFile};

/// Read buffers larger than this are given back after use.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

thread_local! {
    /// Each thread reads into a buffer of its own: a hit allocates its result and nothing else.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a lookup ended.
pub(super) enum Lookup {
    /// Key and value, with what the record's header says.
    Found(RecordMeta, Vec<u8>),
    /// No such entry.
    Absent,
    /// An entry past its time.
    Expired,
    /// Another key with the same 56 bits of hash.
    Collision,
    /// Its bytes are damaged.
    Damaged,
}

impl Lookup {
    /// What it is to somebody who looked for that key: other keys may have the same hash.
    #[inline]
    pub(super) fn of(self, key: &[u8]) -> Self {
        match self {
            Self::Found(meta, raw) if &raw[..meta.key_len as usize] != key => Self::Collision,
            found => found,
        }
    }
}

/// The newest record of a hash. With `counts` it is a read that the entry is valued by, where entries compete for room.
pub(super) fn lookup<D: Disk, C: Clock>(shared: &Shared<D, C>, id: EntryId, counts: bool) -> Result<Lookup> {
    lookup_by(shared, id, counts, |file, buffer, offset| file.read_full_at(buffer, offset))
}

/// As [`lookup`], if that does not take waiting for the disk. Otherwise `None`, and the disk has been asked for the record.
pub(super) fn lookup_cached<D: Disk, C: Clock>(
    shared: &Shared<D, C>,
    id: EntryId,
    counts: bool,
) -> Result<Option<Lookup>> {
    let is_waited_for = Cell::new(false);
    let found = lookup_by(shared, id, counts, |file, buffer, offset| {
        let read = file.read_cached_full_at(buffer, offset);
        if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            file.will_need(offset, buffer.len() as u64);
            is_waited_for.set(true);
        }
        read
    });
    match found {
        Err(_) if is_waited_for.get() => Ok(None),
        found => found.map(Some),
    }
}

/// Asks the disk for a record that will be looked up soon; returns how many bytes it is asked for.
pub(super) fn ask_for<D: Disk, C: Clock>(shared: &Shared<D, C>, id: EntryId) -> u64 {
    let Some(entry) = shared.index.get(id) else { return 0 };
    let Some(guard) = shared.slab.read(entry.location.slot) else { return 0 };
    let Some(segment) = guard.as_ref() else { return 0 };
    let bytes = bytes_to_read(entry) as u64;
    segment.file.will_need(entry.location.offset.into(), bytes);
    bytes
}

/// What one read of a record takes with it: all of it, unless it is of the largest class.
fn bytes_to_read(entry: IndexEntry) -> usize {
    entry.size.bytes_max().unwrap_or(64 << 10)
}

fn lookup_by<D: Disk, C: Clock>(
    shared: &Shared<D, C>,
    id: EntryId,
    counts: bool,
    read: impl Fn(&D::File, &mut [u8], u64) -> io::Result<usize>,
) -> Result<Lookup> {
    shared.condition.check_open()?;
    let counts = counts && shared.ledger.capacity_bytes().is_some();
    Ok(match shared.hand_over().newest(id, counts, |entry| read_entry(shared, entry, &read))? {
        Newest::InFlight(record) => from_flight(shared, &record),
        Newest::Stored((meta, raw)) => judge(shared, meta, raw),
        Newest::Absent => Lookup::Absent,
        Newest::Damaged => Lookup::Damaged,
    })
}

fn judge<D: Disk, C: Clock>(shared: &Shared<D, C>, meta: RecordMeta, raw: Vec<u8>) -> Lookup {
    if meta.tombstone {
        return Lookup::Absent;
    }
    if meta.expires_at_ms != 0 && meta.expires_at_ms <= shared.clock.now_ms() {
        // The clock that said so has to be saved, or a restart could say otherwise.
        if !shared.condition.expiry_observed.load(Ordering::Relaxed) {
            shared.condition.expiry_observed.store(true, Ordering::SeqCst);
        }
        return Lookup::Expired;
    }
    Lookup::Found(meta, raw)
}

fn from_flight<D: Disk, C: Clock>(shared: &Shared<D, C>, record: &EncodedRecord) -> Lookup {
    if record.meta.tombstone {
        return Lookup::Absent;
    }
    if record.is_raw {
        return judge(shared, record.meta, record.stored.to_vec());
    }
    with_buffer(|buffer| {
        let stored = record.meta.stored_range();
        let len = stored.end;
        buffer.resize(buffer.len().max(len), 0);
        buffer[stored].copy_from_slice(&record.stored);
        let mut raw = Vec::new();
        match decode_record(&record.meta, &mut buffer[..len], &shared.dictionaries, &mut raw) {
            Ok(()) => judge(shared, record.meta, raw),
            Err(_) => Lookup::Damaged,
        }
    })
}

/// Reads and decodes the record an index entry points at; `None` if there is none (any more), or a damaged one.
fn read_entry<D: Disk, C: Clock>(
    shared: &Shared<D, C>,
    entry: IndexEntry,
    read: impl Fn(&D::File, &mut [u8], u64) -> io::Result<usize>,
) -> Result<Option<(RecordMeta, Vec<u8>)>> {
    with_buffer(|buffer| {
        let meta = {
            let Some(guard) = shared.slab.read(entry.location.slot) else { return Ok(None) };
            let Some(segment) = guard.as_ref() else { return Ok(None) };
            let read = read_record_by(
                |buffer, offset| read(&segment.file, buffer, offset),
                &segment.identity,
                entry.location.offset,
                bytes_to_read(entry),
                buffer,
                &shared.dictionaries,
            );
            match read {
                Ok(record) => record.meta,
                Err(ReadError::Damaged(_)) => return Ok(None),
                Err(ReadError::Io(error)) => {
                    let path = names::segment(&shared.config.dir, segment.identity.segment_id);
                    return Err(Error::io("read", &path, error));
                }
            }
        };
        let end = meta.stored_range().end;
        let mut raw = Vec::new();
        let decoded = decode_record(&meta, &mut buffer[..end], &shared.dictionaries, &mut raw);
        Ok(decoded.ok().map(|()| (meta, raw)))
    })
}

fn with_buffer<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        let result = work(buffer);
        if buffer.capacity() > BUFFER_BYTES_KEPT {
            *buffer = Vec::new();
        }
        result
    })
}
