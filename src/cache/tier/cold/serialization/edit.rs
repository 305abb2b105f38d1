//! The manifest: a log of edits. Its first edit is the whole state; the others change it.
//!
//! Each edit is framed as `length, checksum, number, synced, payload` and written twice in a row, each copy in blocks of its own:
//! a damaged block costs a copy, not the store's memory of what it owns. Numbers go up by one, so a missing edit shows;
//! `synced` is the last edit known to be durable then, which tells one lost to damage from one that a power cut took.

use std::collections::BTreeMap;

use wincode::{SchemaRead, SchemaWrite};

use super::segment::{LogKind, SegmentIdentity, SegmentSummary};
use super::{FormatError, Result, decode, encode, seal_block};

const MAGIC: &[u8; 8] = b"LARDMAN1";
const FRAME_HEADER_BYTES: usize = 24;

/// Unit in which file systems and disks lose data. The header takes one, and each copy of an edit whole ones.
pub const BLOCK_BYTES: usize = 4096;
const HEADER_BYTES: usize = 16;

/// Classes of records by raw size.
pub const PARAMETER_CLASSES: usize = 4;

/// The header of a manifest file: one block.
pub fn manifest_header() -> Vec<u8> {
    let mut header = seal_block(MAGIC, &[]);
    header.resize(BLOCK_BYTES, 0);
    header
}

/// Checks the header of a manifest file.
///
/// # Errors
/// When it is none, or of a newer version.
pub fn check_manifest_header(bytes: &[u8]) -> Result<()> {
    super::open_block(MAGIC, bytes.get(..HEADER_BYTES).ok_or(FormatError::Short)?).map(|_| ())
}

/// A segment, as the manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub struct SegmentEntry {
    /// Who it is.
    pub identity: SegmentIdentity,
    /// Its place in the slab, which index entries and snapshots name it by.
    pub slot: u32,
    /// Number of the edit that added it.
    pub added_by: u64,
    /// What it holds; `None` while it is being written.
    pub sealed: Option<SegmentSummary>,
}

/// A dictionary, as the manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub struct DictionaryEntry {
    /// Its number, 1 to 255, which records name it by.
    pub slot: u8,
    /// Hash of its content.
    pub id: u64,
    /// Size of its content.
    pub bytes: u32,
}

/// How far a segment that is being written was durable when the clock was saved. A hole below that is damage; above
/// it, it is what a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub struct SyncedTail {
    /// The segment.
    pub segment_id: u64,
    /// Everything before this offset is durable.
    pub records_end: u64,
    /// Highest sequence number of a shadow below it; 0 if there is none.
    pub shadow_max: u64,
}

/// An index snapshot, as the manifest knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub struct SnapshotEntry {
    /// Its number.
    pub id: u64,
    /// L0: every operation up to this sequence number is reflected in it.
    pub covers: u64,
    /// E0: every edit up to this number is reflected in it.
    pub covers_edit: u64,
    /// Size of its file.
    pub file_bytes: u64,
}

/// One way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SchemaWrite, SchemaRead)]
pub struct ChoiceEntry {
    /// Codec number.
    pub codec: u8,
    /// Its level.
    pub level: i8,
    /// Dictionary slot; 0 = none.
    pub dictionary: u8,
    /// 1 = values are looked at before they are compressed; 0 = they are not.
    pub gate: u8,
}

/// How records are compressed from now on.
#[derive(Clone, Copy, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub struct ParametersEntry {
    /// What suits all records together; classes without a choice of their own have this one.
    pub common: ChoiceEntry,
    /// Records by class of raw size.
    pub classes: [ChoiceEntry; PARAMETER_CLASSES],
    /// Raw / stored bytes measured when it was chosen; 0 = never measured.
    pub expected_ratio: f32,
    /// Segments with a lower number were begun before it was chosen.
    pub since_file_id: u64,
}

/// Everything the manifest says, after its last edit.
#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
pub struct ManifestState {
    /// Random number of this store; every file of it carries it.
    pub store_id: u64,
    /// Seed of the key hash.
    pub hash_seed: u64,
    /// Number of the last edit.
    pub edit: u64,
    /// Segments by number.
    pub segments: BTreeMap<u64, SegmentEntry>,
    /// Dictionaries by slot.
    pub dictionaries: BTreeMap<u8, DictionaryEntry>,
    /// The snapshot in force.
    pub snapshot: Option<SnapshotEntry>,
    /// W: highest sequence number of any shadow that was discarded.
    pub watermark: u64,
    /// Lowest segment and snapshot number never used.
    pub next_file_id: u64,
    /// Lowest sequence number that recovery may hand out, as of the last seal or save.
    pub next_sequence: u64,
    /// The store's clock, unix ms.
    pub clock_ms: u64,
    /// How records are compressed.
    pub parameters: ParametersEntry,
    /// How far the segments being written are durable.
    pub tails: Vec<SyncedTail>,
    /// Edits have been lost to damage once: files that no edit names may be needed, and are not deleted.
    pub damaged: bool,
}

