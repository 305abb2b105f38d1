//! Saving the index and loading it again.
//!
//! A snapshot is taken partition by partition while the writer goes on (fuzzy). It reflects every operation up to
//! `covers`; of later ones it may reflect some, and recovery replays them all, so it does not matter which. The
//! compaction worker takes it, so no compaction repoints entries meanwhile. Its edit is committed behind a barrier: by
//! then everything it points at is durable.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::live_counts::LiveCounts;
use super::manifest::sync_names;
use super::names;
use super::slab::Slab;
use super::spread::{spread, threads_for};
use crate::cache::tier::cold::metadata_index::{CHUNK_PARTITIONS, MetadataIndex, NOWHERE};
use crate::cache::tier::cold::serialization::FormatError;
use crate::cache::tier::cold::serialization::chunk::{check_chunk, decode_chunk, encode_chunk};
use crate::cache::tier::cold::serialization::edit::SnapshotEntry;
use crate::cache::tier::cold::serialization::parity::{Parity, witnesses, xor};
use crate::cache::tier::cold::serialization::snapshot::{
    CHUNKS, SNAPSHOT_HEADER_BYTES, SnapshotHeader, decode_header, decode_slot_table, encode_header,
    encode_slot_table,
};
use crate::error::{Error, Result};
use crate::io::{Disk, DiskFile, Pieces, WriteBack};

/// The file is written in pieces of about this size.
const WRITE_BYTES: usize = 128 << 10;
/// The parity takes this part of what it speaks for,
const PARITY_DIVISOR: u64 = 16;
/// and two of the blocks at least in which file systems and disks lose data: one is lost wherever it lies.
const PARITY_BYTES_MIN: u64 = 8 << 10;

/// Bytes that an entry takes in most snapshots.
const SLOT_BYTES: u64 = 9;

/// Bytes of parity for an index of so many entries; as good with some more or less of them.
fn parity_bytes(entries: u64) -> u32 {
    let expected = entries * SLOT_BYTES / PARITY_DIVISOR;
    u32::try_from(expected.max(PARITY_BYTES_MIN).next_multiple_of(4096)).unwrap_or(u32::MAX)
}

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
        parity_bytes: parity_bytes(index.entries()),
        parity_check: 0,
    };
    let mut at = SNAPSHOT_HEADER_BYTES as u64;
    let (mut buffer, mut write_back) = (Vec::new(), WriteBack::default());
    let mut parity = Parity::new(header.parity_bytes as usize);
    for (chunk, chunk_bytes) in header.chunk_bytes.iter_mut().enumerate() {
        let first = chunk * CHUNK_PARTITIONS;
        let partitions: Vec<_> =
            (first..first + CHUNK_PARTITIONS).map(|number| index.packed_partition(number as u16)).collect();
        header.entries += partitions.iter().map(|slots| slots.len() as u64).sum::<u64>();
        let bytes = encode_chunk(&partitions);
        *chunk_bytes = bytes.len() as u32;
        parity.add(&bytes);
        buffer.extend_from_slice(&bytes);
        if buffer.len() >= WRITE_BYTES {
            write_back.append(&file, &buffer, at, Pieces::Large)?;
            at += buffer.len() as u64;
            buffer.clear();
        }
    }
    // After the scan: it may have met segments that were opened meanwhile, and none was retired.
    let slots: Vec<(u32, u64)> =
        slab.accounts().iter().map(|account| (account.slot, account.identity.segment_id)).collect();
    let table = encode_slot_table(&slots);
    header.slot_table_bytes = table.len() as u32;
    parity.add(&table);
    let parity = parity.finish();
    header.parity_check = crc32c::crc32c(&parity);
    let head = encode_header(&header);
    for bytes in [&table, &parity, &head] {
        buffer.extend_from_slice(bytes);
    }
    file.write_full_at(&buffer, at)?;
    file.write_full_at(&head, 0)?;
    file.sync()?;
    Ok(at + buffer.len() as u64)
}

/// What a snapshot gave.
#[derive(Debug, Default)]
pub struct Taken {
    /// Entries.
    pub entries: u64,
    /// Some of them have the slot [`NOWHERE`]: their segment is gone.
    pub dangling: u64,
    /// What the entries point at.
    pub live: LiveCounts,
    /// Damage that was made up for, in words: the file should be written anew.
    pub mended: Vec<String>,
}

