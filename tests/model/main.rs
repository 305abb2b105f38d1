//! The store against a `BTreeMap`: seeded random operations with reopening, every task and a clock that is turned
//! forwards and backwards; after each step both hold exactly the same, read in every way there is.
//!
//! `LARDER_MODEL_RUNS=n` tries n runs (default 200); `LARDER_MODEL_SEED=s` begins with that seed and, without a number
//! of runs, tries that one alone. A failing run is made shorter before it is printed.

#[path = "../support/contents.rs"]
mod contents;
#[path = "../support/fault.rs"]
mod fault;
#[path = "../support/scratch.rs"]
mod scratch;
#[path = "../support/values.rs"]
mod values;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::unbounded;
use fastrand::Rng;
use larder::{
    Codec, ColdTier, ColdTierConfig, CompactionTask, Compression, Durability, Maintenance, ManualClock,
    OsDisk,
};

use contents::{Contents, Present, expect_contents, look_up, read_all};
use fault::{Fault, FaultKind, unwinding};
use scratch::scratch_dir;
use values::{key, value};

const START_MS: u64 = 1_760_000_000_000;
const DAY_MS: u64 = 86_400_000;
const STEPS: u64 = 60;
const RUNS: u64 = 200;
/// Attempts to make a failing run shorter.
const SHRINKS: u32 = 300;

/// One step of a run. Each stands for itself, so that the others can be left out.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The value that `value(op, ..)` makes; a life of `ttl_ms`, or the default of the configuration.
    Insert {
        op: u64,
        key: u64,
        len: usize,
        compressible: bool,
        ttl_ms: Option<u64>,
    },
    Remove {
        key: u64,
    },
    Advance {
        ms: u64,
    },
    /// The wall clock is set back while the store is open.
    SetWallBack {
        ms: u64,
    },
    Flush,
    Run(CompactionTask),
    Reopen(Wall),
    /// The process dies after a flush.
    FlushAndDie(Wall),
}

/// What the wall clock shows when the store is opened again.
#[derive(Clone, Copy, Debug)]
enum Wall {
    AsItWas,
    Back {
        ms: u64,
    },
    Forward {
        ms: u64,
    },
    /// Further than the store believes.
    TooFar {
        days: u64,
    },
}

/// How a run of that seed sets up its store.
#[derive(Clone, Copy, Debug)]
struct Setup {
    durability: Durability,
    compression: Compression,
    default_ttl_ms: Option<u64>,
    keys: u64,
}

impl Setup {
    fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let durability = match rng.u32(..4) {
            0 => Durability::Never,
            1 => Durability::Interval(Duration::from_millis(1)),
            2 => Durability::Interval(Duration::from_secs(1)),
            _ => Durability::Always,
        };
        let compression = match rng.u32(..8) {
            0 => Compression::Fixed(Codec::None),
            1 => Compression::Fixed(Codec::Lz4),
            2 => Compression::Fixed(Codec::Zstd(3)),
            _ => Compression::Tuned,
        };
        let default_ttl_ms = (rng.u32(..4) == 0).then(|| rng.u64(1..5000));
        // Tuning wants a hundred entries: every eighth run has them from the start.
        let keys = if seed.is_multiple_of(8) { 150 } else { 30 };
        Self { durability, compression, default_ttl_ms, keys }
    }

    fn config(&self, dir: &Path) -> ColdTierConfig {
        let config = ColdTierConfig::new(dir)
            .segment_bytes(64 << 10)
            .durability(self.durability)
            .compression(self.compression)
            .maintenance(Maintenance::Manual);
        match self.default_ttl_ms {
            Some(ttl_ms) => config.default_ttl(Duration::from_millis(ttl_ms)),
            None => config,
        }
    }
}

