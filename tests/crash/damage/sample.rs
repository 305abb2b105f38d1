//! Small stores of every kind of file, to be damaged: what they hold, and everything their keys ever held.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use larder::{
    Codec, ColdTier, ColdTierConfig, CompactionTask, Compression, Durability, Maintenance, ManualClock,
    OsDisk, Ttl,
};

use crate::contents::Present;
use crate::history::{History, Window};
use crate::memory::{DIR, Files, Memory, MemoryDisk};
use crate::saved::files_in;
use crate::values::{key, value};

const START_MS: u64 = 1_760_000_000_000;
const KEYS: u64 = 16;
/// As many as a tuning asks for.
const KEYS_TUNED: u64 = 120;

/// What a sample has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Written and killed: an open tail, no snapshot.
    Killed,
    /// Compacted, its index saved, written again, killed.
    Compacted,
    /// Its compression tuned, compacted, closed in order: an explanation, everything sealed.
    Tuned,
    /// The store kept of the format in force, with a dictionary.
    Kept,
}

/// A store on disk, and what it may answer.
pub struct Sample {
    pub life: Life,
    pub files: Files,
    pub history: History,
    pub window: Window,
    /// When the damaged store is opened: some entries have expired by then.
    pub now_ms: u64,
}

pub type Store = ColdTier<MemoryDisk, ManualClock>;

fn config(life: Life, dir: &Path) -> ColdTierConfig {
    let compression = match life {
        Life::Tuned | Life::Kept => Compression::Tuned,
        Life::Killed => Compression::Fixed(Codec::Lz4),
        Life::Compacted => Compression::Fixed(Codec::Zstd(1)),
    };
    ColdTierConfig::new(dir)
        .segment_bytes(64 << 10)
        .durability(Durability::Never)
        .compression(compression)
        .maintenance(Maintenance::Manual)
}

struct Writing<'a> {
    cold: &'a Store,
    history: History,
    op: u64,
    lens: Range<usize>,
    rng: Rng,
}

impl Writing<'_> {
    fn insert(&mut self, number: u64, ttl_ms: Option<u64>) {
        self.op += 1;
        let value = value(self.op, self.rng.usize(self.lens.clone()), true);
        let key = key(number);
        match ttl_ms {
            Some(ttl_ms) => self.cold.insert_with_ttl(&key, &value, Duration::from_millis(ttl_ms)),
            None => self.cold.insert(&key, &value),
        }
        .expect("insert into a sample");
        let expires_at_ms = ttl_ms.map(|ttl_ms| START_MS + ttl_ms);
        self.history.note(self.op, &key, Some(Present { value, expires_at_ms }));
    }

    fn remove(&mut self, number: u64) {
        self.op += 1;
        self.cold.remove(&key(number)).expect("remove from a sample");
        self.history.note(self.op, &key(number), None);
    }

    /// Values of each kind: lasting, expiring, to expire before the damage; overwritten and deleted ones.
    fn write_some(&mut self, keys: u64) {
        for number in 0..keys {
            self.insert(number, [None, None, Some(3_600_000), Some(5_000)][number as usize % 4]);
        }
        for number in (0..keys).step_by(5) {
            self.insert(number, None);
        }
        for number in (3..keys).step_by(6) {
            self.remove(number);
        }
        self.cold.flush().expect("flush a sample");
    }
}

impl Sample {
    pub fn of(life: Life) -> Self {
        let memory = Memory::holding(None);
        let clock = ManualClock::new(START_MS);
        let cold =
            ColdTier::open_with(config(life, Path::new(DIR)), memory.disk(), clock).expect("create a sample");
        let rng = Rng::with_seed(life as u64);
        let (keys, lens) = if life == Life::Tuned { (KEYS_TUNED, 60..200) } else { (KEYS, 8..60) };
        let mut writing = Writing { cold: &cold, history: History::default(), op: 0, lens, rng };
        writing.write_some(keys);
        let tasks: &[CompactionTask] = match life {
            Life::Killed | Life::Kept => &[],
            Life::Compacted => &[CompactionTask::CompactData, CompactionTask::RebuildIndex],
            Life::Tuned => &[CompactionTask::OptimizeCompression, CompactionTask::CompactData],
        };
        for task in tasks {
            cold.run(*task).expect("maintain a sample");
        }
        if life == Life::Compacted {
            writing.insert(1, None);
            writing.insert(KEYS, None);
            writing.remove(2);
            cold.flush().expect("flush a sample");
        }
        let (history, op) = (writing.history, writing.op);
        let now_ms = START_MS + 10_000;
        match life {
            Life::Tuned => cold.close().expect("close a sample"),
            _ => cold.abandon(),
        }
        let window = Window { floor: op, ceiling: op, now_min_ms: now_ms, now_max_ms: now_ms };
        Self { life, files: memory.files(), history, window, now_ms }
    }

    /// The store under `tests/fixtures`: what it holds is what it says undamaged.
    pub fn kept() -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v4");
        let files = files_in(&dir);
        let memory = Memory::holding(Some(&files));
        // A clock that is behind the saved one: the store goes on from that.
        let cold =
            ColdTier::open_with(config(Life::Kept, Path::new(DIR)), memory.disk(), ManualClock::new(1))
                .expect("open the kept store");
        let (mut history, mut now_ms) = (History::default(), START_MS);
        for entry in cold.iter() {
            let entry = entry.expect("read the kept store");
            if let (Some(at), Ok(Some(Ttl::Remaining(left)))) = (entry.expires_at_ms, cold.ttl(&entry.key)) {
                now_ms = at - left.as_millis() as u64;
            }
            let present = Present { value: entry.value.to_vec(), expires_at_ms: entry.expires_at_ms };
            history.note(1, &entry.key, Some(present));
        }
        assert!(history.keys.len() > 35, "the kept store holds something");
        cold.abandon();
        let window = Window { floor: 1, ceiling: 1, now_min_ms: now_ms, now_max_ms: now_ms };
        Self { life: Life::Kept, files, history, window, now_ms }
    }

    pub fn open(&self, memory: &Memory) -> larder::Result<Store> {
        let config = config(self.life, Path::new(DIR));
        ColdTier::open_with(config, memory.disk(), ManualClock::new(self.now_ms))
    }

    pub fn open_on(&self, dir: &Path) -> larder::Result<ColdTier<OsDisk, ManualClock>> {
        ColdTier::open_with(config(self.life, dir), OsDisk, ManualClock::new(self.now_ms))
    }
}
