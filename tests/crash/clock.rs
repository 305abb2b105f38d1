//! A clock that is turned: back, forward by ten years, while the store is open, between restarts and after kills. The
//! store's time never goes back, and what has expired by it is never served again.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use larder::{ColdTier, ColdTierConfig, Durability, Maintenance, ManualClock, Ttl};

use crate::fault::{Fault, FaultKind, unwinding};
use crate::memory::{DIR, Memory, MemoryDisk};
use crate::suite::{Count, Suite, Tell};
use crate::values::{key, value};

const START_MS: u64 = 1_760_000_000_000;
const YEAR_MS: u64 = 365 * 86_400_000;
/// Turns of the clock in one run.
const TURNS: u64 = 100;
const KEYS: u64 = 20;
/// Lives longer than any turn: its remaining time tells the store's clock.
const WITNESS: &[u8] = b"witness";
const WITNESS_LIFE: Duration = Duration::from_secs(95 * 365 * 86_400);

pub const SUITE: Suite = Suite { name: "clock", jobs: 100, counts: &[(Count::ClockTurns, TURNS)], run };

type Store = ColdTier<MemoryDisk, ManualClock>;

fn run(seed: u64, tell: &Tell) {
    let origin = format!("seed {seed}");
    tell.began(&origin);
    if let Err(fault) = unwinding(|| turn(seed, tell)) {
        tell.broken(&origin, fault, None);
    }
}

struct Turned<'a> {
    memory: &'a Memory,
    jump_max: Duration,
    cold: Store,
    wall_ms: u64,
    witness_at_ms: u64,
    /// What each key was last given, and when that expires.
    given: BTreeMap<u64, (u64, Option<u64>)>,
    /// The store's time was this at least.
    seen_ms: u64,
    /// The same, as of the last flush: what a kill cannot take back.
    saved_ms: u64,
}

fn open(memory: &Memory, jump_max: Duration, wall_ms: u64) -> Result<Store, Fault> {
    let config = ColdTierConfig::new(DIR)
        .segment_bytes(64 << 10)
        .durability(Durability::Never)
        .maintenance(Maintenance::Manual)
        .clock_jump_max(jump_max);
    ColdTier::open_with(config, memory.disk(), ManualClock::new(wall_ms))
        .map_err(|error| Fault::failed("open", error))
}

fn turn(seed: u64, tell: &Tell) -> Result<(), Fault> {
    let mut rng = Rng::with_seed(seed);
    let memory = Memory::holding(None);
    // A bound that ten years pass, or not.
    let jump_max = Duration::from_secs(if seed.is_multiple_of(2) { 20 } else { 1 } * 366 * 86_400);
    let cold = open(&memory, jump_max, START_MS)?;
    cold.insert_with_ttl(WITNESS, b"", WITNESS_LIFE).map_err(|error| Fault::failed("insert", error))?;
    let witness_at_ms = START_MS + WITNESS_LIFE.as_millis() as u64;
    let mut turned = Turned {
        memory: &memory,
        jump_max,
        cold,
        wall_ms: START_MS,
        witness_at_ms,
        given: BTreeMap::new(),
        seen_ms: START_MS,
        saved_ms: START_MS,
    };
    turned.flush()?;
    for op in 1..=TURNS {
        for _ in 0..4 {
            turned.insert(op, &mut rng)?;
        }
        turned = turned.turn_once(&mut rng)?;
        turned.check()?;
        tell.checked(Count::ClockTurns, 1);
    }
    Ok(())
}

impl<'a> Turned<'a> {
    fn now_ms(&self) -> Result<u64, Fault> {
        match self.cold.ttl(WITNESS) {
            Ok(Some(Ttl::Remaining(left))) => Ok(self.witness_at_ms - left.as_millis() as u64),
            other => Err(Fault::new(FaultKind::Lost, WITNESS, format!("{other:?}"))),
        }
    }

    fn insert(&mut self, op: u64, rng: &mut Rng) -> Result<(), Fault> {
        let (number, now_ms) = (rng.u64(..KEYS), self.now_ms()?);
        let ttl_ms = (rng.u32(..5) > 0).then(|| match rng.u32(..3) {
            0 => rng.u64(1..5000),
            1 => rng.u64(1..YEAR_MS),
            _ => rng.u64(1..12 * YEAR_MS),
        });
        let (key, value) = (key(number), value(op, 40, true));
        match ttl_ms {
            Some(ttl_ms) => self.cold.insert_with_ttl(&key, &value, Duration::from_millis(ttl_ms)),
            None => self.cold.insert(&key, &value),
        }
        .map_err(|error| Fault::failed("insert", error))?;
        self.given.insert(number, (op, ttl_ms.map(|ttl_ms| now_ms + ttl_ms)));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.cold.flush().map_err(|error| Fault::failed("flush", error))?;
        self.saved_ms = self.now_ms()?;
        Ok(())
    }

    fn turn_once(mut self, rng: &mut Rng) -> Result<Self, Fault> {
        let by_ms = match rng.u32(..4) {
            0 => rng.u64(..10_000),
            1 => rng.u64(..YEAR_MS / 100),
            2 => rng.u64(..YEAR_MS / 4),
            _ => 10 * YEAR_MS,
        };
        // Ten years forward, time and again, would outlive the witness.
        let is_forward = rng.bool() && self.wall_ms + by_ms < START_MS + 60 * YEAR_MS;
        self.wall_ms =
            if is_forward { self.wall_ms + by_ms } else { self.wall_ms.saturating_sub(by_ms).max(1) };
        match rng.u32(..4) {
            // Under a store that is open.
            0 => self.cold.clock().set_wall(self.wall_ms),
            1 => {
                self.cold.clock().set_wall(self.wall_ms);
                self.cold.clock().advance(rng.u64(..5000));
            }
            // Across a restart.
            2 => {
                let Self { memory, jump_max, wall_ms, cold, .. } = self;
                cold.close().map_err(|error| Fault::failed("close", error))?;
                self = Self { cold: open(memory, jump_max, wall_ms)?, ..self };
            }
            // Across a kill: what was flushed stays, and the time of the flush.
            _ => {
                self.flush()?;
                self.seen_ms = self.saved_ms;
                let Self { memory, jump_max, wall_ms, cold, .. } = self;
                cold.abandon();
                self = Self { cold: open(memory, jump_max, wall_ms)?, ..self };
            }
        }
        Ok(self)
    }

    /// The time has not gone back, and every entry is there exactly until it expires.
    fn check(&mut self) -> Result<(), Fault> {
        let now_ms = self.now_ms()?;
        if now_ms < self.seen_ms {
            let text = format!("the store's time is {now_ms}, and was {}", self.seen_ms);
            return Err(Fault { kind: FaultKind::ExpiredServed, text });
        }
        self.seen_ms = now_ms;
        for (number, (op, expires_at_ms)) in &self.given {
            let key = key(*number);
            let read = self.cold.get(&key).map_err(|error| Fault::failed("get", error))?;
            let is_expired = expires_at_ms.is_some_and(|at| at <= now_ms);
            let kind = match read {
                Some(_) if is_expired => FaultKind::ExpiredServed,
                None if !is_expired => FaultKind::Lost,
                Some(read) if read != value(*op, 40, true) => FaultKind::Wrong,
                _ => continue,
            };
            return Err(Fault::new(
                kind,
                &key,
                format!("expires at {expires_at_ms:?}, the time is {now_ms}"),
            ));
        }
        Ok(())
    }
}
