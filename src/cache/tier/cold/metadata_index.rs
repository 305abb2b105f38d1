//! The metadata index: where the latest record of each key is.
//!
//! A DashMap of 16,384 partitions; each is a packed table of 12-byte slots, ordered by hash tag with linear probing
//! (Amble & Knuth, "Ordered hash tables", 1974), so that a miss stops early, and growing by an eighth, so that no
//! growth doubles memory or stalls. Keys are not kept: an entry is identified by 60 bits of its key's hash, the same
//! bits that recovery uses, and a reader checks the key on disk.
//!
//! Owner: the `ColdTier`; the writer sets entries, the compaction worker repoints and removes them (both by
//! compare-and-set on the location), everybody reads. No guard leaves this module.
//!
//! Invariant X1: an entry exists for a hash exactly while its latest record is a value, or a shadow that some kept
//! snapshot does not cover yet.

use std::hash::{BuildHasher, Hasher};

use super::serialization::snapshot::{CHUNKS, PACKED_SLOT_BYTES};
use crate::sync::ConcurrentMap;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const PARTITION_BITS: u32 = 14;
const TAG_BITS: u32 = 46;
const SLOT_BITS: u32 = 18;
const OFFSET_UNIT: u32 = 4;
const HITS_SHIFT: u32 = 5;
/// Reads of an entry that are told apart.
pub const HITS_MAX: u8 = 7;
const SHARDS: usize = 256;

/// Partitions of the index.
pub const PARTITIONS: usize = 1 << PARTITION_BITS;
/// Partitions in a chunk of a snapshot.
pub const CHUNK_PARTITIONS: usize = PARTITIONS / CHUNKS;
/// Slab slots the index can name.
pub const SLOT_LIMIT: u32 = 1 << SLOT_BITS;
/// The slot of entries whose segment is gone; never given out.
pub const NOWHERE: u32 = SLOT_LIMIT - 1;

/// Identity of an entry: 60 bits of its key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(u64);

impl EntryId {
    /// The identity of the key with this hash.
    pub fn of(hash: u64) -> Self {
        Self(hash >> (64 - PARTITION_BITS - TAG_BITS))
    }

    /// The 60 bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    fn partition(self) -> u16 {
        (self.0 >> TAG_BITS) as u16
    }

    fn tag(self) -> u64 {
        self.0 & ((1 << TAG_BITS) - 1)
    }
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Slab slot of its segment.
    pub slot: u32,
    /// Offset in the segment.
    pub offset: u32,
}

/// Size class of a record: how many bytes one read has to fetch. Steps of 1.5 and 1.33 from 64 bytes to 1.5 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass(u8);

impl SizeClass {
    /// A shadow: a deletion, or an expired value that has to be remembered.
    pub const SHADOW: Self = Self(0);
    const LARGEST: u8 = 31;

    /// The class of a record of this many bytes.
    pub fn of(record_bytes: usize) -> Self {
        Self((1..Self::LARGEST).find(|class| Self::bound(*class) >= record_bytes).unwrap_or(Self::LARGEST))
    }

    fn bound(class: u8) -> usize {
        let step = usize::from(class) - 1;
        (64 << (step / 2)) * (2 + step % 2) / 2
    }

    /// Largest record of the class; `None` for the class of the very large ones.
    pub fn bytes_max(self) -> Option<usize> {
        match self.0 {
            0 => Some(Self::bound(1)),
            Self::LARGEST => None,
            class => Some(Self::bound(class)),
        }
    }

    /// The middle of the class: what a record of it is counted as until its footer is read.
    pub fn bytes_estimate(self) -> u64 {
        match self.0 {
            0 | 1 => 48,
            Self::LARGEST => 2 * Self::bound(Self::LARGEST - 1) as u64,
            class => (Self::bound(class - 1) + Self::bound(class)) as u64 / 2,
        }
    }
}

/// An entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where its latest record is.
    pub location: Location,
    /// How large that is, or that it is a shadow.
    pub size: SizeClass,
}

impl IndexEntry {
    /// Whether it only remembers that older bytes of the key must not come back.
    pub fn is_shadow(&self) -> bool {
        self.size == SizeClass::SHADOW
    }
}

/// `tag 46 | slot 18` and `offset/4 24 | hits 3 | size 5`. All zero = empty: no record lies at offset 0.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Packed {
    high: u32,
    low: u32,
    place: u32,
}

impl Packed {
    fn new(tag: u64, entry: IndexEntry) -> Self {
        debug_assert!(entry.location.slot < SLOT_LIMIT && entry.location.offset.is_multiple_of(OFFSET_UNIT));
        let word = tag << SLOT_BITS | u64::from(entry.location.slot);
        let place = (entry.location.offset / OFFSET_UNIT) << 8 | u32::from(entry.size.0);
        Self { high: (word >> 32) as u32, low: word as u32, place }
    }

