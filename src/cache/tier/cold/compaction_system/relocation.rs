//! Moving live records into new segments.
//!
//! A relocated record keeps its sequence number and, unless it is stored anew, its bytes and payload sum. A shadow is
//! moved as a tombstone: its key, and nothing else. Every record is verified before it is written, and the whole
//! output is read back, as recovery would read it, before it is committed.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::ops::Range;
use std::path::PathBuf;

use super::survivor_groups::SurvivorGroups;
use crate::cache::tier::cold::compression::{Encoded, Encoding};
use crate::cache::tier::cold::core::names;
use crate::cache::tier::cold::core::segment::{ReadError, decode_record, place_of, read_footer, reads_back};
use crate::cache::tier::cold::core::spread::spread;
use crate::cache::tier::cold::encoding::InForce;
use crate::cache::tier::cold::ledger::in_blocks;
use crate::cache::tier::cold::metadata_index::{EntryId, IndexEntry, Location, SizeClass};
use crate::cache::tier::cold::serialization::edit::SegmentEntry;
use crate::cache::tier::cold::serialization::footer::{FooterRow, encode_footer};
use crate::cache::tier::cold::serialization::record::{
    RecordMeta, UnverifiedRecord, append_record, payload_sum,
};
use crate::cache::tier::cold::serialization::segment::{
    LogKind, SEGMENT_HEADER_BYTES, SegmentIdentity, SegmentSummary,
};
use crate::cache::tier::cold::shared::{Shared, count};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Disk, DiskFile, WriteBack, whole_pieces};

/// Victims are read in pieces of about this size. The disk serves one request after the other: what is asked for in one go
/// keeps every reader waiting for as long as it takes, a tenth of a millisecond.
const PIECE_BYTES: u64 = 128 << 10;
/// Dead records between survivors are read with them up to this length: skipping them would take the disk longer.
const GAP_BYTES: u64 = 16 << 10;

/// Bytes of records that several threads work at before they are written: the task cannot be stopped meanwhile.
const SHARED_BYTES: u64 = 1 << 20;
/// Parts that they are dealt out in, so that all have done at about the same time.
const SHARED_PARTS: usize = 16;

/// A row of a victim that has to survive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survivor {
    pub row: FooterRow,
    /// Where it is.
    pub from: Location,
    /// Bytes its record takes.
    pub bytes: u64,
    /// Group of its output, if it does not expire.
    pub group: u8,
    /// It is remembered only so that older versions stay away.
    pub shadow: bool,
}

/// A survivor in its new place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub id: EntryId,
    pub from: Location,
    pub to: IndexEntry,
}

/// A segment that is being written by a compaction.
struct Output<F> {
    identity: SegmentIdentity,
    slot: u32,
    file: F,
    path: PathBuf,
    buffer: Vec<u8>,
    written: u64,
    write_back: WriteBack,
    rows: Vec<FooterRow>,
    summary: SegmentSummary,
    /// What its values' size classes add up to.
    class_bytes: u64,
}

/// A finished output: durable, verified, under its temporary name until it is published.
pub(super) struct Finished {
    pub entry: SegmentEntry,
    pub summary: SegmentSummary,
    pub class_bytes: u64,
    pub allocated_bytes: u64,
}

/// Copies survivors into new segments. Whatever goes wrong, `discard` removes every trace.
pub(super) struct Relocation<'a, D: Disk, C: Clock> {
    shared: &'a Shared<D, C>,
    base_sequence: u64,
    groups: SurvivorGroups,
    /// The outputs being written, by group.
    outputs: BTreeMap<u8, Output<D::File>>,
    pub finished: Vec<Finished>,
    pub moved: Vec<Moved>,
    /// Survivors whose bytes are damaged.
    pub damaged: Vec<Survivor>,
    pub recompressed: u64,
    threads: usize,
    scratch: Scratch,
}

impl<'a, D: Disk, C: Clock> Relocation<'a, D, C> {
    /// `base_sequence` is the lowest sequence number among the survivors.
    pub(super) fn new(shared: &'a Shared<D, C>, base_sequence: u64, groups: SurvivorGroups) -> Self {
        Self {
            shared,
            base_sequence,
            groups,
            outputs: BTreeMap::new(),
            finished: Vec::new(),
            moved: Vec::new(),
            damaged: Vec::new(),
            recompressed: 0,
            threads: 1,
            scratch: Scratch::default(),
        }
    }

