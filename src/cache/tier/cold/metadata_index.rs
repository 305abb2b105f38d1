//! The metadata index: where the latest record of each key is.
//!
//! A DashMap of 1,024 partitions; each is a packed table of 12-byte slots, ordered by hash tag with linear probing
//! (Amble & Knuth, "Ordered hash tables", 1974), so that a miss stops early, and growing by an eighth, so that no
//! growth doubles memory or stalls. Keys are not kept: an entry is identified by 56 bits of its key's hash, the same
//! bits that recovery uses, and a reader checks the key on disk.
//!
//! So few partitions that the processor's caches hold the map of them: a look-up waits for memory once, for the slot.
//!
//! Owner: the `ColdTier`; the writer sets entries, the compaction worker repoints and removes them (both by
//! compare-and-set on the location), everybody reads. No guard leaves this module.
//!
//! Invariant X1: an entry exists for a hash exactly while its latest record is a value, or a shadow that the
//! snapshot does not cover yet.

mod partition;

use std::hash::{BuildHasher, Hasher};

use partition::{Packed, Partition, Slot};

use super::serialization::chunk::{PackedSlot, TAG_BITS};
use super::serialization::snapshot::CHUNKS;
use crate::sync::ConcurrentMap;
use crate::sync::atomic::{AtomicU64, Ordering};

const PARTITION_BITS: u32 = 10;
const SLOT_BITS: u32 = 18;
/// Reads of an entry that are told apart.
pub const HITS_MAX: u8 = 7;
/// Locks. Who loses its processor while it holds one keeps out whoever needs the same one, for as long as the scheduler likes:
/// with many it is hardly ever the same one.
const SHARDS: usize = 512;

/// Partitions of the index.
pub const PARTITIONS: usize = 1 << PARTITION_BITS;
/// Partitions in a chunk of a snapshot.
pub const CHUNK_PARTITIONS: usize = PARTITIONS / CHUNKS;
/// Slab slots the index can name.
pub const SLOT_LIMIT: u32 = 1 << SLOT_BITS;
/// The slot of entries whose segment is gone; never given out.
pub const NOWHERE: u32 = SLOT_LIMIT - 1;

/// Identity of an entry: 56 bits of its key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(u64);

impl EntryId {
    /// The identity of the key with this hash.
    pub fn of(hash: u64) -> Self {
        Self(hash >> (64 - PARTITION_BITS - TAG_BITS))
    }

    /// The 56 bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The partition that it is in.
    pub fn partition(self) -> u16 {
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
    /// How many there are.
    pub const COUNT: usize = 32;

    /// The classes of values, from the smallest on.
    pub fn values() -> impl Iterator<Item = Self> {
        (1..=Self::LARGEST).map(Self)
    }

    /// Its number, from 0 (shadows) on.
    pub fn number(self) -> usize {
        usize::from(self.0 & Self::LARGEST)
    }

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

    /// Whether a value is in force, and is here.
    pub fn is_value_at(&self, location: Location) -> bool {
        self.location == location && !self.is_shadow()
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
        Self::with_room_for(0)
    }
}

impl MetadataIndex {
    /// An empty index. If so many entries will have use for every partition, the map is made for all of them now.
    pub fn with_room_for(entries: u64) -> Self {
        let partitions = if entries > 4 * PARTITIONS as u64 { PARTITIONS } else { 0 };
        Self {
            partitions: ConcurrentMap::with_capacity_and_hasher_and_shard_amount(partitions, Spread, SHARDS),
            values: AtomicU64::new(0),
            shadows: AtomicU64::new(0),
        }
    }

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

    /// Makes an entry a shadow, wherever it is; what it was, `None` if there is none.
    pub fn shadow(&self, id: EntryId) -> Option<IndexEntry> {
        let (old, new) = {
            let mut partition = self.partitions.get_mut(&id.partition())?;
            let at = partition.find(id.tag()).ok()?;
            let old = partition.slots[at].load().entry();
            let new = IndexEntry { size: SizeClass::SHADOW, ..old };
            partition.slots[at].store(Packed::new(id.tag(), new));
            (old, new)
        };
        self.count(Some(old), Some(new));
        Some(old)
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
            .map(|partition| partition.slots.len() * size_of::<Slot>() + size_of::<Partition>() + 16)
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
    pub fn packed_partition(&self, number: u16) -> Vec<PackedSlot> {
        let Some(partition) = self.partitions.get(&number) else { return Vec::new() };
        partition.iter().map(Packed::to_slot).collect()
    }

    /// Fills a partition from a snapshot; `stands` says whether an entry's segment is still there. If not, the entry gets
    /// the slot [`NOWHERE`].
    ///
    /// Slots are taken as they come: the snapshot's checksum has vouched for them. Out of order, they are refused, and
    /// `None` is returned.
    pub fn load_partition(
        &self,
        number: u16,
        slots: impl ExactSizeIterator<Item = PackedSlot>,
        mut stands: impl FnMut(IndexEntry) -> bool,
    ) -> Option<()> {
        let (mut sound, mut shadows, mut tag_min, len) = (true, 0, 0, slots.len());
        let entries = slots.map(|slot| {
            let packed = Packed::from_slot(slot);
            let (tag, entry) = (packed.tag(), packed.entry());
            // Without a branch: millions of them are looked at.
            sound &= !packed.is_empty() & (tag >= tag_min);
            tag_min = tag + 1;
            shadows += u64::from(entry.is_shadow());
            if stands(entry) { packed } else { packed.nowhere() }
        });
        if len > 0 {
            let homes = (len as u32 * 10).div_ceil(9) + 1;
            self.partitions.insert(number, Partition::lay_out(entries, homes));
            self.shadows.fetch_add(shadows, Ordering::Relaxed);
            self.values.fetch_add(len as u64 - shadows, Ordering::Relaxed);
        }
        sound.then_some(())
    }

    /// Looks at a partition's entries one after the other, in one go: `change` gets each identity's entry, if there is one,
    /// and says what it shall be; `None` leaves it as it is. For recovery: a row here and a row there would wait for memory
    /// each time.
    pub fn amend<'a, R: 'a>(
        &self,
        number: u16,
        rows: impl IntoIterator<Item = (EntryId, &'a R)>,
        mut change: impl FnMut(Option<IndexEntry>, &R) -> Option<IndexEntry>,
    ) {
        let mut partition = self.partitions.entry(number).or_default();
        for (id, row) in rows {
            let found = partition.find(id.tag());
            let old = found.ok().map(|at| partition.slots[at].load());
            let Some(new) = change(old.map(Packed::entry), row) else { continue };
            let packed = Packed::new(id.tag(), new);
            match (found, old) {
                (Ok(at), Some(old)) => partition.slots[at].store(packed.with_hits(old.hits())),
                _ => partition.insert(id.tag(), packed),
            }
            self.count(old.map(Packed::entry), Some(new));
        }
    }

    /// Removes the entries whose segment is gone.
    pub fn remove_dangling(&self) {
        for number in 0..PARTITIONS as u16 {
            let Some(mut partition) = self.partitions.get_mut(&number) else { continue };
            let dangles = |packed: &Packed| packed.entry().location.slot == NOWHERE;
            let dangling: Vec<Packed> = partition.iter().filter(dangles).collect();
            for packed in dangling {
                if let Ok(at) = partition.find(packed.tag()) {
                    partition.remove(at);
                    self.count(Some(packed.entry()), None);
                }
            }
        }
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