fn steps(seed: u64) -> Vec<Step> {
    let setup = Setup::of(seed);
    let mut rng = Rng::with_seed(seed ^ 0x5eed);
    let preload = if setup.keys > 100 { setup.keys } else { 0 };
    let mut steps: Vec<Step> = (0..preload).map(|key| insert(key + 1, key, &mut rng)).collect();
    for op in preload + 1..=preload + STEPS {
        let key = rng.u64(..setup.keys);
        steps.push(match rng.u32(..100) {
            0..45 => insert(op, key, &mut rng),
            45..57 => Step::Remove { key },
            57..67 => Step::Advance { ms: rng.u64(1..=2000) },
            67..69 => Step::SetWallBack { ms: rng.u64(1..=2 * DAY_MS) },
            69..73 => Step::Flush,
            73..79 => Step::Run(CompactionTask::CompactData),
            79..84 => Step::Run(CompactionTask::CleanupExpired),
            84..88 => Step::Run(CompactionTask::RebuildIndex),
            88..90 => Step::Run(CompactionTask::OptimizeCompression),
            90..96 => Step::Reopen(wall(&mut rng)),
            _ => Step::FlushAndDie(wall(&mut rng)),
        });
    }
    steps
}

fn insert(op: u64, key: u64, rng: &mut Rng) -> Step {
    let len = match rng.u32(..100) {
        0..6 => 0,
        6..20 => rng.usize(1..=20),
        20..70 => rng.usize(21..=1500),
        70..94 => rng.usize(1501..=9000),
        // As large as a segment, and larger.
        _ => rng.usize(9001..=150_000),
    };
    // Classes that are met again and again, and times that are met once.
    let ttl_ms = match rng.u32(..12) {
        0 => Some(rng.u64(1..=20)),
        1 => Some(rng.u64(21..=6000)),
        2 => Some(rng.u64(1..=400 * DAY_MS)),
        3 | 4 => Some(1500),
        5 => Some(6000),
        6 => Some(20_000),
        _ => None,
    };
    Step::Insert { op, key, len, compressible: rng.bool(), ttl_ms }
}

fn wall(rng: &mut Rng) -> Wall {
    match rng.u32(..8) {
        0..4 => Wall::AsItWas,
        4 | 5 => Wall::Back { ms: rng.u64(1..=3 * DAY_MS) },
        6 => Wall::Forward { ms: rng.u64(1..=5000) },
        _ => Wall::TooFar { days: rng.u64(400..4000) },
    }
}

/// The store and the map, side by side.
struct Run<'a> {
    cold: ColdTier<OsDisk, ManualClock>,
    setup: Setup,
    dir: &'a Path,
    /// Everything inserted and not removed, expired or not.
    map: Contents,
    /// Every key of the run; a few are never inserted.
    keys: BTreeSet<Vec<u8>>,
    /// The store's time as it must be, and what the wall clock shows.
    now_ms: u64,
    wall_ms: u64,
    steps: u64,
}

impl<'a> Run<'a> {
    fn new(setup: Setup, dir: &'a Path) -> Result<Self, Fault> {
        let cold = open(setup, dir, START_MS)?;
        let keys = (0..setup.keys + 3).map(key).collect();
        Ok(Self {
            cold,
            setup,
            dir,
            map: Contents::new(),
            keys,
            now_ms: START_MS,
            wall_ms: START_MS,
            steps: 0,
        })
    }