    /// Copies the survivors of one victim; `copied` is told the bytes done after each record and may stop the task.
    /// `threads` says how many may work at records that are stored anew, and read the output back; it is asked again and
    /// again.
    pub(super) fn copy(
        &mut self,
        identity: &SegmentIdentity,
        survivors: &[Survivor],
        recompress: bool,
        threads: impl Fn() -> usize,
        mut copied: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if survivors.is_empty() {
            return Ok(());
        }
        let path = names::segment(&self.shared.config.dir, identity.segment_id);
        let failed = |error| Error::io("read", &path, error);
        let file = self.shared.disk.open_read(&path).map_err(failed)?;
        // What lies behind a piece may be dead.
        file.random_reads();
        self.threads = 1;
        let (mut rest, mut bytes) = (survivors, Vec::new());
        while !rest.is_empty() {
            if recompress {
                self.threads = threads();
            }
            let (piece, behind) = rest.split_at(first_piece(rest, self.threads));
            rest = behind;
            let start = span(piece).start;
            read_span(&file, &span(piece), &mut bytes).map_err(failed)?;
            self.copy_piece(&Source { identity, start, bytes: &bytes, recompress }, piece, &mut copied)?;
        }
        Ok(())
    }

    /// Copies what has been read of a victim.
    fn copy_piece(
        &mut self,
        victim: &Source<'_>,
        survivors: &[Survivor],
        copied: &mut impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut ahead = match self.threads {
            1 => VecDeque::new(),
            threads => victim.make_ready_together(self.shared, threads, survivors),
        };
        for survivor in survivors {
            let ready = match ahead.pop_front() {
                Some(ready) => ready,
                None => victim.make_ready(self.shared, survivor, &mut self.scratch),
            };
            let offset = survivor.row.offset;
            match ready {
                Some(ready) => self.push_ready(survivor, victim, &ready)?,
                None => {
                    tracing::warn!(
                        segment = victim.identity.segment_id,
                        offset,
                        "damaged record met; its entry is lost"
                    );
                    self.damaged.push(*survivor);
                }
            }
            copied(u64::from(offset))?;
        }
        Ok(())
    }

    fn push_ready(&mut self, survivor: &Survivor, victim: &Source<'_>, ready: &Ready) -> Result<()> {
        match &ready.anew {
            Some(stored) => {
                self.recompressed += u64::from(!survivor.shadow);
                self.push(survivor, ready.meta, stored, ready.sum)
            }
            None => {
                let stored = &victim.from(survivor)[ready.meta.stored_range()];
                self.push(survivor, ready.meta, stored, ready.sum)
            }
        }
    }

    fn push(&mut self, survivor: &Survivor, meta: RecordMeta, stored: &[u8], sum: u32) -> Result<()> {
        let bytes = meta.record_bytes();
        let group = self.groups.group_of(survivor, &meta);
        let full = self.outputs.get(&group).is_some_and(|output| {
            let end = output.written + (output.buffer.len() + bytes) as u64;
            let fits = end <= self.shared.segment_bytes() || output.rows.is_empty();
            !fits || !within(meta.sequence, output.identity.base_sequence)
        });
        if full {
            self.finish_output(group)?;
        }
        if !self.outputs.contains_key(&group) {
            let opened = self.open_output(group, meta.sequence)?;
            self.outputs.insert(group, opened);
        }
        let output = self.outputs.get_mut(&group).expect("just opened");
        let offset = output.written + output.buffer.len() as u64;
        append_record(&mut output.buffer, &meta, stored, sum, place_of(&output.identity, offset));
        output.rows.push(FooterRow::new(survivor.row.hash, offset as u32, &meta));
        output.summary.add(&meta);
        output.summary.records_end = output.written + output.buffer.len() as u64;
        let size = if survivor.shadow { SizeClass::SHADOW } else { SizeClass::of(bytes) };
        if !survivor.shadow {
            output.class_bytes += size.bytes_estimate();
        }
        let location = Location { slot: output.slot, offset: offset as u32 };
        self.moved.push(Moved {
            id: EntryId::of(survivor.row.hash),
            from: survivor.from,
            to: IndexEntry { location, size },
        });
        let whole = whole_pieces(output.written, output.buffer.len());
        if whole > 0 {
            write_out(self.shared, output, whole)?;
        }
        Ok(())
    }

