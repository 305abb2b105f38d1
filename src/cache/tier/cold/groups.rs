//! Which log a fresh record goes to: records that are likely to die together lie together.
//!
//! Records that expire are classed by their time to live, up to 16 classes, learned from the traffic: most caches use a
//! handful of times to live (Yang, Yue, Rashmi: "A large scale analysis of hundreds of in-memory cache clusters at
//! Twitter", OSDI 2020, section 4.4). A segment of one class, sealed after a sixteenth of that time, dies as a whole.
//!
//! Owner: the writer. Classes are only advice: a store opened anew learns them again, and a record in the wrong class
//! costs space for a while, nothing else.

/// Records that do not expire, and deletions.
pub const LASTING: u8 = 0;
/// Records that do not expire and are likely to be replaced soon, judged by what they replace themselves.
pub const SHORT_LIVED: u8 = 1;
/// The first of the groups of records that expire.
pub const EXPIRING: u8 = 2;
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

/// The group of a record.
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
