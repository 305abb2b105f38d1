//! Trained dictionaries: how they are made, prepared for use, and found by their slot.
//!
//! Owner: the [`DictionaryTable`] of the store. The compaction worker trains, installs and removes; callers hold a
//! slot's read lock while they use one.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use xxhash_rust::xxh3::xxh3_64;
use zstd::zstd_safe::{CDict, DDict};

use super::compression::DecodeError;

/// Where zstd keeps the id in a trained dictionary (RFC 8878, section 5): after its 4-byte magic.
const DICTIONARY_ID: std::ops::Range<usize> = 4..8;

/// Slots of a [`DictionaryTable`]; slot 0 is never used, it means "no dictionary" in a record.
const SLOTS: usize = 256;

/// A trained dictionary, prepared for use: digested once for every level it is used at, not once a value.
pub struct Dictionary {
    slot: u8,
    id: u64,
    bytes: Vec<u8>,
    /// One digest a level; several when classes use one dictionary at different levels. Never empty.
    compressing: Vec<(i8, CDict<'static>)>,
    decompressing: DDict<'static>,
}

impl Dictionary {
    /// Prepares `bytes` for decompression, and for compression at zstd level `level`. Costs 0.04 ms for 16 KiB and
    /// 0.13 ms for 64 KiB at levels 1 and 3, and memory for two digested copies: 0.5 and 0.6 MiB at level 3 (see
    /// [`memory_bytes`](Self::memory_bytes)).
    ///
    /// # Errors
    /// [`DecodeError::Dictionary`] if zstd refuses the bytes (damaged entropy tables) or `slot` is 0.
    pub fn new(slot: u8, bytes: Vec<u8>, level: i8) -> Result<Self, DecodeError> {
        let refused = DecodeError::Dictionary { slot, bytes: bytes.len() };
        if slot == 0 {
            return Err(refused);
        }
        match (CDict::try_create(&bytes, i32::from(level)), DDict::try_create(&bytes)) {
            (Some(compressing), Some(decompressing)) => {
                let id = xxh3_64(&bytes);
                Ok(Self { slot, id, bytes, compressing: vec![(level, compressing)], decompressing })
            }
            _ => Err(refused),
        }
    }

    /// Prepares it for compression at exactly these levels; what it is prepared for already costs nothing. What was
    /// stored before stays readable: decompression knows no level.
    pub fn set_levels(&mut self, levels: &[i8]) {
        for &level in levels {
            // The same bytes were accepted before, so only a failed allocation can refuse them now; another level
            // then stands in.
            if !self.levels().any(|known| known == level)
                && let Some(compressing) = CDict::try_create(&self.bytes, i32::from(level))
            {
                self.compressing.push((level, compressing));
            }
        }
        if self.levels().any(|known| levels.contains(&known)) {
            self.compressing.retain(|(level, _)| levels.contains(level));
        }
    }

    /// The digest for a level; of those there are, the first if there is none for it.
    pub(super) fn compressing(&self, level: i8) -> &CDict<'static> {
        let found = self.compressing.iter().find(|(known, _)| *known == level);
        &found.unwrap_or(&self.compressing[0]).1
    }

    pub(super) fn decompressing(&self) -> &DDict<'static> {
        &self.decompressing
    }

    /// Slot in the table, 1 to 255.
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// Identity: xxh3-64 of the bytes.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The zstd levels it is prepared for.
    pub fn levels(&self) -> impl Iterator<Item = i8> {
        self.compressing.iter().map(|(level, _)| *level)
    }

    /// The bytes that make it durable.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Memory it takes, in bytes: its own bytes and all digested forms.
    pub fn memory_bytes(&self) -> usize {
        let compressing: usize = self.compressing.iter().map(|(_, digest)| digest.sizeof()).sum();
        self.bytes.len() + compressing + self.decompressing.sizeof()
    }
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let levels: Vec<i8> = self.levels().collect();
        let Self { slot, id, bytes, .. } = self;
        write!(f, "Dictionary {{ slot: {slot}, id: {id:016x}, levels: {levels:?}, bytes: {} }}", bytes.len())
    }
}

