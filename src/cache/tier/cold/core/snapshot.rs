//! Saving the index and loading it again.
//!
//! A snapshot is taken partition by partition while the writer goes on (fuzzy). It reflects every operation up to
//! `covers`; of later ones it may reflect some, and recovery replays them all, so it does not matter which. The
//! compaction worker takes it, so no compaction repoints entries meanwhile. Its edit is committed behind a barrier: by
//! then everything it points at is durable.

use std::collections::HashMap;
use std::path::Path;

use super::live_counts::LiveCounts;
use super::manifest::sync_names;
use super::names;
use super::slab::Slab;
use super::spread::{spread, threads_for};
use crate::cache::tier::cold::metadata_index::{CHUNK_PARTITIONS, MetadataIndex, NOWHERE};
use crate::cache::tier::cold::serialization::edit::SnapshotEntry;
use crate::cache::tier::cold::serialization::snapshot::{
    CHUNKS, SNAPSHOT_HEADER_BYTES, SnapshotHeader, decode_chunk, decode_header, decode_slot_table,
    encode_chunk, encode_header, encode_slot_table,
};
use crate::error::{Error, Result};
use crate::io::{Disk, DiskFile, WriteBack};

/// The file is written in pieces of about this size.
const WRITE_BYTES: usize = 128 << 10;

/// Writes a snapshot under its final name, durable but not committed. Returns its length.
pub fn write_snapshot<D: Disk>(
    disk: &D,
    dir: &Path,
    store_id: u64,
    entry: &SnapshotEntry,
    index: &MetadataIndex,
    slab: &Slab<D::File>,
) -> Result<u64> {
    let path = names::snapshot(dir, entry.id);
    let temporary = names::temporary(&path);
    let written = write_chunks(disk, &temporary, store_id, entry, index, slab).and_then(|len| {
        disk.rename(&temporary, &path)?;
        Ok(len)
    });
    let len = written.map_err(|error| {
        // What stays behind is deleted at the next start.
        drop(disk.remove(&temporary));
        Error::io("write", &path, error)
    })?;
    sync_names(disk, dir)?;
    Ok(len)
}

fn write_chunks<D: Disk>(
    disk: &D,
    path: &Path,
    store_id: u64,
    entry: &SnapshotEntry,
    index: &MetadataIndex,
    slab: &Slab<D::File>,
) -> std::io::Result<u64> {
    let file = disk.create(path)?;
    let mut header = SnapshotHeader {
        store_id,
        snapshot_id: entry.id,
        covers: entry.covers,
        covers_edit: entry.covers_edit,
        entries: 0,
        chunk_bytes: [0; CHUNKS],
        slot_table_bytes: 0,
    };
    let mut at = SNAPSHOT_HEADER_BYTES as u64;
    let (mut buffer, mut write_back) = (Vec::new(), WriteBack::default());
    for (chunk, chunk_bytes) in header.chunk_bytes.iter_mut().enumerate() {
        let first = chunk * CHUNK_PARTITIONS;
        let partitions: Vec<_> =
            (first..first + CHUNK_PARTITIONS).map(|number| index.packed_partition(number as u16)).collect();
        header.entries += partitions.iter().map(|slots| slots.len() as u64).sum::<u64>();
        let bytes = encode_chunk(&partitions);
        *chunk_bytes = bytes.len() as u32;
        buffer.extend_from_slice(&bytes);
        if buffer.len() >= WRITE_BYTES {
            file.write_full_at(&buffer, at)?;
            at += buffer.len() as u64;
            write_back.appended(&file, at);
            buffer.clear();
        }
    }
    file.write_full_at(&buffer, at)?;
    at += buffer.len() as u64;
    // After the scan: it may have met segments that were opened meanwhile, and none was retired.
    let slots: Vec<(u32, u64)> =
        slab.accounts().iter().map(|account| (account.slot, account.identity.segment_id)).collect();
    let table = encode_slot_table(&slots);
    header.slot_table_bytes = table.len() as u32;
    file.write_full_at(&table, at)?;
    file.write_full_at(&encode_header(&header), 0)?;
    file.sync()?;
    Ok(at + table.len() as u64)
}

/// What a snapshot gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Entries.
    pub entries: u64,
    /// Some of them have the slot [`NOWHERE`]: their segment is gone.
    pub dangling: u64,
}

