//! A fair sample of the live entries: within a class of raw size every entry is as likely as the next, whatever its
//! age, and a class that holds a share of the bytes worth a choice of its own is sampled often enough for one.
//!
//! The index knows how long records are as stored, not how long they were. So entries are drawn from four strata of
//! stored size (which bounds the raw size from below), first some of each to learn which classes they hold, then each
//! class from its strata in proportion.

use super::CompactionSystem;
use crate::cache::memory::efficiency_analyzer::{OWN_SAMPLES_MIN, Sample};
use crate::cache::tier::cold::classes::{CLASSES, class_of};
use crate::cache::tier::cold::lookup::{Lookup, lookup};
use crate::cache::tier::cold::metadata_index::{EntryId, PARTITIONS};
use crate::cache::tier::cold::shared::Shared;
use crate::clock::Clock;
use crate::error::Result;
use crate::io::Disk;

/// Entries of the index looked at, at most: 12 bytes each, some 20 ms.
const ENTRIES_SEEN_MAX: u64 = 1 << 20;
/// Entries of a stratum kept to draw from.
const STRATUM_ENTRIES: usize = 4096;
/// Entries of each stratum read first, at most: what they are says which classes the stratum holds.
const PILOT_ENTRIES: usize = 64;
/// Entries read for each one that is wanted, at most.
const LOOKUPS_FOR_ONE: usize = 4;
/// Raw bytes read from one stratum at most: a few huge values must not keep the small ones from being sampled. The one
/// that reaches the limit may exceed it.
const STRATUM_BYTES_MAX: usize = 32 << 20;
/// A class with this share of the raw bytes is to be sampled [`OWN_SAMPLES_MIN`] times, if it has that many entries.
const CLASS_SHARE_MIN: f64 = 0.05;
/// Sampling takes the first part of a tuning.
pub(super) const SAMPLED_AT: f32 = 0.4;

/// The sample, and what it says about the whole.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    pub samples: Vec<Sample>,
    /// They are of a store that has hardly begun: a brief look at them is enough for now.
    pub is_brief: bool,
    /// Nobody used the store while they were read.
    pub is_alone: bool,
    /// Live entries of each class, estimated.
    pub entries: [u64; CLASSES],
    /// Their raw bytes, estimated.
    pub raw_bytes: [u64; CLASSES],
}

/// Entries of about the same stored size.
#[derive(Default)]
struct Stratum {
    /// Entries seen.
    seen: u64,
    /// Some of them, each as likely as the next, in random order.
    kept: Vec<EntryId>,
    /// Those of `kept` that were read, and their raw bytes.
    drawn: usize,
    bytes: usize,
    /// What was read and is not in the sample yet, by class.
    pool: [Vec<Sample>; CLASSES],
    /// Read in all, by class, and their raw bytes.
    found: [u64; CLASSES],
    found_bytes: [u64; CLASSES],
}

impl Stratum {
    /// Reservoir sampling (Vitter, "Random sampling with a reservoir", 1985, algorithm R).
    fn see(&mut self, id: EntryId) {
        self.seen += 1;
        if self.kept.len() < STRATUM_ENTRIES {
            self.kept.push(id);
        } else if let Some(place) = self.kept.get_mut(fastrand::u64(..self.seen) as usize) {
            *place = id;
        }
    }

    /// Entries of a class among those seen, estimated.
    fn entries_of(&self, class: usize) -> f64 {
        self.seen as f64 * self.found[class] as f64 / self.found.iter().sum::<u64>().max(1) as f64
    }

    /// Their raw bytes, estimated.
    fn bytes_of(&self, class: usize) -> f64 {
        self.seen as f64 * self.found_bytes[class] as f64 / self.found.iter().sum::<u64>().max(1) as f64
    }
}

impl CompactionSystem {
    /// Up to `sample_entries_max` live entries.
    pub(super) fn sample_entries<D: Disk, C: Clock>(&self, shared: &Shared<D, C>) -> Result<Sampled> {
        let wanted = shared.config.sample_entries_max;
        let (strata, scale) = strata_of(shared);
        let mut draw = Draw { system: self, shared, strata, wanted, lookups: 0 };
        for stratum in 0..CLASSES {
            let pilot = PILOT_ENTRIES.min(wanted / CLASSES);
            while draw.strata[stratum].drawn < pilot && draw.draw(stratum)? {}
        }
        let entries = draw.estimate(Stratum::entries_of);
        let quotas = quotas(&entries, &draw.estimate(Stratum::bytes_of), wanted);
        let mut sampled = Sampled::default();
        for (class, quota) in quotas.into_iter().enumerate() {
            for stratum in 0..CLASSES {
                let share = draw.strata[stratum].entries_of(class) / entries[class].max(1.0);
                let quota = (quota as f64 * share).round() as usize;
                draw.take(stratum, class, quota, &mut sampled.samples)?;
            }
        }
        draw.fill_up(&mut sampled.samples)?;
        // Once more, now that more is known.
        sampled.entries = draw.estimate(Stratum::entries_of).map(|entries| (entries * scale).round() as u64);
        sampled.raw_bytes = draw.estimate(Stratum::bytes_of).map(|bytes| (bytes * scale).round() as u64);
        Ok(sampled)
    }
}

