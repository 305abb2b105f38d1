//! Damage: what happens to a store whose bytes are not those it wrote.
//!
//! However it is damaged, a store opens, never answers with what it did not hold, and loses no more than what was
//! damaged; only a newer version is refused. [`sample`] makes the stores; this file changes single bytes, [`files`]
//! whole files and records.

mod files;
mod sample;

use std::sync::LazyLock;

use larder::CompactionTask;

use crate::contents::{Contents, expect_contents, read_all};
use crate::fault::{Fault, FaultKind};
use crate::memory::{Files, Memory};
use crate::suite::{Count, Suite, Tell};
use sample::{Life, Sample, Store};

/// Jobs that the bytes of all files are dealt to in turn.
const JOBS: u64 = 100;

pub const SUITE: Suite = Suite { name: "damage", jobs: JOBS, counts: &[(Count::DamagedOpens, 2000)], run };

static SAMPLES: LazyLock<[Sample; 4]> = LazyLock::new(|| {
    [Sample::of(Life::Killed), Sample::of(Life::Compacted), Sample::of(Life::Tuned), Sample::kept()]
});

/// What is done to a byte.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip,
    Zero,
    Random,
}

impl Harm {
    fn on(self, byte: u8, random: u8) -> u8 {
        match self {
            Self::Flip => byte ^ (1 << (random % 8)),
            Self::Zero => 0,
            Self::Random => random,
        }
    }
}

fn run(seed: u64, tell: &Tell) {
    let mut number = 0;
    for sample in &*SAMPLES {
        for (name, bytes) in &sample.files {
            for at in (0..bytes.len()).filter(|at| !is_left_out(sample, name, *at)) {
                number += 1;
                if number % JOBS == seed % JOBS {
                    harm_byte(sample, name, at, tell);
                }
            }
        }
    }
    files::run(&*SAMPLES, seed, tell);
}

/// What is left out. The reserve's content means nothing. Most of a manifest is zeros between its edits, which are all
/// alike: one byte in 16 of them is harmed. The small samples have every kind of file but a dictionary and an
/// explanation; of the large ones' files that are no segments, one byte in 8 is harmed.
fn is_left_out(sample: &Sample, name: &str, at: usize) -> bool {
    let bytes = &sample.files[name];
    let around = &bytes[at.saturating_sub(8)..(at + 9).min(bytes.len())];
    let is_large = matches!(sample.life, Life::Tuned | Life::Kept);
    name == "RESERVE"
        || (name.starts_with("MANIFEST") && !at.is_multiple_of(16) && around.iter().all(|byte| *byte == 0))
        || (is_large && !name.starts_with("seg-") && !at.is_multiple_of(8))
}

/// Harms one byte in each way that changes it.
fn harm_byte(sample: &Sample, name: &str, at: usize, tell: &Tell) {
    let byte = sample.files[name][at];
    let mut done = vec![byte];
    for harm in [Harm::Flip, Harm::Zero, Harm::Random] {
        let harmed = harm.on(byte, fastrand::u8(..));
        if done.contains(&harmed) {
            continue;
        }
        done.push(harmed);
        let mut files = sample.files.clone();
        files.get_mut(name).expect("it is one of the sample's")[at] = harmed;
        let origin = format!("{:?}, {name} at {at}: {byte:#04x} is now {harmed:#04x}", sample.life);
        tell.check(Count::DamagedOpens, &origin, || {
            let store = expect_sane(sample, &files, Loss::of_byte(name))?;
            if at.is_multiple_of(16) { store.go_on() } else { store.end() }
        });
    }
}

/// How much a damaged store may have lost.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    Nothing,
    /// Nothing besides those that recovery says it gave up.
    GivenUp,
    /// So many entries, besides those that recovery says it gave up.
    Entries(usize),
    Any,
}

impl Loss {
    /// What lies in one byte: of a segment an entry; everything else can be put together again.
    fn of_byte(name: &str) -> Self {
        if name.starts_with("seg-") { Self::Entries(1) } else { Self::Nothing }
    }
}

/// Opens a damaged store; nothing in it is wrong, and no more is lost than may be.
pub fn expect_sane<'a>(sample: &'a Sample, files: &Files, loss: Loss) -> Result<DamagedStore<'a>, Fault> {
    let memory = Memory::holding(Some(files));
    let cold = sample.open(&memory).map_err(|error| Fault::failed("open", error))?;
    let keys = sample.history.keys.keys();
    let contents = read_all(&cold, keys, Some(sample.now_ms))?;
    let lost = lost(sample, &contents)?;
    let recovery = cold.stats().recovery;
    let given_up = recovery.given_up as usize;
    let allowed = match loss {
        Loss::Nothing => 0,
        Loss::GivenUp => given_up,
        Loss::Entries(entries) => entries + given_up,
        Loss::Any => usize::MAX,
    };
    if lost.len() > allowed {
        let text = format!("{} entries are lost ({lost:?}), {recovery:?}", lost.len());
        return Err(Fault { kind: FaultKind::Lost, text });
    }
    Ok(DamagedStore { sample, memory, cold, contents })
}

/// The keys that read as a miss and should not; anything else that is not as it was is a fault.
fn lost(sample: &Sample, contents: &Contents) -> Result<Vec<String>, Fault> {
    let mut lost = Vec::new();
    let mut rest = contents.clone();
    for (key, versions) in &sample.history.keys {
        let last = versions.last().and_then(|version| version.state.clone());
        let last = last.filter(|present| !present.is_expired(sample.now_ms));
        if let (Some(present), false) = (last, contents.contains_key(key)) {
            lost.push(String::from_utf8_lossy(key).into_owned());
            rest.insert(key.clone(), present);
        }
    }
    sample.history.judge(sample.window, &rest)?;
    Ok(lost)
}

/// A store that was opened in spite of its damage.
pub struct DamagedStore<'a> {
    sample: &'a Sample,
    memory: Memory,
    cold: Store,
    contents: Contents,
}

impl DamagedStore<'_> {
    pub fn end(self) -> Result<(), Fault> {
        self.cold.abandon();
        Ok(())
    }

    /// Maintains it and opens it again: what it holds stays what it was.
    pub fn go_on(self) -> Result<(), Fault> {
        let Self { sample, memory, cold, contents } = self;
        let check = |cold: &Store, when: &str| {
            read_all(cold, sample.history.keys.keys(), Some(sample.now_ms))
                .and_then(|read| expect_contents(&contents, &read))
                .map_err(|fault| fault.when(when))
        };
        let tasks =
            [CompactionTask::CompactData, CompactionTask::CleanupExpired, CompactionTask::RebuildIndex];
        for task in tasks {
            let when = format!("after {task:?} of a damaged store");
            cold.run(task).map_err(|error| Fault::failed(&when, error))?;
            check(&cold, &when)?;
        }
        cold.close().map_err(|error| Fault::failed("close a damaged store", error))?;
        let cold =
            sample.open(&memory).map_err(|error| Fault::failed("open a damaged store again", error))?;
        check(&cold, "after a second opening of a damaged store")?;
        cold.abandon();
        Ok(())
    }
}
