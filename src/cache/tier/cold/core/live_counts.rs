//! How many values the index points at in each segment, kept count of while it is being built: a pass over a large index
//! afterwards would cost as much as loading it.

use crate::cache::tier::cold::metadata_index::{IndexEntry, NOWHERE, SizeClass};

/// Values by slab slot and size class. Differences too: a part may take away what another has counted.
#[derive(Debug, Default)]
pub struct LiveCounts {
    by_slot: Vec<[i32; SizeClass::COUNT]>,
}

impl LiveCounts {
    /// Nothing counted yet; slots below `slots` are prepared for.
    pub fn of_slots(slots: usize) -> Self {
        Self { by_slot: vec![[0; SizeClass::COUNT]; slots] }
    }

    /// Counts an entry that the index has now.
    pub fn add(&mut self, entry: IndexEntry) {
        self.change(entry, 1);
    }

    /// Counts an entry that the index has no more.
    pub fn take(&mut self, entry: IndexEntry) {
        self.change(entry, -1);
    }

    fn change(&mut self, entry: IndexEntry, by: i32) {
        let slot = entry.location.slot;
        if let Some(counts) = self.by_slot.get_mut(slot as usize) {
            counts[entry.size.number()] += by;
        } else if slot != NOWHERE {
            self.by_slot.resize(slot as usize + 1, [0; SizeClass::COUNT]);
            self.change(entry, by);
        }
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        self.by_slot.resize(self.by_slot.len().max(other.by_slot.len()), [0; SizeClass::COUNT]);
        for (counts, others) in self.by_slot.iter_mut().zip(&other.by_slot) {
            counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
        }
    }

    /// Values in a segment, and the bytes that their size classes estimate.
    pub fn of(&self, slot: u32) -> (u64, u64) {
        let Some(counts) = self.by_slot.get(slot as usize) else { return (0, 0) };
        let values = SizeClass::values().map(|class| (class, counts[class.number()].max(0) as u64));
        values.fold((0, 0), |(records, bytes), (class, count)| {
            (records + count, bytes + count * class.bytes_estimate())
        })
    }
}