/// The strata of the index, and by how much all of it is more than what was looked at.
fn strata_of<D: Disk, C: Clock>(shared: &Shared<D, C>) -> ([Stratum; CLASSES], f64) {
    let mut strata: [Stratum; CLASSES] = Default::default();
    let mut order: Vec<u16> = (0..PARTITIONS).map(|number| number as u16).collect();
    fastrand::shuffle(&mut order);
    let mut seen = 0;
    for number in order {
        for (id, entry) in shared.index.partition(number) {
            if !entry.is_shadow() {
                strata[class_of(entry.size.bytes_estimate() as usize)].see(id);
                seen += 1;
            }
        }
        if seen >= ENTRIES_SEEN_MAX {
            break;
        }
    }
    for stratum in &mut strata {
        // The reservoir fills in the order of the walk.
        fastrand::shuffle(&mut stratum.kept);
    }
    (strata, (shared.index.len() as f64 / seen.max(1) as f64).max(1.0))
}

/// Samples of each class: in proportion to its entries, but enough for a judgement where it holds a share of the bytes.
fn quotas(entries: &[f64; CLASSES], raw_bytes: &[f64; CLASSES], wanted: usize) -> [usize; CLASSES] {
    let (all, all_bytes) = (entries.iter().sum::<f64>().max(1.0), raw_bytes.iter().sum::<f64>().max(1.0));
    let counts = |class: &usize| raw_bytes[*class] > CLASS_SHARE_MIN * all_bytes;
    let judged = (0..CLASSES).filter(counts).count().max(1);
    let floor = |class: usize| match counts(&class) {
        // A few more, since some turn out to have expired or to be of another class.
        true => {
            (OWN_SAMPLES_MIN + OWN_SAMPLES_MIN / 10).min(wanted / judged).min(entries[class].ceil() as usize)
        }
        false => 0,
    };
    let floors: [usize; CLASSES] = std::array::from_fn(floor);
    let rest = wanted.saturating_sub(floors.iter().sum()) as f64;
    // What is left goes to those that have more entries than their floor.
    let over = |class: usize| (entries[class] * wanted as f64 / all - floors[class] as f64).max(0.0);
    let over_all = (0..CLASSES).map(over).sum::<f64>().max(1.0);
    std::array::from_fn(|class| floors[class] + (rest * over(class) / over_all) as usize)
}

/// Drawing under way.
struct Draw<'a, D: Disk, C: Clock> {
    system: &'a CompactionSystem,
    shared: &'a Shared<D, C>,
    strata: [Stratum; CLASSES],
    wanted: usize,
    lookups: usize,
}

impl<D: Disk, C: Clock> Draw<'_, D, C> {
    /// Of each class among the entries seen, by what was read so far.
    fn estimate(&self, of: fn(&Stratum, usize) -> f64) -> [f64; CLASSES] {
        std::array::from_fn(|class| self.strata.iter().map(|stratum| of(stratum, class)).sum())
    }

    /// Reads one more entry of a stratum into its pool; false if there is none left, or enough has been read.
    fn draw(&mut self, stratum: usize) -> Result<bool> {
        let place = &mut self.strata[stratum];
        let Some(&id) = place.kept.get(place.drawn) else { return Ok(false) };
        if self.lookups >= LOOKUPS_FOR_ONE * self.wanted || place.bytes > STRATUM_BYTES_MAX {
            return Ok(false);
        }
        self.system.check_stop(self.shared)?;
        place.drawn += 1;
        self.lookups += 1;
        if let Lookup::Found(meta, raw) = lookup(self.shared, id, false)? {
            let class = class_of(raw.len());
            place.bytes += raw.len();
            place.found[class] += 1;
            place.found_bytes[class] += raw.len() as u64;
            place.pool[class].push(Sample { raw, key_len: meta.key_len as usize });
        }
        // More may have to be read than are wanted; the last step is taken when all is done.
        let done = self.lookups as f32 / self.wanted as f32;
        self.shared.state.advance(SAMPLED_AT * done.min(0.99));
        Ok(true)
    }

    /// Moves entries of a class from a stratum to the sample, reading more as needed.
    fn take(&mut self, stratum: usize, class: usize, quota: usize, samples: &mut Vec<Sample>) -> Result<()> {
        for _ in 0..quota {
            while self.strata[stratum].pool[class].is_empty() {
                if !self.draw(stratum)? {
                    return Ok(());
                }
            }
            if samples.len() < self.wanted {
                samples.extend(self.strata[stratum].pool[class].pop());
            }
        }
        Ok(())
    }

    /// Where quotas were rounded down or could not be met, others take their place: what was read for nothing else,
    /// then whatever there is.
    fn fill_up(&mut self, samples: &mut Vec<Sample>) -> Result<()> {
        loop {
            let mut pools = self.strata.iter_mut().flat_map(|stratum| &mut stratum.pool);
            let longest = pools.by_ref().max_by_key(|pool| pool.len());
            match longest {
                _ if samples.len() == self.wanted => return Ok(()),
                Some(pool) if !pool.is_empty() => samples.extend(pool.pop()),
                _ => {
                    let mut any = false;
                    for stratum in 0..CLASSES {
                        any |= self.draw(stratum)?;
                    }
                    if !any {
                        return Ok(());
                    }
                }
            }
        }
    }
}
