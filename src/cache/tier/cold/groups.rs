//! Which log a record goes to: records that are likely to die together lie together.
//!
//! Records that expire are classed by their time to live, up to 16 classes, learned from the traffic: most caches use a
//! handful of times to live (Yang, Yue, Rashmi: "A large scale analysis of hundreds of in-memory cache clusters at
//! Twitter", OSDI 2020, section 4.4). A segment of one class, sealed after a sixteenth of that time, dies as a whole.
//!
//! Records that do not expire die by being replaced: they are classed by how long they are likely to last.
//!
//! Owner: the writer. Classes are only advice: a store opened anew learns them again, and a record in the wrong class
//! costs space for a while, nothing else.

use crate::cache::tier::cold::serialization::segment::SegmentSummary;

/// Classes of records that do not expire, by the time until they are likely to be replaced: groups 0 to 4.
pub const LASTING_CLASSES: u8 = 5;
/// The class of what nothing is known of: new keys, deletions.
pub const UNKNOWN_CLASS: u8 = 2;
/// The first of the groups of records that expire.
pub const EXPIRING: u8 = LASTING_CLASSES;
/// Classes of times to live.
pub const CLASSES: usize = 16;

/// A segment is sealed after this part of its records' time to live,
const SEAL_AGE_DIVISOR: u64 = 16;
/// but not before this time, in milliseconds: each seal costs a sync.
const SEAL_AGE_MIN_MS: u64 = 500;
/// Times to live that differ by less than one part in this many count as the same: sealing by age blurs them as much.
const SAME_DIVISOR: u64 = SEAL_AGE_DIVISOR;
/// After this many records the weight of all that came before is halved.
const HALF_LIFE_RECORDS: u32 = 1 << 16;
/// A class of less weight has not been met for ten half-lives or so, and makes room for a new one.
const FORGOTTEN_WEIGHT: f64 = 0.5;

/// Ages up to which the classes of lasting records reach, in overwrites of the whole store: a factor of four each.
/// Measured in a simulation of 400,000 records in segments of 512, at 1.25 bytes a live byte: 90 % of the overwrites on
/// 10 % of the keys write 1.50 bytes a byte with these five classes, 1.92 with fresh records and survivors apart only;
/// Zipf 0.99 1.66 and 2.25.
const CLASS_AGES: [f64; LASTING_CLASSES as usize - 1] = [0.03, 0.12, 0.48, 1.92];

/// With fewer entries, a few segments hold everything, and there is nothing to keep apart.
const ENTRIES_MIN: u64 = 1000;

/// The class of records of this age, in sequence numbers; `entries` are those of the store.
fn class_of_age(age: u64, entries: u64) -> u8 {
    if entries < ENTRIES_MIN {
        return UNKNOWN_CLASS;
    }
    let overwrites = age as f64 / entries.max(1) as f64;
    CLASS_AGES.partition_point(|until| *until <= overwrites) as u8
}

/// Age of a segment's records, taken to be written evenly between its lowest and its highest sequence number.
fn age_of(summary: &SegmentSummary, now: u64) -> u64 {
    now.saturating_sub(summary.sequence_min / 2 + summary.sequence_max / 2)
}

/// The group of a record that replaces one in a segment of this group: as long as that one lasted the new one is likely
/// to last, the longer experience of its class taken into account (after Wang et al.: "Separating data via block
/// invalidation time inference for write amplification reduction in log-structured storage", FAST 2022).
pub fn group_of_replacement(group: u8, summary: &SegmentSummary, now: u64, entries: u64) -> u8 {
    let class = class_of_age(age_of(summary, now), entries);
    match group {
        EXPIRING.. => class,
        group => (class + group).div_ceil(2),
    }
}

/// The group of what survives a segment of this group: it has lasted that long already.
pub fn group_of_survivors(group: u8, summary: &SegmentSummary, now: u64, entries: u64) -> u8 {
    let class = class_of_age(age_of(summary, now), entries);
    if group >= EXPIRING { class } else { class.max(group) }
}

/// A range of times to live, in milliseconds, and how often it was met lately.
#[derive(Clone, Copy, Debug)]
struct TtlClass {
    group: u8,
    min_ms: u64,
    max_ms: u64,
    weight: f64,
}

impl TtlClass {
    fn new(group: u8, ttl_ms: u64) -> Self {
        Self { group, min_ms: ttl_ms, max_ms: ttl_ms, weight: 1.0 }
    }