/// A change of the manifest.
#[derive(Clone, Debug, PartialEq, SchemaWrite, SchemaRead)]
#[wincode(tag_encoding = "u8")]
pub enum Edit {
    /// The whole state: the first edit of every manifest file.
    State(Box<ManifestState>),
    /// A segment that is going to be written.
    AddSegment(SegmentEntry),
    /// A segment is complete.
    SealSegment {
        /// Its number.
        segment_id: u64,
        /// What it holds.
        summary: SegmentSummary,
    },
    /// Segments come and go in one step: the commit of a compaction or of an expiry drop.
    Replace {
        /// Complete segments that take over.
        add: Vec<SegmentEntry>,
        /// Segments that are gone.
        drop: Vec<u64>,
        /// The new watermark.
        watermark: u64,
    },
    /// A dictionary is durable and may be used.
    AddDictionary(DictionaryEntry),
    /// No segment needs this dictionary any more.
    DropDictionary(u8),
    /// A snapshot is durable, and takes the place of the one before.
    AddSnapshot(SnapshotEntry),
    /// How records are compressed from now on.
    SetParameters(ParametersEntry),
    /// The store's clock and sequence counter, saved with each sync.
    SaveClock {
        /// Unix ms.
        clock_ms: u64,
        /// Lowest sequence number not handed out yet.
        next_sequence: u64,
        /// How far the segments being written are durable.
        tails: Vec<SyncedTail>,
    },
    /// The snapshot of this number turned out to be unusable.
    DropSnapshot(u64),
}

impl ManifestState {
    /// The state of a store that holds nothing.
    pub fn new(store_id: u64, hash_seed: u64, clock_ms: u64, parameters: ParametersEntry) -> Self {
        Self {
            store_id,
            hash_seed,
            edit: 0,
            segments: BTreeMap::new(),
            dictionaries: BTreeMap::new(),
            snapshot: None,
            watermark: 0,
            next_file_id: 1,
            next_sequence: 1,
            clock_ms,
            parameters,
            tails: Vec::new(),
            damaged: false,
        }
    }

    /// The sequence number up to which the snapshot reflects all operations; 0 without one.
    pub fn covered(&self) -> u64 {
        self.snapshot.map_or(0, |snapshot| snapshot.covers)
    }

    /// Whether entries were moved since the snapshot, which therefore names segments that are gone.
    pub fn has_moved_since_snapshot(&self) -> bool {
        let since = self.snapshot.map_or(0, |snapshot| snapshot.covers_edit);
        let is_moved =
            |entry: &SegmentEntry| entry.identity.log == LogKind::Survivors && entry.added_by > since;
        self.segments.values().any(is_moved)
    }

    /// Applies an edit.
    pub fn apply(&mut self, number: u64, edit: &Edit) {
        match edit {
            Edit::State(state) => *self = (**state).clone(),
            Edit::AddSegment(entry) => self.add_segment(number, entry),
            Edit::SealSegment { segment_id, summary } => {
                self.next_sequence = self.next_sequence.max(summary.sequence_max + 1);
                if let Some(entry) = self.segments.get_mut(segment_id) {
                    entry.sealed = Some(*summary);
                }
            }
            Edit::Replace { add, drop, watermark } => {
                for entry in add {
                    self.add_segment(number, entry);
                }
                for segment_id in drop {
                    self.segments.remove(segment_id);
                }
                self.watermark = self.watermark.max(*watermark);
            }
            Edit::AddDictionary(entry) => {
                self.dictionaries.insert(entry.slot, entry.clone());
            }
            Edit::DropDictionary(slot) => {
                self.dictionaries.remove(slot);
            }
            Edit::AddSnapshot(snapshot) => {
                self.snapshot = Some(*snapshot);
                self.next_file_id = self.next_file_id.max(snapshot.id + 1);
            }
            Edit::SetParameters(parameters) => self.parameters = *parameters,
            Edit::SaveClock { clock_ms, next_sequence, tails } => {
                self.clock_ms = self.clock_ms.max(*clock_ms);
                self.next_sequence = self.next_sequence.max(*next_sequence);
                self.tails.clone_from(tails);
            }
            Edit::DropSnapshot(id) => self.snapshot = self.snapshot.filter(|snapshot| snapshot.id != *id),
        }
        self.edit = number;
    }

