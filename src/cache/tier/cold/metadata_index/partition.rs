//! One partition of the index: a packed, ordered table of 12-byte slots.

use super::{HITS_MAX, IndexEntry, Location, NOWHERE, SLOT_BITS, SLOT_LIMIT, SizeClass, TAG_BITS};
use crate::cache::tier::cold::serialization::chunk::PackedSlot;
use crate::sync::atomic::{AtomicU32, Ordering};

const OFFSET_UNIT: u32 = 4;
const HITS_SHIFT: u32 = 5;

/// `tag 46 | slot 18` and `offset/4 24 | hits 3 | size 5`. All zero = empty: no record lies at offset 0.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Packed {
    high: u32,
    low: u32,
    place: u32,
}

impl Packed {
    pub(super) fn new(tag: u64, entry: IndexEntry) -> Self {
        debug_assert!(entry.location.slot < SLOT_LIMIT && entry.location.offset.is_multiple_of(OFFSET_UNIT));
        let word = tag << SLOT_BITS | u64::from(entry.location.slot);
        let place = (entry.location.offset / OFFSET_UNIT) << 8 | u32::from(entry.size.0);
        Self { high: (word >> 32) as u32, low: word as u32, place }
    }

    pub(super) fn is_empty(self) -> bool {
        self.place == 0
    }

    pub(super) fn hits(self) -> u8 {
        (self.place >> HITS_SHIFT) as u8 & HITS_MAX
    }

    pub(super) fn with_hits(self, hits: u8) -> Self {
        let others = self.place & !(u32::from(HITS_MAX) << HITS_SHIFT);
        Self { place: others | u32::from(hits.min(HITS_MAX)) << HITS_SHIFT, ..self }
    }

    fn word(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    pub(super) fn tag(self) -> u64 {
        self.word() >> SLOT_BITS
    }

    pub(super) fn entry(self) -> IndexEntry {
        IndexEntry {
            location: Location {
                slot: self.word() as u32 & (SLOT_LIMIT - 1),
                offset: (self.place >> 8) * OFFSET_UNIT,
            },
            size: SizeClass(self.place as u8 & 31),
        }
    }

    /// The same, but its segment is gone.
    pub(super) fn nowhere(self) -> Self {
        let entry = self.entry();
        let location = Location { slot: NOWHERE, ..entry.location };
        Self::new(self.tag(), IndexEntry { location, ..entry }).with_hits(self.hits())
    }

    pub(super) fn to_slot(self) -> PackedSlot {
        PackedSlot { word: self.word(), place: self.place }
    }

    pub(super) fn from_slot(slot: PackedSlot) -> Self {
        Self { high: (slot.word >> 32) as u32, low: slot.word as u32, place: slot.place }
    }
}

/// A place for a packed entry. Its hits are counted by readers, who hold the partition's lock for reading only.
#[derive(Default)]
pub(super) struct Slot {
    high: u32,
    low: u32,
    place: AtomicU32,
}

impl From<Packed> for Slot {
    fn from(packed: Packed) -> Self {
        Self { high: packed.high, low: packed.low, place: AtomicU32::new(packed.place) }
    }
}

impl Slot {
    pub(super) fn load(&self) -> Packed {
        Packed { high: self.high, low: self.low, place: self.place.load(Ordering::Relaxed) }
    }

    pub(super) fn store(&mut self, packed: Packed) {
        *self = Self::from(packed);
    }

    /// Counts a read; true unless they are all counted already.
    pub(super) fn hit(&self) -> bool {
        let place = self.load();
        let hit = place.with_hits(place.hits() + 1).place;
        // A reader that came in between has counted for both.
        place.hits() < HITS_MAX
            && self.place.compare_exchange(place.place, hit, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// One packed table: slots in the order of their tags, each at or behind its home.
#[derive(Default)]
pub(super) struct Partition {
    pub(super) slots: Box<[Slot]>,
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
    pub(super) fn find(&self, tag: u64) -> Result<usize, usize> {
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

    pub(super) fn insert(&mut self, tag: u64, packed: Packed) {
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

    pub(super) fn remove(&mut self, mut at: usize) {
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
        // Twice what is needed, so that the next few inserts and removes change nothing.
        *self = Self::lay_out(self.iter(), self.used * 2);
    }

    fn grow(&mut self) {
        *self = Self::lay_out(self.iter(), (self.homes + self.homes / 8).max(self.homes + 4));
    }

    /// Lays out entries, given in the order of their tags, in a table of so many homes.
    pub(super) fn lay_out(entries: impl Iterator<Item = Packed>, homes: u32) -> Self {
        let len = (homes + overflow_slots(homes)) as usize;
        let mut slots = Vec::with_capacity(len);
        slots.resize_with(len, Slot::default);
        let mut table = Self { slots: Box::default(), homes, used: 0 };
        let mut next = 0;
        entries.for_each(|packed| {
            let at = table.home(packed.tag()).max(next);
            next = at + 1;
            match slots.get_mut(at) {
                Some(slot) => slot.store(packed),
                // More than usual stand behind the homes.
                None => slots.push(Slot::from(packed)),
            }
            table.used += 1;
        });
        table.slots = slots.into_boxed_slice();
        table
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Packed> {
        self.slots.iter().map(Slot::load).filter(|packed| !packed.is_empty())
    }
}