    fn open_output(&self, group: u8, sequence: u64) -> Result<Output<D::File>> {
        let shared = self.shared;
        // A span that 32 bits do not hold starts a segment of its own, from its own sequence number on.
        let fits = within(sequence, self.base_sequence);
        let identity = SegmentIdentity {
            store_id: shared.store_id,
            segment_id: shared.take_file_id(),
            nonce: fastrand::u64(..),
            base_sequence: if fits { self.base_sequence } else { sequence },
            log: LogKind::Survivors,
            group,
        };
        let slot = shared
            .slab
            .reserve()
            .ok_or_else(|| Error::new(ErrorKind::Io, "a quarter of a million segments are open"))?;
        let path = names::temporary(&names::segment(&shared.config.dir, identity.segment_id));
        let file = shared.disk.create(&path).map_err(|error| {
            shared.slab.release(slot);
            Error::io("create", &path, error)
        })?;
        let summary =
            SegmentSummary { records_end: SEGMENT_HEADER_BYTES as u64, ..SegmentSummary::default() };
        Ok(Output {
            identity,
            slot,
            file,
            path,
            buffer: identity.encode(),
            written: 0,
            write_back: WriteBack::default(),
            rows: Vec::new(),
            summary,
            class_bytes: 0,
        })
    }

    /// Completes all outputs.
    pub(super) fn finish(&mut self) -> Result<()> {
        while let Some(group) = self.outputs.keys().next().copied() {
            self.finish_output(group)?;
        }
        Ok(())
    }

    /// Completes an output: footer, sync, and proof that it reads back whole.
    fn finish_output(&mut self, group: u8) -> Result<()> {
        let Some(mut output) = self.outputs.remove(&group) else { return Ok(()) };
        let finished = self.complete(&mut output);
        if finished.is_err() {
            self.outputs.insert(group, output);
        }
        self.finished.push(finished?);
        Ok(())
    }

    fn complete(&self, output: &mut Output<D::File>) -> Result<Finished> {
        let shared = self.shared;
        let Output { identity, rows, summary, .. } = output;
        let footer = encode_footer(identity.nonce, summary.records_end, rows, summary);
        output.buffer.extend_from_slice(&footer);
        write_out(shared, output, output.buffer.len())?;
        // A failed sync is never tried again on this file: it is discarded, and the victims stay.
        output.file.sync().map_err(|error| Error::io("sync", &output.path, error))?;
        let reader =
            shared.disk.open_read(&output.path).map_err(|error| Error::io("open", &output.path, error))?;
        self.read_back(output, &reader)?;
        let allocated_bytes =
            reader.allocated_bytes().map_err(|error| Error::io("stat", &output.path, error))?;
        let entry = SegmentEntry {
            identity: output.identity,
            slot: output.slot,
            added_by: 0,
            sealed: Some(output.summary),
        };
        Ok(Finished { entry, summary: output.summary, class_bytes: output.class_bytes, allocated_bytes })
    }

    fn read_back(&self, output: &Output<D::File>, reader: &D::File) -> Result<()> {
        let shared = self.shared;
        let (seed, dictionaries) = (shared.hash_seed, &shared.dictionaries);
        let failed = |error| Error::io("read back", &output.path, error);
        let records = (&output.rows[..], output.summary.records_end);
        let mut whole = reads_back(self.threads, reader, &output.identity, records, seed, dictionaries)
            .map_err(failed)?;
        if whole {
            whole = match read_footer(reader, &output.identity) {
                Err(ReadError::Io(error)) => return Err(failed(error)),
                footer => {
                    footer.is_ok_and(|(summary, rows)| summary == output.summary && rows == output.rows)
                }
            };
        }
        if whole {
            return Ok(());
        }
        Err(Error::corruption(format!(
            "{}: what was written does not read back; the compaction was undone",
            output.path.display()
        )))
    }