/// Fills the index from a snapshot; entries whose segment is gone get the slot [`NOWHERE`].
///
/// `segments` maps the slab slots in use to their segment numbers. On an error the index is left empty.
///
/// # Errors
/// In words, when the file is missing, damaged beyond what its parity makes up for, or another snapshot than `entry`.
pub fn load_snapshot<D: Disk>(
    disk: &D,
    dir: &Path,
    store_id: u64,
    entry: &SnapshotEntry,
    segments: &HashMap<u32, u64>,
    index: &mut MetadataIndex,
) -> std::result::Result<Taken, String> {
    let in_file = |problem| format!("{}: {problem}", names::snapshot(dir, entry.id).display());
    let taken = SnapshotFile::open(disk, dir, store_id, entry).and_then(|file| file.load(segments, index));
    match taken {
        Ok(mut taken) => {
            taken.mended = taken.mended.into_iter().map(in_file).collect();
            Ok(taken)
        }
        Err(problem) => {
            index.clear();
            Err(in_file(problem))
        }
    }
}

/// Checks what [`load_snapshot`] does not read of a whole snapshot: the parity and the second head.
///
/// # Errors
/// In words, what is damaged.
pub fn check_spare_parts<D: Disk>(
    disk: &D,
    dir: &Path,
    store_id: u64,
    entry: &SnapshotEntry,
) -> std::result::Result<(), String> {
    let snapshot = SnapshotFile::open(disk, dir, store_id, entry)?;
    let header = &snapshot.header;
    let mut buffer = Vec::new();
    let parity = snapshot.read(&mut buffer, header.body_bytes(), header.parity_bytes as usize)?;
    if crc32c::crc32c(parity) != header.parity_check {
        return Err("parity: checksum mismatch".into());
    }
    let head = snapshot.read(&mut buffer, snapshot.total(), SNAPSHOT_HEADER_BYTES)?;
    match decode_header(head) {
        Ok(second) if second == *header => Ok(()),
        Ok(_) => Err("the second head is not the first".into()),
        Err(error) => Err(format!("second head: {error}")),
    }
}

/// A snapshot that is being read.
struct SnapshotFile<F> {
    file: F,
    header: SnapshotHeader,
    mended: Vec<String>,
}

impl<F: DiskFile> SnapshotFile<F> {
    /// Opens the file and finds its head, or the second one.
    fn open<D: Disk<File = F>>(
        disk: &D,
        dir: &Path,
        store_id: u64,
        entry: &SnapshotEntry,
    ) -> std::result::Result<Self, String> {
        let file = disk.open_read(&names::snapshot(dir, entry.id)).map_err(|error| error.to_string())?;
        let mut mended = Vec::new();
        let is_ours = |header: &SnapshotHeader| {
            (header.store_id, header.snapshot_id, header.covers) == (store_id, entry.id, entry.covers)
        };
        let header = read_header(&file, 0).or_else(|problem| {
            let second_at = entry.file_bytes.saturating_sub(SNAPSHOT_HEADER_BYTES as u64);
            let second = read_header(&file, second_at).map_err(|_| problem.clone())?;
            mended.push(format!("{problem}; the second head took its place"));
            Ok::<_, String>(second)
        })?;
        if !is_ours(&header) {
            return Err("it is another snapshot than the manifest names".into());
        }
        let file_bytes = file.len().map_err(|error| error.to_string())?;
        if file_bytes != header.file_bytes() {
            mended.push(format!("{file_bytes} bytes long, not {}", header.file_bytes()));
        }
        Ok(Self { file, header, mended })
    }

    /// Bytes of body and parity.
    fn total(&self) -> u64 {
        self.header.body_bytes() + u64::from(self.header.parity_bytes)
    }

