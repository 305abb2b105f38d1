//! What the store must hold, known without asking it: the demo's plan, and the judge over every read.
//!
//! The oracle lives by the process's monotonic clock. An entry with a short life has a window in which it expires,
//! from the earliest to the latest moment its insert can have happened, plus the life, plus a margin for the clocks'
//! steps. A read that falls into the window proves nothing and is counted as undecided, never as right; the demo
//! demands that its final checks leave nothing undecided.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::{ColdTier, Ttl};
use serde::Serialize;

use crate::interrupt;
use crate::records::Record;

/// Life of a third of the entries: real time, and far longer than it takes to insert them.
pub const SHORT: Duration = Duration::from_secs(3);
/// Life of another third: longer than any demo.
pub const LONG: Duration = Duration::from_secs(3600);
/// Steps of the clocks, on both sides of a window.
const MARGIN: Duration = Duration::from_millis(100);
/// Wrong reads described in words.
const PROBLEMS_KEPT: usize = 10;

/// How long an entry is to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// [`SHORT`].
    Short,
    /// [`LONG`].
    Long,
    /// No expiry.
    Endless,
}

impl Life {
    /// The life of the record at `index` when it is first inserted: a third each.
    pub fn first(index: usize) -> Self {
        [Self::Short, Self::Long, Self::Endless][index % 3]
    }

    /// The life an overwrite gives it, always another: endless entries become the ones that expire, so that an
    /// overwritten value would show if it outlived the one that replaced it.
    pub fn second(index: usize) -> Self {
        Self::first(index + 1)
    }

    /// As the store wants it.
    pub fn ttl(self) -> Option<Duration> {
        match self {
            Self::Short => Some(SHORT),
            Self::Long => Some(LONG),
            Self::Endless => None,
        }
    }
}

/// Whether the plan overwrites the record at `index` (3 of 10), all over the segments.
pub fn is_overwritten(index: usize) -> bool {
    matches!(index % 10, 1 | 4 | 7)
}

/// Whether the plan deletes the record at `index` (1 of 10).
pub fn is_deleted(index: usize) -> bool {
    index % 10 == 5
}

/// The value that replaces a record's: the same JSON with one member more.
pub fn overwritten_value(value: &[u8], index: usize) -> Vec<u8> {
    let rest = value.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    let mut new = format!("{{\"revised\":{index}").into_bytes();
    match rest {
        Some(b"}") => new.push(b'}'),
        Some(rest) => {
            new.push(b',');
            new.extend_from_slice(rest);
        }
        None => {
            new.extend_from_slice(b",\"was\":");
            new.extend_from_slice(value);
            new.push(b'}');
        }
    }
    new
}

/// When a group of inserts took place: after the first moment, before the second.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// Before the first insert.
    pub from: Instant,
    /// After the last insert.
    pub to: Instant,
}

#[derive(Debug)]
struct Expected {
    value: Vec<u8>,
    life: Life,
    inserted: Period,
}

/// What a read must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Present,
    Absent,
    /// The read fell into the moments in which the entry expires.
    Either,
}

impl Expected {
    /// What a read between `from` and `to` must find.
    fn verdict(&self, from: Instant, to: Instant) -> Verdict {
        match self.life {
            Life::Long | Life::Endless => Verdict::Present,
            Life::Short if to + MARGIN < self.inserted.from + SHORT => Verdict::Present,
            Life::Short if from > self.inserted.to + SHORT + MARGIN => Verdict::Absent,
            Life::Short => Verdict::Either,
        }
    }

    fn has_ttl(&self, ttl: Option<Ttl>) -> bool {
        match (self.life.ttl(), ttl) {
            (None, Some(Ttl::Never)) => true,
            (Some(life), Some(Ttl::Remaining(left))) => {
                left <= life && left + MARGIN + self.inserted.from.elapsed() >= life
            }
            _ => false,
        }
    }
}

/// What was read and judged.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Checked {
    /// Reads that found what they had to, or rightly nothing.
    pub verified: u64,
    /// Reads that found something else.
    pub wrong: u64,
    /// Reads in the very moments in which an entry expires.
    pub undecided: u64,
    /// The first wrong ones, in words.
    pub problems: Vec<String>,
}

impl Checked {
    /// Adds the figures of another check.
    pub fn add(&mut self, other: &Self) {
        self.verified += other.verified;
        self.wrong += other.wrong;
        self.undecided += other.undecided;
        let room = PROBLEMS_KEPT.saturating_sub(self.problems.len());
        self.problems.extend(other.problems.iter().take(room).cloned());
    }