    fn add_segment(&mut self, number: u64, entry: &SegmentEntry) {
        let id = entry.identity.segment_id;
        self.next_file_id = self.next_file_id.max(id + 1);
        if let Some(summary) = &entry.sealed {
            self.next_sequence = self.next_sequence.max(summary.sequence_max + 1);
        }
        self.segments.insert(id, SegmentEntry { added_by: number, ..entry.clone() });
    }

    /// Live segments of a log, oldest first.
    pub fn segments_of(&self, log: LogKind) -> impl Iterator<Item = &SegmentEntry> {
        self.segments.values().filter(move |entry| entry.identity.log == log)
    }
}

/// The bytes of an edit in the manifest: both copies, each filled up to whole blocks, so that no block of the disk holds
/// a part of both.
///
/// `synced` is the number of the last edit that a sync has made durable.
pub fn encode_edit(number: u64, synced: u64, edit: &Edit) -> Vec<u8> {
    let payload = encode(edit);
    let mut frame =
        Vec::with_capacity(2 * (FRAME_HEADER_BYTES + payload.len()).next_multiple_of(BLOCK_BYTES));
    frame.extend_from_slice(&u32::try_from(payload.len()).expect("an edit is small").to_le_bytes());
    frame.extend_from_slice(&frame_check(number, synced, &payload).to_le_bytes());
    frame.extend_from_slice(&number.to_le_bytes());
    frame.extend_from_slice(&synced.to_le_bytes());
    frame.extend_from_slice(&payload);
    frame.resize(frame.len().next_multiple_of(BLOCK_BYTES), 0);
    frame.extend_from_within(..);
    frame
}

fn frame_check(number: u64, synced: u64, payload: &[u8]) -> u32 {
    let numbers = crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &synced.to_le_bytes());
    crc32c::crc32c_append(numbers, payload)
}

/// What reading a manifest's edits found.
#[derive(Debug, Default)]
pub struct EditLog {
    /// The edits, in order, with their numbers.
    pub edits: Vec<(u64, Edit)>,
    /// Bytes up to the end of the last one taken: where the next edit is written.
    pub end: usize,
    /// Damaged places that were followed by whole edits.
    pub repaired: u64,
    /// Where the first edit, the whole state, ends.
    pub state_end: usize,
    /// An edit that was durable is missing: damage, not a torn end.
    pub broken: bool,
}

/// Reads the edits of a manifest file, up to its torn end. Blocks that are the start of no edit are stepped over: a
/// damaged copy is followed by the whole one.
pub fn decode_edits(file: &[u8]) -> EditLog {
    let mut log = EditLog { end: BLOCK_BYTES, ..EditLog::default() };
    let mut last: Option<u64> = None;
    let mut at = BLOCK_BYTES;
    while at < file.len() {
        let Some(Frame { number, synced, edit, len }) = decode_frame(&file[at..]) else {
            at += BLOCK_BYTES;
            continue;
        };
        if last.is_some_and(|last| number > last + 1) {
            // Not taken, whatever the reason. A power cut may have kept a later one of several unsynced edits.
            log.broken |= last.is_some_and(|last| synced > last);
            at += len;
            continue;
        }
        log.repaired += u64::from(at != log.end);
        if last.is_none_or(|last| number > last) {
            log.edits.push((number, edit));
            last = Some(number);
        }
        at += len;
        log.end = at;
        if log.edits.len() == 1 {
            log.state_end = at;
        }
    }
    log
}

struct Frame {
    number: u64,
    synced: u64,
    edit: Edit,
    len: usize,
}

fn decode_frame(bytes: &[u8]) -> Option<Frame> {
    let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    let word = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("inside the frame header"));
    let long = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().expect("inside the frame header"));
    let (number, synced) = (long(8), long(16));
    let len = FRAME_HEADER_BYTES.checked_add(word(0) as usize)?;
    let payload = bytes.get(FRAME_HEADER_BYTES..len)?;
    if frame_check(number, synced, payload) != word(4) {
        return None;
    }
    let edit = decode(payload).ok()?;
    Some(Frame { number, synced, edit, len: len.next_multiple_of(BLOCK_BYTES) })
}