    fn step(mut self, step: Step) -> Result<Self, Fault> {
        match step {
            Step::Insert { op, key: number, len, compressible, ttl_ms } => {
                let (key, value) = (key(number), value(op, len, compressible));
                match ttl_ms {
                    Some(ttl_ms) => self.cold.insert_with_ttl(&key, &value, Duration::from_millis(ttl_ms)),
                    None => self.cold.insert(&key, &value),
                }
                .map_err(|error| Fault::failed("insert", error))?;
                let ttl_ms = ttl_ms.or(self.setup.default_ttl_ms);
                let expires_at_ms = ttl_ms.map(|ttl_ms| self.now_ms + ttl_ms);
                self.map.insert(key, Present { value, expires_at_ms });
            }
            Step::Remove { key: number } => {
                let key = key(number);
                self.cold.remove(&key).map_err(|error| Fault::failed("remove", error))?;
                // An expired entry is gone for every reader already; `len` may count it until it is cleaned up.
                if self.map.get(&key).is_some_and(|present| !present.is_expired(self.now_ms)) {
                    self.map.remove(&key);
                }
            }
            Step::Advance { ms } => {
                self.cold.clock().advance(ms);
                self.now_ms += ms;
                self.wall_ms += ms;
            }
            Step::SetWallBack { ms } => {
                self.wall_ms -= ms;
                self.cold.clock().set_wall(self.wall_ms);
            }
            Step::Flush => self.cold.flush().map_err(|error| Fault::failed("flush", error))?,
            Step::Run(task) => {
                self.cold.run(task).map_err(|error| Fault::failed(&format!("{task:?}"), error))?;
                let (len, live) = (self.cold.len(), self.live().len() as u64);
                if task == CompactionTask::CleanupExpired && len != live {
                    let text = format!("len {len} with {live} entries after a cleanup");
                    return Err(Fault { kind: FaultKind::Wrong, text });
                }
            }
            Step::Reopen(wall) => {
                self.cold.close().map_err(|error| Fault::failed("close", error))?;
                (self.cold, self.wall_ms) = reopen(self.setup, self.dir, self.now_ms, self.wall_ms, wall)?;
                self.now_ms = self.now_ms.max(self.wall_ms);
            }
            Step::FlushAndDie(wall) => {
                self.cold.flush().map_err(|error| Fault::failed("flush", error))?;
                self.cold.abandon();
                (self.cold, self.wall_ms) = reopen(self.setup, self.dir, self.now_ms, self.wall_ms, wall)?;
                self.now_ms = self.now_ms.max(self.wall_ms);
            }
        }
        self.steps += 1;
        // Listing is what costs: single writes are listed now and then, all that moves or drops records always.
        let is_single = matches!(step, Step::Insert { .. } | Step::Remove { .. } | Step::Flush);
        self.compare(!is_single || self.steps.is_multiple_of(5))?;
        Ok(self)
    }

    fn live(&self) -> Contents {
        let live = self.map.iter().filter(|(_, present)| !present.is_expired(self.now_ms));
        live.map(|(key, present)| (key.clone(), present.clone())).collect()
    }

    fn compare(&self, by_listing: bool) -> Result<(), Fault> {
        let live = self.live();
        look_up(&self.cold, self.keys.iter(), &live, Some(self.now_ms))?;
        if by_listing {
            let read = read_all(&self.cold, self.keys.iter(), Some(self.now_ms))?;
            expect_contents(&live, &read)?;
        }
        let (len, known) = (self.cold.len(), self.map.len() as u64);
        if len > known {
            let text = format!("len {len} with {known} entries, the expired ones counted");
            return Err(Fault { kind: FaultKind::Wrong, text });
        }
        let stats = self.cold.stats();
        if stats.damaged_misses + stats.collision_misses + stats.writes_lost + stats.recovery.given_up > 0 {
            return Err(Fault {
                kind: FaultKind::Lost,
                text: format!("nothing was damaged, yet: {stats:?}"),
            });
        }
        Ok(())
    }
}

fn open(setup: Setup, dir: &Path, wall_ms: u64) -> Result<ColdTier<OsDisk, ManualClock>, Fault> {
    ColdTier::open_with(setup.config(dir), OsDisk, ManualClock::new(wall_ms))
        .map_err(|error| Fault::failed("open", error))
}