    /// Reads bytes of body or parity, or those that there are, into the buffer.
    fn read<'a>(
        &self,
        buffer: &'a mut Vec<u8>,
        at: u64,
        len: usize,
    ) -> std::result::Result<&'a [u8], String> {
        read(&self.file, buffer, SNAPSHOT_HEADER_BYTES as u64 + at, len)
    }

    /// Reads a part of the body that has a checksum, from the rest of the file if it has to. Says what was damaged then.
    fn read_part(
        &self,
        buffer: &mut Vec<u8>,
        at: u64,
        len: usize,
        check: impl Fn(&[u8]) -> std::result::Result<(), FormatError>,
    ) -> std::result::Result<Option<String>, String> {
        let problem = match self.read(buffer, at, len) {
            Ok(bytes) => match check(bytes) {
                Ok(()) => return Ok(None),
                Err(error) => error.to_string(),
            },
            Err(problem) => problem,
        };
        let found = self.rebuilt(at..at + len as u64).filter(|bytes| check(bytes).is_ok());
        *buffer = found.ok_or_else(|| problem.clone())?;
        Ok(Some(format!("{problem}; the parity made up for it")))
    }

    /// Bytes of the body by what the parity and all others say; `None` if some of those are not there.
    fn rebuilt(&self, lost: Range<u64>) -> Option<Vec<u8>> {
        let parity_bytes = u64::from(self.header.parity_bytes);
        let ranges = witnesses(lost.clone(), parity_bytes, self.total())?;
        let mut sums = vec![0; (lost.end - lost.start) as usize];
        let mut buffer = Vec::new();
        for (offset, range) in ranges {
            let len = (range.end - range.start) as usize;
            let bytes = self.read(&mut buffer, range.start, len).ok().filter(|bytes| bytes.len() == len)?;
            xor(&mut sums[offset..], bytes);
        }
        Some(sums)
    }

    /// Fills the index.
    fn load(
        mut self,
        segments: &HashMap<u32, u64>,
        index: &mut MetadataIndex,
    ) -> std::result::Result<Taken, String> {
        let chunks_bytes = self.header.body_bytes() - u64::from(self.header.slot_table_bytes);
        let mut table = Vec::new();
        let check = |bytes: &[u8]| decode_slot_table(bytes).map(drop);
        let mended = self
            .read_part(&mut table, chunks_bytes, self.header.slot_table_bytes as usize, check)
            .map_err(|problem| format!("slot table: {problem}"))?;
        self.mended.extend(mended.map(|problem| format!("slot table: {problem}")));
        let slots = decode_slot_table(&table).map_err(|error| format!("slot table: {error}"))?;
        let mut standing = Vec::new();
        for (slot, _) in slots.iter().filter(|(slot, id)| *slot < NOWHERE && segments.get(slot) == Some(id)) {
            let slot = *slot as usize;
            standing.resize(standing.len().max(slot + 1), false);
            standing[slot] = true;
        }
        *index = MetadataIndex::with_room_for(self.header.entries);
        let mut taken = self.load_chunks(&standing, index)?;
        taken.mended.splice(0..0, self.mended);
        Ok(taken)
    }

    /// Loads the chunks, large ones on several threads. `standing` says of which slab slots the segments are still there.
    fn load_chunks(&self, standing: &[bool], index: &MetadataIndex) -> std::result::Result<Taken, String> {
        let mut next_at = 0;
        let chunks = self.header.chunk_bytes.iter().enumerate().map(|(chunk, len)| {
            let at = next_at;
            next_at += u64::from(*len);
            (chunk, at, *len as usize)
        });
        // Each thread's buffer, what it has found, and the chunks that it had to put together again.
        let found = || Taken { live: LiveCounts::of_slots(standing.len()), ..Taken::default() };
        let state = || (Vec::new(), found(), Vec::new());
        let load = |(buffer, taken, mended): &mut (Vec<u8>, Taken, Vec<usize>), (chunk, at, len)| {
            let check = |bytes: &[u8]| check_chunk(bytes).map(drop);
            let in_chunk = |problem: String| format!("chunk {chunk}: {problem}");
            let was_damaged = self.read_part(buffer, at, len, check).map_err(in_chunk)?.is_some();
            mended.extend(was_damaged.then_some(chunk));
            load_chunk(chunk, &buffer[..len - 4], standing, index, taken).map_err(in_chunk)
        };
        let parts = spread(chunks, threads_for(self.header.entries as usize), state, load)?;
        let mut all = Taken { entries: index.entries(), ..Taken::default() };
        let mut mended = Vec::new();
        for (_, taken, chunks) in parts {
            all.dangling += taken.dangling;
            all.live.merge(&taken.live);
            mended.extend(chunks);
        }
        // A lost block is one damage, whatever chunks were in it.
        if let (Some(first), Some(last)) = (mended.iter().min(), mended.iter().max()) {
            let count = mended.len();
            all.mended
                .push(format!("{count} of the chunks {first} to {last} damaged; the parity made up for it"));
        }
        Ok(all)
    }
}

/// Loads a chunk whose checksum has been taken off.
fn load_chunk(
    chunk: usize,
    slots: &[u8],
    standing: &[bool],
    index: &MetadataIndex,
    taken: &mut Taken,
) -> std::result::Result<(), String> {
    let partitions = decode_chunk(slots, CHUNK_PARTITIONS).map_err(|error| error.to_string())?;
    for (number, slots) in partitions.into_iter().enumerate() {
        let number = (chunk * CHUNK_PARTITIONS + number) as u16;
        let loaded = index.load_partition(number, slots, |entry| {
            let stands = standing.get(entry.location.slot as usize) == Some(&true);
            if stands {
                taken.live.add(entry);
            } else {
                taken.dangling += 1;
            }
            stands
        });
        loaded.ok_or("slots are out of order")?;
    }
    Ok(())
}

/// Reads the head that lies `at`.
fn read_header<F: DiskFile>(file: &F, at: u64) -> std::result::Result<SnapshotHeader, String> {
    let mut buffer = Vec::new();
    decode_header(read(file, &mut buffer, at, SNAPSHOT_HEADER_BYTES)?).map_err(|error| error.to_string())
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