    /// Removes the outputs. They are in no manifest, so nothing points at them.
    pub(super) fn discard(mut self) {
        let shared = self.shared;
        let mut left = Vec::new();
        for output in std::mem::take(&mut self.outputs).into_values() {
            left.push((output.slot, output.path, output.written));
        }
        for finished in &self.finished {
            let path = names::segment(&shared.config.dir, finished.entry.identity.segment_id);
            let bytes = finished.summary.file_bytes;
            left.push((finished.entry.slot, names::temporary(&path), bytes));
            left.push((finished.entry.slot, path, bytes));
        }
        let mut released = std::collections::BTreeSet::new();
        for (slot, path, bytes) in left {
            match shared.disk.remove(&path) {
                Ok(()) => shared.ledger.strike(in_blocks(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "left behind; the next start removes it");
                }
            }
            shared.slab.retire(slot);
            if released.insert(slot) {
                shared.slab.release(slot);
            }
        }
    }
}

/// A piece of a victim.
struct Source<'a> {
    identity: &'a SegmentIdentity,
    /// Where in the file it begins.
    start: u64,
    bytes: &'a [u8],
    recompress: bool,
}

/// A record that is ready for its new place.
struct Ready {
    meta: RecordMeta,
    sum: u32,
    /// Its stored bytes; none if they are those that it had.
    anew: Option<Vec<u8>>,
}

/// Memory to decode in.
#[derive(Default)]
struct Scratch {
    record: Vec<u8>,
    raw: Vec<u8>,
}

impl Source<'_> {
    /// The piece from a survivor on; nothing, if its file ends before.
    fn from(&self, survivor: &Survivor) -> &[u8] {
        self.bytes.get((u64::from(survivor.row.offset) - self.start) as usize..).unwrap_or_default()
    }

    /// Makes records ready on several threads, in their order.
    fn make_ready_together<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        threads: usize,
        survivors: &[Survivor],
    ) -> VecDeque<Option<Ready>> {
        let mut ready: VecDeque<Option<Ready>> = survivors.iter().map(|_| None).collect();
        let part = survivors.len().div_ceil(SHARED_PARTS).max(1);
        let places = ready.make_contiguous().chunks_mut(part);
        let parts = survivors.chunks(part).zip(places);
        let work = |scratch: &mut Scratch, (survivors, places): (&[Survivor], &mut [Option<Ready>])| {
            for (survivor, place) in survivors.iter().zip(places) {
                *place = self.make_ready(shared, survivor, scratch);
            }
            Ok::<(), Infallible>(())
        };
        let Ok(_) = spread(parts, threads, Scratch::default, work);
        ready
    }

    /// Checks a record and, if need be, encodes it anew; `None` if it is damaged.
    fn make_ready<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        survivor: &Survivor,
        scratch: &mut Scratch,
    ) -> Option<Ready> {
        let record = self.from(survivor);
        let (meta, sum) = self.verify(shared, survivor, record)?;
        if !survivor.shadow && (!self.recompress || is_in_force(shared, &meta)) {
            return Some(Ready { meta, sum, anew: None });
        }
        scratch.record.clear();
        scratch.record.extend_from_slice(&record[..meta.stored_range().end]);
        decode_record(&meta, &mut scratch.record, &shared.dictionaries, &mut scratch.raw).ok()?;
        Some(match survivor.shadow {
            true => tombstone_of(meta, &scratch.raw),
            false => recompressed(shared, meta, &scratch.raw),
        })
    }

    fn verify<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        survivor: &Survivor,
        bytes: &[u8],
    ) -> Option<(RecordMeta, u32)> {
        let record = UnverifiedRecord::parse(bytes, self.identity.base_sequence).ok()?;
        let stored = bytes.get(record.stored_range())?;
        let dictionary_id = match record.dictionary() {
            0 => 0,
            slot => shared.dictionaries.read(slot).as_ref()?.id(),
        };
        let sum = payload_sum(dictionary_id, stored);
        let meta = record.verify(sum, self.identity.nonce, survivor.row.offset.into()).ok()?;
        (meta.sequence == survivor.row.sequence).then_some((meta, sum))
    }
}

