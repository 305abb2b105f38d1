//! What a reader may find of a key. No schedule sees it: its locks are std's and are held across no step of a model.

use std::sync::Mutex;

/// One state of a key, by the sequence number of its record.
#[derive(Clone, Copy, Debug)]
struct Version {
    sequence: u64,
    /// From now on a miss is right.
    may_miss: bool,
    /// From now on its value is wrong.
    gone: bool,
}

#[derive(Debug)]
struct History {
    versions: Vec<Version>,
    /// Deletions that have been begun and have no number yet.
    removes_begun: u32,
}

/// The history of each key.
#[derive(Debug)]
pub struct Oracle {
    keys: Vec<Mutex<History>>,
}

/// What a read returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The value with this sequence number.
    Value(u64),
    /// A miss.
    Absent,
    /// A record of another key; callers see a miss.
    Foreign,
    /// Damage was told.
    Damaged,
}

/// What was known when a read began.
#[derive(Debug)]
pub struct Expectation {
    key: usize,
    /// Nothing older may be found.
    floor: u64,
    gone: Vec<u64>,
}

impl Oracle {
    /// No key has a value.
    pub fn new(keys: usize) -> Self {
        let nothing = Version { sequence: 0, may_miss: true, gone: true };
        let history = |_| Mutex::new(History { versions: vec![nothing], removes_begun: 0 });
        Self { keys: (0..keys).map(history).collect() }
    }

    fn with<T>(&self, key: usize, work: impl FnOnce(&mut History) -> T) -> T {
        work(&mut self.keys[key].lock().expect("no model panics with it"))
    }

    /// A caller is about to place a record.
    pub fn begin(&self, key: usize, tombstone: bool) {
        self.with(key, |history| history.removes_begun += u32::from(tombstone));
    }

    /// It has been placed.
    pub fn placed(&self, key: usize, sequence: u64, tombstone: bool) {
        self.with(key, |history| {
            history.removes_begun -= u32::from(tombstone);
            history.versions.push(Version { sequence, may_miss: tombstone, gone: tombstone });
        });
    }

    /// A version is about to be lost, evicted or expired.
    pub fn may_miss(&self, key: usize, sequence: u64) {
        self.each(key, sequence, |version| version.may_miss = true);
    }

    /// It is.
    pub fn gone(&self, key: usize, sequence: u64) {
        self.each(key, sequence, |version| version.gone = true);
    }

    fn each(&self, key: usize, sequence: u64, change: impl Fn(&mut Version)) {
        self.with(key, |history| {
            history.versions.iter_mut().filter(|version| version.sequence == sequence).for_each(change);
        });
    }

    /// A read begins, of a reader that has seen this sequence number.
    pub fn expect(&self, key: usize, seen: u64) -> Expectation {
        self.with(key, |history| Expectation {
            key,
            floor: history.versions.iter().map(|version| version.sequence).fold(seen, u64::max),
            gone: history
                .versions
                .iter()
                .filter(|version| version.gone)
                .map(|version| version.sequence)
                .collect(),
        })
    }

    /// Whether what it found is right.
    pub fn check(&self, expected: &Expectation, found: Found) {
        self.with(expected.key, |history| match found {
            Found::Value(sequence) => {
                assert!(sequence >= expected.floor, "stale: {found:?}, {expected:?}, {history:?}");
                assert!(
                    !expected.gone.contains(&sequence),
                    "resurrected: {found:?}, {expected:?}, {history:?}"
                );
            }
            Found::Absent | Found::Foreign => {
                let mut late = history.versions.iter().filter(|version| version.sequence >= expected.floor);
                let right = history.removes_begun > 0 || late.any(|version| version.may_miss);
                assert!(right, "a miss of what was there: {found:?}, {expected:?}, {history:?}");
            }
            Found::Damaged => panic!("false damage: {expected:?}, {history:?}"),
        });
    }
}