    fn is_empty(self) -> bool {
        self.place == 0
    }

    fn hits(self) -> u8 {
        (self.place >> HITS_SHIFT) as u8 & HITS_MAX
    }

    fn with_hits(self, hits: u8) -> Self {
        let others = self.place & !(u32::from(HITS_MAX) << HITS_SHIFT);
        Self { place: others | u32::from(hits.min(HITS_MAX)) << HITS_SHIFT, ..self }
    }

    fn word(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    fn tag(self) -> u64 {
        self.word() >> SLOT_BITS
    }

    fn entry(self) -> IndexEntry {
        IndexEntry {
            location: Location {
                slot: self.word() as u32 & (SLOT_LIMIT - 1),
                offset: (self.place >> 8) * OFFSET_UNIT,
            },
            size: SizeClass(self.place as u8 & 31),
        }
    }

    fn to_bytes(self) -> [u8; PACKED_SLOT_BYTES] {
        let mut bytes = [0; PACKED_SLOT_BYTES];
        bytes[..8].copy_from_slice(&self.word().to_le_bytes());
        bytes[8..].copy_from_slice(&self.place.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; PACKED_SLOT_BYTES]) -> Self {
        let word = u64::from_le_bytes(*bytes.first_chunk().expect("eight of twelve bytes"));
        let place = u32::from_le_bytes(*bytes.last_chunk().expect("four of twelve bytes"));
        Self { high: (word >> 32) as u32, low: word as u32, place }
    }
}

/// A place for a packed entry. Its hits are counted by readers, who hold the partition's lock for reading only.
#[derive(Default)]
struct Slot {
    high: u32,
    low: u32,
    place: AtomicU32,
}

impl Slot {
    fn load(&self) -> Packed {
        Packed { high: self.high, low: self.low, place: self.place.load(Ordering::Relaxed) }
    }

    fn store(&mut self, packed: Packed) {
        *self = Self { high: packed.high, low: packed.low, place: AtomicU32::new(packed.place) };
    }

    /// Counts a read; true unless they are all counted already.
    fn hit(&self) -> bool {
        let place = self.load();
        let hit = place.with_hits(place.hits() + 1).place;
        // A reader that came in between has counted for both.
        place.hits() < HITS_MAX
            && self.place.compare_exchange(place.place, hit, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// One packed table: slots in the order of their tags, each at or behind its home.
#[derive(Default)]
struct Partition {
    slots: Vec<Slot>,
    /// Homes; the few slots behind them take what the last homes overflow.
    homes: u32,
    used: u32,
}

/// Slots behind the homes: a long run of the last tags may need a dozen, a small table must not pay for them.
const fn overflow_slots(homes: u32) -> u32 {
    let wanted = 3 + homes / 32;
    if wanted < 12 { wanted } else { 12 }
}

impl Partition {
    fn home(&self, tag: u64) -> usize {
        (((tag >> (TAG_BITS - 32)) * u64::from(self.homes)) >> 32) as usize
    }

    /// Where the tag is, or where it would have to be inserted.
    fn find(&self, tag: u64) -> Result<usize, usize> {
        if self.homes == 0 {
            return Err(0);
        }
        let mut at = self.home(tag);
        while let Some(packed) = self.slots.get(at).map(Slot::load) {
            if packed.is_empty() || packed.tag() > tag {
                break;
            }
            if packed.tag() == tag {
                return Ok(at);
            }
            at += 1;
        }
        Err(at)
    }

    fn insert(&mut self, tag: u64, packed: Packed) {
        // At most 9/10 full: about five slots looked at for a hit or a miss.
        if (self.used + 1) * 10 > self.homes * 9 {
            self.grow();
        }
        loop {
            let at = self.find(tag).expect_err("the caller has looked");
            let behind = &self.slots[at.min(self.slots.len())..];
            let hole = behind.iter().position(|slot| slot.load().is_empty());
            if let Some(hole) = hole {
                self.slots[at..=at + hole].rotate_right(1);
                self.slots[at].store(packed);
                self.used += 1;
                return;
            }
            self.grow();
        }
    }

    fn remove(&mut self, mut at: usize) {
        // Pull back what follows, as long as it is not at its home already.
        while let Some(next) = self.slots.get(at + 1).map(Slot::load) {
            if next.is_empty() || self.home(next.tag()) == at + 1 {
                break;
            }
            self.slots[at].store(next);
            at += 1;
        }
        self.slots[at].store(Packed::default());
        self.used -= 1;
        if self.used * 4 < self.homes {
            self.shrink();
        }
    }

    /// Gives memory back once three quarters are empty.
    fn shrink(&mut self) {
        if self.used == 0 {
            *self = Self::default();
            return;
        }
        let entries: Vec<Packed> = self.iter().collect();
        // Twice what is needed, so that the next few inserts and removes change nothing.
        self.place_all(&entries, self.used * 2);
    }

    fn grow(&mut self) {
        let mut homes = (self.homes + self.homes / 8).max(self.homes + 4);
        let entries: Vec<Packed> = self.iter().collect();
        while !self.place_all(&entries, homes) {
            homes += homes / 8 + 1;
        }
    }

    /// Lays sorted entries out anew; false if the last ones do not fit.
    fn place_all(&mut self, entries: &[Packed], homes: u32) -> bool {
        let len = (homes + overflow_slots(homes)) as usize;
        let slots = (0..len).map(|_| Slot::default()).collect();
        let mut table = Self { slots, homes, used: entries.len() as u32 };
        let mut next = 0;
        for packed in entries {
            let at = table.home(packed.tag()).max(next);
            let Some(slot) = table.slots.get_mut(at) else { return false };
            slot.store(*packed);
            next = at + 1;
        }
        *self = table;
        true
    }

    fn iter(&self) -> impl Iterator<Item = Packed> {
        self.slots.iter().map(Slot::load).filter(|packed| !packed.is_empty())
    }
}

/// Spreads partition numbers over shards and buckets (Fibonacci hashing).
#[derive(Clone, Copy, Default)]
struct Spread;

struct SpreadHasher(u64);

impl BuildHasher for Spread {
    type Hasher = SpreadHasher;

    fn build_hasher(&self) -> SpreadHasher {
        SpreadHasher(0)
    }
}

impl Hasher for SpreadHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u16(u16::from(*byte));
        }
    }