/// Trains a dictionary of at most `max_bytes` on `samples` (raw buffers: key ++ value), or `None` if there is too
/// little to learn from (under twice `max_bytes`, under 8 samples) or zstd refuses.
///
/// The trainer is ZDICT's fast COVER (Liao, Petri, Moffat, Wirth: "Effective construction of relative Lempel-Ziv
/// dictionaries", WWW 2016; `ZDICT_trainFromBuffer`), the one a safe interface offers; it tries five segment sizes.
/// Equal samples in equal order give equal bytes. The id inside is zeroed, so that frames made with it do not repeat
/// it. Cost: 40 ms for 750 samples of 940 bytes (measured), the same at 16 and at 64 KiB.
pub fn train_dictionary<S: AsRef<[u8]>>(samples: &[S], max_bytes: usize) -> Option<Vec<u8>> {
    const SAMPLES_MIN: usize = 8;
    let total: usize = samples.iter().map(|sample| sample.as_ref().len()).sum();
    if samples.len() < SAMPLES_MIN || total < max_bytes.saturating_mul(2) {
        return None;
    }
    let mut bytes = zstd::dict::from_samples(samples, max_bytes).ok()?;
    bytes.get_mut(DICTIONARY_ID)?.fill(0);
    Some(bytes)
}

/// The dictionaries in use, by slot. Fixed size; many threads read, the maintenance worker writes.
///
/// A reader holds its slot's read lock while it compresses or decompresses one value (microseconds), so installing
/// and removing wait that long at most. A lock poisoned by a panicking thread is taken over: a slot is replaced as a
/// whole, so there is no half-made state behind it.
pub struct DictionaryTable {
    slots: Box<[RwLock<Option<Dictionary>>]>,
}

impl DictionaryTable {
    /// An empty table.
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| RwLock::new(None)).collect() }
    }

    /// The dictionary in `slot`, held until the guard is dropped; `None` inside if the slot is free (slot 0 always
    /// is). Cost: one uncontended atomic.
    pub fn read(&self, slot: u8) -> RwLockReadGuard<'_, Option<Dictionary>> {
        self.slots[usize::from(slot)].read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a dictionary into its slot and returns what was there. Waits for the slot's readers.
    pub fn install(&self, dictionary: Dictionary) -> Option<Dictionary> {
        self.write(dictionary.slot()).replace(dictionary)
    }

    /// Frees a slot and returns what was there. Waits for the slot's readers.
    pub fn remove(&self, slot: u8) -> Option<Dictionary> {
        self.write(slot).take()
    }

    /// Prepares the dictionary in `slot` for exactly these zstd levels; `false` if there is none. Waits for its
    /// readers, and they for the digests (under a millisecond each).
    pub fn set_levels(&self, slot: u8, levels: &[i8]) -> bool {
        match self.write(slot).as_mut() {
            Some(dictionary) => {
                dictionary.set_levels(levels);
                true
            }
            None => false,
        }
    }

    /// Waits until nobody uses the dictionary in `slot` any more who began to before this call.
    pub fn wait_for_readers(&self, slot: u8) {
        drop(self.write(slot));
    }

    /// The lowest free slot, or `None` if all 255 are taken. Only the one installing thread may rely on it.
    pub fn free_slot(&self) -> Option<u8> {
        (1..=u8::MAX).find(|&slot| self.read(slot).is_none())
    }

    /// The slots taken, in order.
    pub fn slots(&self) -> Vec<u8> {
        (1..=u8::MAX).filter(|&slot| self.read(slot).is_some()).collect()
    }

    /// Number of dictionaries.
    pub fn count(&self) -> usize {
        self.slots().len()
    }

    /// Bytes of all dictionaries as they are stored (once).
    pub fn total_bytes(&self) -> usize {
        self.sum(|dictionary| dictionary.bytes().len())
    }

    /// Memory all dictionaries take, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.sum(Dictionary::memory_bytes)
    }

    fn sum(&self, size: impl Fn(&Dictionary) -> usize) -> usize {
        (1..=u8::MAX).filter_map(|slot| self.read(slot).as_ref().map(&size)).sum()
    }

    fn write(&self, slot: u8) -> RwLockWriteGuard<'_, Option<Dictionary>> {
        self.slots[usize::from(slot)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for DictionaryTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DictionaryTable").field("slots", &self.slots()).finish()
    }
}

impl Default for DictionaryTable {
    fn default() -> Self {
        Self::new()
    }
}