/// Opens the store again; also returns what the wall clock shows then.
fn reopen(
    setup: Setup,
    dir: &Path,
    now_ms: u64,
    wall_ms: u64,
    wall: Wall,
) -> Result<(ColdTier<OsDisk, ManualClock>, u64), Fault> {
    let wall_ms = match wall {
        Wall::AsItWas => wall_ms,
        Wall::Back { ms } => now_ms - ms,
        Wall::Forward { ms } => now_ms + ms,
        Wall::TooFar { days } => {
            // The store must not follow; then somebody puts the clock right.
            let cold = open(setup, dir, now_ms + days * DAY_MS)?;
            if cold.stats().clock_jumps_refused == 0 {
                return Err(Fault {
                    kind: FaultKind::Wrong,
                    text: format!("a jump of {days} days was not refused"),
                });
            }
            cold.close().map_err(|error| Fault::failed("close", error))?;
            now_ms
        }
    };
    Ok((open(setup, dir, wall_ms)?, wall_ms))
}

/// Runs the steps on a fresh store; a fault names the step it came with.
fn run(setup: Setup, steps: &[Step]) -> Result<(), (usize, Fault)> {
    let scratch = scratch_dir();
    let dir = scratch.path().join("store");
    let mut at = 0;
    let outcome = unwinding(|| {
        let mut run = Run::new(setup, &dir)?;
        for (number, step) in steps.iter().enumerate() {
            at = number;
            run = run.step(*step).map_err(|fault| fault.when(&format!("step {number}, {step:?}")))?;
        }
        run.cold.close().map_err(|error| Fault::failed("the last close", error))
    });
    outcome.map_err(|fault| (at, fault))
}

/// A shorter run that fails too.
fn shrink(setup: Setup, mut steps: Vec<Step>, (at, mut fault): (usize, Fault)) -> (Vec<Step>, Fault) {
    steps.truncate(at + 1);
    let mut attempts = 0;
    let mut chunk = steps.len().div_ceil(2);
    while chunk > 0 {
        let mut from = 0;
        while from < steps.len() && attempts < SHRINKS {
            let mut fewer = steps.clone();
            fewer.drain(from..(from + chunk).min(steps.len()));
            attempts += 1;
            match run(setup, &fewer) {
                Err((at, found)) => {
                    fewer.truncate(at + 1);
                    (steps, fault) = (fewer, found);
                }
                Ok(()) => from += chunk,
            }
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
    }
    (steps, fault)
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn random_operations_reopening_tasks_and_a_turned_clock_leave_what_a_map_would_hold() {
    let seed = number_from_env("LARDER_MODEL_SEED");
    let runs = number_from_env("LARDER_MODEL_RUNS").unwrap_or(if seed.is_some() { 1 } else { RUNS });
    let first = seed.unwrap_or(0);
    let mut faults = Vec::new();
    std::thread::scope(|scope| {
        let (work, to_do) = unbounded();
        let (fault_to, found) = unbounded();
        (first..first + runs).for_each(|seed| work.send(seed).expect("the receiver is here"));
        drop(work);
        for _ in 0..std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8)) {
            let (to_do, fault_to) = (to_do.clone(), fault_to.clone());
            scope.spawn(move || {
                for seed in to_do {
                    if let Err((at, fault)) = run(Setup::of(seed), &steps(seed)) {
                        let _ = fault_to.send((seed, at, fault));
                    }
                }
            });
        }
        drop(fault_to);
        faults.extend(found);
    });
    let operations = (first..first + runs).map(|seed| steps(seed).len()).sum::<usize>();
    let counts = serde_json::json!({
        "test": "model", "seeds": [first, first + runs], "operations": operations, "failed": faults.len(),
    });
    let _ = writeln!(std::io::stdout(), "{counts}");
    faults.sort_by_key(|(seed, ..)| *seed);
    let seeds: Vec<u64> = faults.iter().map(|(seed, ..)| *seed).collect();
    let Some((seed, at, fault)) = faults.into_iter().next() else { return };
    let setup = Setup::of(seed);
    let original = fault.to_string();
    let (shortest, fault) = shrink(setup, steps(seed), (at, fault));
    panic!(
        "failing seeds: {seeds:?}; the first, at step {at}: {original}\nmade shorter: {fault}\n{setup:?}\n{shortest:#?}\n\
         again: LARDER_MODEL_SEED={seed} cargo test --test model"
    );
}
