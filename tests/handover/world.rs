//! What the threads of a model look at together: the shipped structures, and files of a few records.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use larder::internals::core::slab::{OpenSegment, Slab};
use larder::internals::hand_over::{HandOver, Newest};
use larder::internals::in_flight::{EncodedRecord, InFlight};
use larder::internals::metadata_index::{EntryId, IndexEntry, Location, MetadataIndex, NOWHERE, SizeClass};
use larder::internals::serialization::record::RecordMeta;
use larder::internals::serialization::segment::{LogKind, SegmentIdentity, SegmentSummary};
use shuttle::sync::Mutex;

use crate::oracle::{Found, Oracle};

/// Hashes of the keys: two in one partition of the index, a third in another.
const HASHES: [u64; 3] = [1 << 8, 2 << 8, 1 << 63 | 1 << 8];
pub const KEYS: usize = HASHES.len();
/// Files that a model may make.
const FILES: usize = 12;
/// Bytes of a record.
pub const RECORD: u32 = 64;

/// A record in a file. Its sequence number is its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub key: usize,
    pub sequence: u64,
    pub tombstone: bool,
}

/// A segment of a model: its slot in the slab and its file.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub slot: u32,
    pub file: usize,
}

pub struct World {
    pub index: MetadataIndex,
    pub in_flight: InFlight,
    pub slab: Slab<usize>,
    pub oracle: Oracle,
    files: [Mutex<BTreeMap<u32, Stored>>; FILES],
    /// Number of the next file; only its maker's thread and the oracle look at it.
    next_file: std::sync::atomic::AtomicUsize,
}

pub fn id_of(key: usize) -> EntryId {
    EntryId::of(HASHES[key])
}

pub fn key_of(hash: u64) -> usize {
    HASHES.iter().position(|known| *known == hash).expect("a key of the model")
}

/// What the index says of a record at this place.
pub fn entry(slot: u32, offset: u32, shadow: bool) -> IndexEntry {
    let size = if shadow { SizeClass::SHADOW } else { SizeClass::of(RECORD as usize) };
    IndexEntry { location: Location { slot, offset }, size }
}

/// A record without a number.
pub fn record(key: usize, tombstone: bool) -> EncodedRecord {
    let meta = RecordMeta {
        sequence: 0,
        expires_at_ms: 0,
        key_len: 1,
        raw_len: 1,
        stored_len: 1,
        codec: 0,
        dictionary: 0,
        tombstone,
        first: false,
        outlasts: false,
    };
    EncodedRecord {
        meta,
        hash: HASHES[key],
        stored: Bytes::from_static(b"k"),
        sum: 0,
        is_raw: false,
        ttl_ms: 0,
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            index: MetadataIndex::default(),
            in_flight: InFlight::new(1),
            slab: Slab::default(),
            oracle: Oracle::new(KEYS),
            files: std::array::from_fn(|_| Mutex::new(BTreeMap::new())),
            next_file: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    pub fn core(&self) -> HandOver<'_, usize> {
        HandOver { index: &self.index, in_flight: &self.in_flight, slab: &self.slab }
    }

    /// A new file, and a slot for it.
    pub fn reserve(&self) -> Segment {
        let file = self.next_file.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Segment { slot: self.slab.reserve().expect("models use few slots"), file }
    }

    pub fn install(&self, segment: Segment) {
        let identity = SegmentIdentity {
            store_id: 1,
            segment_id: segment.file as u64,
            nonce: segment.file as u64,
            base_sequence: 0,
            log: LogKind::Fresh,
            group: 0,
        };
        let open = OpenSegment { identity, file: segment.file };
        self.slab.install(segment.slot, open, SegmentSummary::default(), 0, Some(0));
    }

    pub fn write(&self, file: usize, offset: u32, stored: Stored) {
        self.files[file].lock().expect("no panic").insert(offset, stored);
    }

    pub fn records(&self, file: usize) -> Vec<(u32, Stored)> {
        self.files[file].lock().expect("no panic").iter().map(|(offset, stored)| (*offset, *stored)).collect()
    }

    /// Closes a segment that no entry names, deletes its file and gives its slot back, as `remove_segment` does.
    pub fn remove_segment(&self, segment: Segment) {
        self.slab.retire(segment.slot);
        self.files[segment.file].lock().expect("no panic").clear();
        for key in 0..KEYS {
            let named = self.index.get(id_of(key)).is_some_and(|entry| entry.location.slot == segment.slot);
            assert!(!named, "S2: key {key} names slot {}, which is given back", segment.slot);
        }
        self.slab.release(segment.slot);
    }

    /// A sealed segment that holds values of these keys, before any thread runs.
    pub fn sealed_with(&self, keys: &[usize]) -> Segment {
        let segment = self.reserve();
        self.install(segment);
        for (at, key) in keys.iter().enumerate() {
            let offset = RECORD * (at as u32 + 1);
            let sequence = self.in_flight.place(record(*key, false)).meta.sequence;
            self.oracle.begin(*key, false);
            self.oracle.placed(*key, sequence, false);
            self.core().point(id_of(*key), entry(segment.slot, offset, false));
            self.write(segment.file, offset, Stored { key: *key, sequence, tombstone: false });
            self.core().let_go(id_of(*key), sequence);
        }
        segment
    }

    /// What a caller's `get` finds.
    pub fn look(&self, key: usize) -> Found {
        let read = |entry: IndexEntry| -> Result<Option<Stored>, Infallible> {
            let Some(guard) = self.slab.read(entry.location.slot) else { return Ok(None) };
            let Some(segment) = guard.as_ref() else { return Ok(None) };
            Ok(self.files[segment.file].lock().expect("no panic").get(&entry.location.offset).copied())
        };
        let Ok(newest) = self.core().newest(id_of(key), true, read);
        match newest {
            Newest::InFlight(record) if record.meta.tombstone => Found::Absent,
            Newest::InFlight(record) => Found::Value(record.meta.sequence),
            Newest::Stored(stored) if stored.key != key => Found::Foreign,
            Newest::Stored(stored) if stored.tombstone => Found::Absent,
            Newest::Stored(stored) => Found::Value(stored.sequence),
            Newest::Absent => Found::Absent,
            Newest::Damaged => Found::Damaged,
        }
    }

    /// When all threads have ended: every key is found as it must be, every entry names a segment, nothing is left in
    /// flight.
    pub fn check_at_rest(&self) {
        assert!(self.in_flight.is_empty(), "left in flight");
        for key in 0..KEYS {
            let expected = self.oracle.expect(key, 0);
            self.oracle.check(&expected, self.look(key));
            if let Some(entry) = self.index.get(id_of(key)) {
                let slot = entry.location.slot;
                let stands = slot == NOWHERE || self.slab.account(slot).is_some();
                assert!(stands, "S2: key {key} names slot {slot}, which is free");
            }
        }
    }
}