    fn with(&self, other: &Self) -> Self {
        Self {
            group: self.group,
            min_ms: self.min_ms.min(other.min_ms),
            max_ms: self.max_ms.max(other.max_ms),
            weight: self.weight + other.weight,
        }
    }

    /// What the class costs: the share of its time on disk that an expired record waits for the last of its segment,
    /// times the records.
    fn waste(&self) -> f64 {
        self.weight * (self.max_ms - self.min_ms) as f64 / self.max_ms as f64
    }

    fn takes(&self, ttl_ms: u64) -> bool {
        let (min_ms, max_ms) = (self.min_ms.min(ttl_ms), self.max_ms.max(ttl_ms));
        (self.min_ms..=self.max_ms).contains(&ttl_ms) || max_ms - min_ms <= min_ms / SAME_DIVISOR
    }
}

/// The group of a record that expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub number: u8,
    /// The group has just been given to other times to live: a segment that is being written for it must be sealed.
    pub renewed: bool,
}

/// The classes of times to live in use.
#[derive(Debug, Default)]
pub struct ExpiryGroups {
    /// In the order of their times to live; ranges do not overlap.
    classes: Vec<TtlClass>,
    records: u32,
}

impl ExpiryGroups {
    /// The group of a record with this time to live (not 0), in milliseconds.
    pub fn group_of(&mut self, ttl_ms: u64) -> Group {
        self.records += 1;
        if self.records == HALF_LIFE_RECORDS {
            self.records = 0;
            self.classes.iter_mut().for_each(|class| class.weight /= 2.0);
        }
        // Ranges before tolerance: a time to live inside a class is never taken for its neighbour's.
        let inside = |class: &&mut TtlClass| (class.min_ms..=class.max_ms).contains(&ttl_ms);
        if let Some(class) = self.classes.iter_mut().find(inside) {
            class.weight += 1.0;
            return Group { number: class.group, renewed: false };
        }
        if let Some(class) = self.classes.iter_mut().find(|class| class.takes(ttl_ms)) {
            class.weight += 1.0;
            class.min_ms = class.min_ms.min(ttl_ms);
            class.max_ms = class.max_ms.max(ttl_ms);
            return Group { number: class.group, renewed: false };
        }
        self.learn(ttl_ms)
    }

    /// Makes a class for a time to live that no class takes.
    fn learn(&mut self, ttl_ms: u64) -> Group {
        if self.classes.len() == CLASSES {
            self.classes.retain(|class| class.weight >= FORGOTTEN_WEIGHT);
        }
        // Sorted in with a number of its own, one more than there are groups, then the cheapest merger of neighbours
        // makes room: perhaps its own.
        let provisional = EXPIRING + CLASSES as u8;
        let place = self.classes.partition_point(|class| class.max_ms < ttl_ms);
        self.classes.insert(place, TtlClass::new(provisional, ttl_ms));
        if self.classes.len() > CLASSES {
            self.merge_cheapest();
        }
        let taken: Vec<u8> = self.classes.iter().map(|class| class.group).collect();
        let class = self
            .classes
            .iter_mut()
            .find(|class| (class.min_ms..=class.max_ms).contains(&ttl_ms))
            .expect("the class just made, or the one it was merged into");
        if class.group != provisional {
            return Group { number: class.group, renewed: false };
        }
        let free = (EXPIRING..provisional).find(|group| !taken.contains(group));
        class.group = free.expect("there are no more classes than groups");
        Group { number: class.group, renewed: true }
    }

    fn merge_cheapest(&mut self) {
        let price = |pair: &[TtlClass]| pair[0].with(&pair[1]).waste() - pair[0].waste() - pair[1].waste();
        let pairs = self.classes.windows(2).enumerate();
        let cheapest = pairs.min_by(|a, b| price(a.1).total_cmp(&price(b.1))).map(|(at, _)| at);
        let Some(at) = cheapest else { return };
        let above = self.classes.remove(at + 1);
        let below = self.classes[at];
        let mut merged = below.with(&above);
        // A class that has a group lends it to one that has none.
        merged.group = below.group.min(above.group);
        self.classes[at] = merged;
    }

    /// Milliseconds after which a segment of a record with this time to live is sealed.
    pub fn seal_age_ms(ttl_ms: u64) -> u64 {
        (ttl_ms / SEAL_AGE_DIVISOR).max(SEAL_AGE_MIN_MS)
    }
}