    fn write_u16(&mut self, value: u16) {
        self.0 = (self.0.rotate_left(16) ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The index.
pub struct MetadataIndex {
    partitions: ConcurrentMap<u16, Partition, Spread>,
    values: AtomicU64,
    shadows: AtomicU64,
}

impl Default for MetadataIndex {
    fn default() -> Self {
        Self {
            partitions: ConcurrentMap::with_capacity_and_hasher_and_shard_amount(0, Spread, SHARDS),
            values: AtomicU64::new(0),
            shadows: AtomicU64::new(0),
        }
    }
}

impl MetadataIndex {
    /// The entry of a hash.
    pub fn get(&self, id: EntryId) -> Option<IndexEntry> {
        let partition = self.partitions.get(&id.partition())?;
        partition.find(id.tag()).ok().map(|at| partition.slots[at].load().entry())
    }

    /// The entry of a hash that is being read; the flag says whether the read was counted. Counts to [`HITS_MAX`].
    pub fn get_and_count(&self, id: EntryId) -> Option<(IndexEntry, bool)> {
        let partition = self.partitions.get(&id.partition())?;
        partition.find(id.tag()).ok().map(|at| {
            let slot = &partition.slots[at];
            (slot.load().entry(), slot.hit())
        })
    }

    /// Reads counted of the entry at this location; `None` if it is not there any more.
    pub fn hits(&self, id: EntryId, location: Location) -> Option<u8> {
        let partition = self.partitions.get(&id.partition())?;
        let packed = partition.find(id.tag()).ok().map(|at| partition.slots[at].load())?;
        (packed.entry().location == location).then(|| packed.hits())
    }

    /// Sets an entry; returns the one it replaces.
    pub fn set(&self, id: EntryId, entry: IndexEntry) -> Option<IndexEntry> {
        let packed = Packed::new(id.tag(), entry);
        let old = {
            let mut partition = self.partitions.entry(id.partition()).or_default();
            match partition.find(id.tag()) {
                Ok(at) => {
                    // A new value of a key is read as the old one was.
                    let old = partition.slots[at].load();
                    partition.slots[at].store(packed.with_hits(old.hits()));
                    Some(old.entry())
                }
                Err(_) => {
                    partition.insert(id.tag(), packed);
                    None
                }
            }
        };
        self.count(old, Some(entry));
        old
    }

    /// Replaces an entry (or, with `None`, removes it) if it still is at `expected`; false if it is not.
    pub fn replace_if(&self, id: EntryId, expected: Location, new: Option<IndexEntry>) -> bool {
        let old = {
            let Some(mut partition) = self.partitions.get_mut(&id.partition()) else { return false };
            let Ok(at) = partition.find(id.tag()) else { return false };
            let old = partition.slots[at].load().entry();
            if old.location != expected {
                return false;
            }
            match new {
                Some(entry) => partition.slots[at].store(Packed::new(id.tag(), entry)),
                None => partition.remove(at),
            }
            old
        };
        self.count(Some(old), new);
        true
    }

    /// Makes an entry a shadow, wherever it is; false if there is none.
    pub fn shadow(&self, id: EntryId) -> bool {
        let (old, new) = {
            let Some(mut partition) = self.partitions.get_mut(&id.partition()) else { return false };
            let Ok(at) = partition.find(id.tag()) else { return false };
            let old = partition.slots[at].load().entry();
            let new = IndexEntry { size: SizeClass::SHADOW, ..old };
            partition.slots[at].store(Packed::new(id.tag(), new));
            (old, new)
        };
        self.count(Some(old), Some(new));
        true
    }

    /// Points an entry that is at `from` at its new place. An entry that has become a shadow there stays one.
    pub fn relocate(&self, id: EntryId, from: Location, to: IndexEntry) -> bool {
        let (old, new) = {
            let Some(mut partition) = self.partitions.get_mut(&id.partition()) else { return false };
            let Ok(at) = partition.find(id.tag()) else { return false };
            let packed = partition.slots[at].load();
            let old = packed.entry();
            if old.location != from {
                return false;
            }
            let size = if old.is_shadow() { SizeClass::SHADOW } else { to.size };
            let new = IndexEntry { size, ..to };
            // Half of what is known of its reads goes along: what was read long ago counts less.
            partition.slots[at].store(Packed::new(id.tag(), new).with_hits(packed.hits() / 2));
            (old, new)
        };
        self.count(Some(old), Some(new));
        true
    }

    /// Values in the index, the expired ones included that no cleanup has met yet.
    pub fn len(&self) -> u64 {
        self.values.load(Ordering::Relaxed)
    }

    /// Values and shadows: what a snapshot holds.
    pub fn entries(&self) -> u64 {
        self.len() + self.shadows()
    }

    /// Whether it holds no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shadows in the index.
    pub fn shadows(&self) -> u64 {
        self.shadows.load(Ordering::Relaxed)
    }

    /// Resident bytes: slots, tables and the map around them.
    pub fn resident_bytes(&self) -> u64 {
        let tables: usize = self
            .partitions
            .iter()
            .map(|partition| partition.slots.capacity() * size_of::<Slot>() + size_of::<Partition>() + 16)
            .sum();
        (tables + SHARDS * 128) as u64
    }

    /// A copy of one partition's entries.
    pub fn partition(&self, number: u16) -> Vec<(EntryId, IndexEntry)> {
        let base = u64::from(number) << TAG_BITS;
        let Some(partition) = self.partitions.get(&number) else { return Vec::new() };
        partition.iter().map(|packed| (EntryId(base | packed.tag()), packed.entry())).collect()
    }

    /// One partition's packed slots, for a snapshot.
    pub fn packed_partition(&self, number: u16) -> Vec<[u8; PACKED_SLOT_BYTES]> {
        let Some(partition) = self.partitions.get(&number) else { return Vec::new() };
        partition.iter().map(Packed::to_bytes).collect()
    }

    /// Fills a partition from a snapshot; `place` says where each entry is now. Returns the entries taken.
    ///
    /// Slots are taken as they come: the snapshot's checksum has vouched for them. Out of order, they are refused.
    pub fn load_partition(
        &self,
        number: u16,
        slots: &[[u8; PACKED_SLOT_BYTES]],
        mut place: impl FnMut(IndexEntry) -> IndexEntry,
    ) -> Option<u64> {
        let mut entries: Vec<Packed> = Vec::with_capacity(slots.len());
        for packed in slots.iter().map(Packed::from_bytes) {
            if packed.is_empty() || entries.last().is_some_and(|last| last.tag() >= packed.tag()) {
                return None;
            }
            let entry = place(packed.entry());
            entries.push(Packed::new(packed.tag(), entry).with_hits(packed.hits()));
            self.count(None, Some(entry));
        }
        let taken = entries.len() as u64;
        let mut partition = Partition::default();
        let mut homes = (entries.len() as u32 * 10).div_ceil(9) + 1;
        while !partition.place_all(&entries, homes) {
            homes += homes / 8 + 1;
        }
        if taken > 0 {
            self.partitions.insert(number, partition);
        }
        Some(taken)
    }

    /// Forgets everything (recovery, when a snapshot turns out to be damaged half way).
    pub fn clear(&self) {
        self.partitions.clear();
        self.values.store(0, Ordering::Relaxed);
        self.shadows.store(0, Ordering::Relaxed);
    }

    fn count(&self, old: Option<IndexEntry>, new: Option<IndexEntry>) {
        let counter = |entry: IndexEntry| if entry.is_shadow() { &self.shadows } else { &self.values };
        if let Some(new) = new {
            counter(new).fetch_add(1, Ordering::Relaxed);
        }
        if let Some(old) = old {
            counter(old).fetch_sub(1, Ordering::Relaxed);
        }
    }
}