    fn judge(&mut self, right: bool, key: &[u8], problem: &str) {
        if right {
            self.verified += 1;
            return;
        }
        self.wrong += 1;
        if self.problems.len() < PROBLEMS_KEPT {
            self.problems.push(format!("{}: {problem}", String::from_utf8_lossy(key)));
        }
    }
}

/// The expected content of the store; `None` stands for a deleted key.
#[derive(Debug, Default)]
pub struct Oracle {
    keys: HashMap<Vec<u8>, Option<Expected>>,
}

impl Oracle {
    /// Notes that `record` was inserted during `inserted`.
    pub fn insert(&mut self, record: &Record, life: Life, inserted: Period) {
        let expected = Expected { value: record.value.clone(), life, inserted };
        self.keys.insert(record.key.clone(), Some(expected));
    }

    /// Notes that a key was deleted.
    pub fn remove(&mut self, key: &[u8]) {
        self.keys.insert(key.to_vec(), None);
    }

    /// The moment from which every short life is certainly over.
    pub fn all_short_over(&self) -> Option<Instant> {
        let short = self.keys.values().flatten().filter(|expected| expected.life == Life::Short);
        short.map(|expected| expected.inserted.to + SHORT + 2 * MARGIN).max()
    }

    /// Entries with a short life: those that a cleanup has to remove once it is over.
    pub fn short_entries(&self) -> u64 {
        self.keys.values().flatten().filter(|expected| expected.life == Life::Short).count() as u64
    }

    /// Key and value of every entry that outlives the demo, in no order.
    pub fn lasting(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.iter().filter_map(|(key, expected)| match expected {
            Some(expected) if expected.life != Life::Short => {
                Some((key.as_slice(), expected.value.as_slice()))
            }
            _ => None,
        })
    }

    /// Reads every key ever used, singly and by iterating over the store, and judges what comes.
    ///
    /// # Errors
    /// Those of the store. A signal ends the check early; the caller looks for it.
    pub fn check(&self, store: &ColdTier) -> larder::Result<Checked> {
        let mut checked = Checked::default();
        for (key, expected) in &self.keys {
            if interrupt::requested() {
                return Ok(checked);
            }
            check_key(store, key, expected.as_ref(), &mut checked)?;
        }
        self.check_iteration(store, &mut checked)?;
        Ok(checked)
    }

    fn check_iteration(&self, store: &ColdTier, checked: &mut Checked) -> larder::Result<()> {
        let started = Instant::now();
        let mut seen: HashSet<Bytes> = HashSet::new();
        for entry in store.iter() {
            let entry = entry?;
            let expected = self.keys.get(&entry.key[..]).and_then(Option::as_ref);
            let right = match expected {
                Some(expected) => {
                    expected.value == entry.value
                        && expected.verdict(started, Instant::now()) != Verdict::Absent
                }
                None => false,
            };
            checked.judge(right, &entry.key, "iteration gives what must not be there");
            if !seen.insert(entry.key.clone()) {
                checked.judge(false, &entry.key, "iteration gives it twice");
            }
        }
        let ended = Instant::now();
        for (key, expected) in &self.keys {
            let due = expected.as_ref().is_some_and(|e| e.verdict(started, ended) == Verdict::Present);
            if due && !seen.contains(&key[..]) {
                checked.judge(false, key, "iteration leaves it out");
            }
        }
        Ok(())
    }
}

/// Reads one key and judges the value; of a lasting entry the time to live as well.
fn check_key(
    store: &ColdTier,
    key: &[u8],
    expected: Option<&Expected>,
    checked: &mut Checked,
) -> larder::Result<()> {
    let from = Instant::now();
    let found = store.get(key)?;
    let to = Instant::now();
    let Some(expected) = expected else {
        checked.judge(found.is_none(), key, "deleted, and can still be read");
        return Ok(());
    };
    match (expected.verdict(from, to), &found) {
        (Verdict::Absent, _) => checked.judge(found.is_none(), key, "expired, and can still be read"),
        (Verdict::Either, None) => checked.undecided += 1,
        (Verdict::Either, Some(value)) if *value == expected.value => checked.undecided += 1,
        (Verdict::Present, None) => checked.judge(false, key, "lost"),
        (_, Some(value)) => {
            checked.judge(*value == expected.value, key, "another value than was put in last")
        }
    }
    if expected.life != Life::Short && !expected.has_ttl(store.ttl(key)?) {
        checked.judge(false, key, "another time to live than was given last");
    }
    Ok(())
}