/// How many of the survivors, at least one, are read together and worked at by so many threads.
fn first_piece(survivors: &[Survivor], threads: usize) -> usize {
    let bytes_max = if threads > 1 { SHARED_BYTES } else { PIECE_BYTES };
    let start = u64::from(survivors[0].row.offset);
    let mut end = span(&survivors[..1]).end;
    let whole = survivors[1..].iter().take_while(|survivor| {
        let Range { start: next, end: next_end } = span(std::slice::from_ref(*survivor));
        let gap = next.saturating_sub(end);
        end = next_end;
        gap <= GAP_BYTES && end - start <= bytes_max
    });
    1 + whole.count()
}

/// Where in their file some survivors lie.
fn span(survivors: &[Survivor]) -> Range<u64> {
    let (first, last) = (&survivors[0], &survivors[survivors.len() - 1]);
    first.row.offset.into()..u64::from(last.row.offset) + last.bytes
}

/// Fills the buffer with a part of a file; with less of it, if the file is shorter.
fn read_span<F: DiskFile>(file: &F, span: &Range<u64>, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    bytes.resize((span.end - span.start) as usize, 0);
    let got = file.read_full_at(bytes, span.start)?;
    bytes.truncate(got);
    Ok(())
}

fn tombstone_of(meta: RecordMeta, raw: &[u8]) -> Ready {
    let key = &raw[..meta.key_len as usize];
    let meta = RecordMeta {
        expires_at_ms: 0,
        raw_len: meta.key_len,
        stored_len: meta.key_len,
        codec: 0,
        dictionary: 0,
        tombstone: true,
        first: false,
        outlasts: false,
        ..meta
    };
    Ready { meta, sum: payload_sum(0, key), anew: Some(key.to_vec()) }
}

fn recompressed<D: Disk, C: Clock>(shared: &Shared<D, C>, meta: RecordMeta, raw: &[u8]) -> Ready {
    let (encoded, dictionary_id) = stored_anew(shared, meta.key_len, raw);
    let meta = RecordMeta {
        stored_len: encoded.stored.len() as u32,
        codec: encoded.codec as u8,
        dictionary: encoded.dictionary,
        ..meta
    };
    Ready { meta, sum: payload_sum(dictionary_id, &encoded.stored), anew: Some(encoded.stored) }
}

/// Whether a record is stored with the dictionary in force. Another level would save a few hundredths: not worth its time.
pub(super) fn is_in_force<D: Disk, C: Clock>(shared: &Shared<D, C>, meta: &RecordMeta) -> bool {
    let parameters = shared.parameters(meta.raw_len as usize);
    meta.dictionary != 0 && meta.dictionary == parameters.dictionary
}

/// A record by the parameters in force now, and the identity of the dictionary that it needs (0 = none).
pub(super) fn stored_anew<D: Disk, C: Clock>(
    shared: &Shared<D, C>,
    key_len: u32,
    raw: &[u8],
) -> (Encoded, u64) {
    let (key, value) = raw.split_at(key_len as usize);
    let mut stored = Vec::new();
    let (Encoding { codec, dictionary }, id) =
        InForce::of(shared, raw.len()).encode_into(key, value, &mut stored);
    (Encoded { codec, dictionary, stored }, id)
}

/// Whether a segment with this base can hold the sequence number.
fn within(sequence: u64, base_sequence: u64) -> bool {
    sequence.checked_sub(base_sequence).is_some_and(|delta| u32::try_from(delta).is_ok())
}

/// Writes so many bytes of the buffer.
fn write_out<D: Disk, C: Clock>(
    shared: &Shared<D, C>,
    output: &mut Output<D::File>,
    bytes: usize,
) -> Result<()> {
    let end = output.written + bytes as u64;
    shared.ledger.resize(output.written, end);
    let Output { file, buffer, written, write_back, .. } = &mut *output;
    write_back.append(file, &buffer[..bytes], *written, shared.pieces()).map_err(|error| {
        // What it left is struck out by the length known when the file goes.
        shared.ledger.resize(end, output.written);
        Error::io("write", &output.path, error)
    })?;
    count(&shared.counters.segment_bytes_written, bytes as u64);
    output.written = end;
    output.buffer.drain(..bytes);
    Ok(())
}