/// Fills the index from a snapshot; entries whose segment is gone get the slot [`NOWHERE`].
///
/// `segments` maps the slab slots in use to their segment numbers. On an error the index is left empty.
///
/// # Errors
/// In words, when the file is missing, damaged, or another snapshot than `entry`.
pub fn load_snapshot<D: Disk>(
    disk: &D,
    dir: &Path,
    store_id: u64,
    entry: &SnapshotEntry,
    segments: &HashMap<u32, u64>,
    index: &mut MetadataIndex,
) -> std::result::Result<(Taken, LiveCounts), String> {
    let taken = load_file(disk, dir, store_id, entry, segments, index);
    if taken.is_err() {
        index.clear();
    }
    taken.map_err(|problem| format!("{}: {problem}", names::snapshot(dir, entry.id).display()))
}

fn load_file<D: Disk>(
    disk: &D,
    dir: &Path,
    store_id: u64,
    entry: &SnapshotEntry,
    segments: &HashMap<u32, u64>,
    index: &mut MetadataIndex,
) -> std::result::Result<(Taken, LiveCounts), String> {
    let file = disk.open_read(&names::snapshot(dir, entry.id)).map_err(|error| error.to_string())?;
    let header = decode_header(read(&file, &mut Vec::new(), 0, SNAPSHOT_HEADER_BYTES)?)
        .map_err(|error| error.to_string())?;
    if (header.store_id, header.snapshot_id, header.covers) != (store_id, entry.id, entry.covers) {
        return Err("it is another snapshot than the manifest names".into());
    }
    let chunks_bytes: u64 = header.chunk_bytes.iter().map(|bytes| u64::from(*bytes)).sum();
    let table_at = SNAPSHOT_HEADER_BYTES as u64 + chunks_bytes;
    if table_at + u64::from(header.slot_table_bytes) != file.len().map_err(|error| error.to_string())? {
        return Err("its length is not what its header says".into());
    }
    let mut table = Vec::new();
    let slots = decode_slot_table(read(&file, &mut table, table_at, header.slot_table_bytes as usize)?)
        .map_err(|error| format!("slot table: {error}"))?;
    let mut standing = Vec::new();
    for (slot, _) in slots.iter().filter(|(slot, id)| *slot < NOWHERE && segments.get(slot) == Some(id)) {
        let slot = *slot as usize;
        standing.resize(standing.len().max(slot + 1), false);
        standing[slot] = true;
    }
    *index = MetadataIndex::with_room_for(header.entries);
    load_chunks(&file, &header, &standing, index)
}

/// Reads bytes of the file, or those that there are, into the buffer.
fn read<'a, F: DiskFile>(
    file: &F,
    buffer: &'a mut Vec<u8>,
    at: u64,
    len: usize,
) -> std::result::Result<&'a [u8], String> {
    buffer.resize(len, 0);
    let got = file.read_full_at(buffer, at).map_err(|error| error.to_string())?;
    Ok(&buffer[..got])
}

/// Loads the chunks, large ones on several threads. `standing` says of which slab slots the segments are still there.
fn load_chunks<F: DiskFile>(
    file: &F,
    header: &SnapshotHeader,
    standing: &[bool],
    index: &MetadataIndex,
) -> std::result::Result<(Taken, LiveCounts), String> {
    let mut next_at = SNAPSHOT_HEADER_BYTES as u64;
    let chunks = header.chunk_bytes.iter().enumerate().map(|(chunk, len)| {
        let at = next_at;
        next_at += u64::from(*len);
        (chunk, at, *len as usize)
    });
    // Each thread's buffer, and what it has counted.
    let state = || (Vec::new(), 0, LiveCounts::of_slots(standing.len()));
    let load = |(buffer, dangling, live): &mut (Vec<u8>, u64, LiveCounts), (chunk, at, len)| {
        let bytes = read(file, buffer, at, len)?;
        let partitions =
            decode_chunk(bytes, CHUNK_PARTITIONS).map_err(|error| format!("chunk {chunk}: {error}"))?;
        for (number, slots) in partitions.into_iter().enumerate() {
            let number = (chunk * CHUNK_PARTITIONS + number) as u16;
            let loaded = index.load_partition(number, slots, |entry| {
                let stands = standing.get(entry.location.slot as usize) == Some(&true);
                if stands {
                    live.add(entry);
                } else {
                    *dangling += 1;
                }
                stands
            });
            loaded.ok_or("slots are out of order")?;
        }
        Ok::<(), String>(())
    };
    let counted = spread(chunks, threads_for(header.entries as usize), state, load)?;
    let mut taken = Taken { entries: index.entries(), dangling: 0 };
    let mut all = LiveCounts::default();
    for (_, dangling, live) in &counted {
        taken.dangling += dangling;
        all.merge(live);
    }
    Ok((taken, all))
}
