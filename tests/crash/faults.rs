//! Calls that fail: a full disk at each write, each sync once, each call with each error, reads and writes that do a
//! part. What was acknowledged stays, what was lost is told, and the store goes on once it can.

use fastrand::Rng;
use larder::CompactionTask;

use crate::fault::{Fault, FaultKind};
use crate::life::{Life, Setup};
use crate::memory::{EACCES, EIO, EMFILE, ENOSPC, EROFS, Memory, Op, Trouble};
use crate::suite::{Count, Suite, Tell};

/// Points of each sort that a job tries.
const FULL: u64 = 10;
const SYNCS: u64 = 5;
const CALLS: u64 = 20;
/// Operations while the disk fails, and before or after.
const STEPS: u64 = 60;
/// How often a flush may fail after the disk has room again: it tells of what was lost, and tries again.
const FLUSHES: u32 = 1000;

pub const SUITE: Suite = Suite {
    name: "faults",
    jobs: 100,
    counts: &[(Count::DiskFull, FULL), (Count::FailedSyncs, SYNCS), (Count::FailedCalls, CALLS)],
    run,
};

fn run(seed: u64, tell: &Tell) {
    let mut rng = Rng::with_seed(seed);
    let setup = Setup::of(seed);
    let full =
        Trouble { concerns: takes_room, at: 0, errno: ENOSPC, lasts: true, half: seed.is_multiple_of(2) };
    for point in points(setup, full, FULL, &mut rng) {
        let origin = format!("the disk is full from write {} on, {setup:?}", point.at);
        tell.check(Count::DiskFull, &origin, || fill_up(setup, point));
    }
    let sync = Trouble { concerns: is_sync, at: 0, errno: EIO, lasts: false, half: false };
    let mut done = 0;
    for point in points(setup, sync, 4 * SYNCS, &mut rng) {
        // A run in which fewer syncs come than in the one that counted them does not fail.
        if done < SYNCS && fails_sync(setup, point, tell) {
            done += 1;
        }
    }
    for number in 0..CALLS - 1 {
        let (errno, concerns): (i32, fn(Op, &str) -> bool) = match number % 5 {
            0 => (EIO, is_no_read),
            1 => (EIO, is_read),
            2 => (EMFILE, is_any),
            3 => (EROFS, is_any),
            _ => (EACCES, is_any),
        };
        let any = Trouble { concerns, at: 0, errno, lasts: rng.u32(..3) == 0, half: false };
        for point in points(setup, any, 1, &mut rng) {
            let origin =
                format!("call {} fails with error {errno}, lasting: {}, {setup:?}", point.at, point.lasts);
            tell.check(Count::FailedCalls, &origin, || match refuse(setup, point) {
                // What the medium cannot give back is damage, and gone.
                Err(fault) if fault.kind == FaultKind::Lost && number % 5 == 1 => Ok(()),
                outcome => outcome,
            });
        }
    }
    tell.check(Count::FailedCalls, &format!("a short and slow disk, {setup:?}"), || short_and_slow(setup));
}

fn takes_room(op: Op, _: &str) -> bool {
    matches!(op, Op::Create | Op::Write)
}

fn is_sync(op: Op, _: &str) -> bool {
    matches!(op, Op::Sync | Op::SyncDir)
}

fn is_read(op: Op, _: &str) -> bool {
    op == Op::Read
}

fn is_no_read(op: Op, _: &str) -> bool {
    op != Op::Read
}

fn is_any(_: Op, _: &str) -> bool {
    true
}

/// That many different points at which the trouble may strike, of all those of a run.
fn points(setup: Setup, trouble: Trouble, count: u64, rng: &mut Rng) -> Vec<Trouble> {
    let memory = Memory::holding(None);
    memory.begin(Trouble { at: u64::MAX, ..trouble });
    if let Ok(mut life) = Life::begin(setup, &memory) {
        // What it finds is the other runs' to tell.
        drop(life.go_on(STEPS));
    }
    let calls = memory.end();
    let chosen = rng.choose_multiple(0..calls, count as usize);
    chosen.into_iter().map(|at| Trouble { at, ..trouble }).collect()
}

/// A life on a disk in trouble; `None` if it does not even begin.
fn live<'a>(setup: Setup, trouble: Trouble, memory: &'a Memory) -> Result<Option<Life<'a>>, Fault> {
    memory.begin(trouble);
    let Ok(mut life) = Life::begin(setup, memory) else { return Ok(None) };
    life.go_on(STEPS)?;
    Ok(Some(life))
}

/// A store that could not be created is created once the disk works, on what the attempt has left.
fn begin_after_all(setup: Setup, memory: &Memory) -> Result<(), Fault> {
    memory.end();
    let mut life = Life::begin(setup, memory).map_err(|error| Fault::failed("open after all", error))?;
    life.go_on(STEPS)?;
    life.restart()?.cut_power()
}

fn fill_up(setup: Setup, trouble: Trouble) -> Result<(), Fault> {
    let memory = Memory::holding(None);
    let Some(mut life) = live(setup, trouble, &memory)? else { return begin_after_all(setup, &memory) };
    memory.end();
    flush_after_all(&mut life)?;
    work_after_all(life)
}

/// There is room again: the store goes on by itself.
fn flush_after_all(life: &mut Life<'_>) -> Result<(), Fault> {
    for _ in 0..FLUSHES {
        if life.flush()? {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Err(Fault { kind: FaultKind::Failed, text: format!("{FLUSHES} flushes failed on a disk that works") })
}

fn work_after_all(mut life: Life<'_>) -> Result<(), Fault> {
    life.go_on(STEPS / 2)?;
    for task in [CompactionTask::CompactData, CompactionTask::CleanupExpired, CompactionTask::RebuildIndex] {
        if !life.run(task)? {
            return Err(Fault::failed("a task on a disk that works", format!("{task:?}")));
        }
        life.check()?;
    }
    life.restart()?.cut_power()
}

/// One sync fails; whether one did.
fn fails_sync(setup: Setup, trouble: Trouble, tell: &Tell) -> bool {
    let memory = Memory::holding(None);
    let origin = format!("sync {} fails, {setup:?}", trouble.at);
    tell.began(&origin);
    let outcome = crate::fault::unwinding(|| {
        let Some(life) = live(setup, trouble, &memory)? else { return begin_after_all(setup, &memory) };
        memory.end();
        expect_read_only(life, &memory)
    });
    if let Err(fault) = outcome {
        tell.broken(&origin, fault, None);
    } else if memory.struck().is_none() {
        return false;
    }
    tell.checked(Count::FailedSyncs, 1);
    true
}

/// After a failed sync of what holds records or names, nothing is acknowledged any more, and reads go on. Files that a
/// task was writing are its own: they are thrown away.
fn expect_read_only(mut life: Life<'_>, memory: &Memory) -> Result<(), Fault> {
    let Some(struck) = memory.struck() else { return Ok(()) };
    let is_own = struck.name.ends_with(".tmp");
    let acknowledged = life.flush()?;
    if !is_own && acknowledged {
        let text = format!("a flush was acknowledged after the {:?} of {} failed", struck.op, struck.name);
        return Err(Fault { kind: FaultKind::Failed, text });
    }
    if !is_own {
        let refused = life.store().insert(b"refused", b"").err();
        if !refused.as_ref().is_some_and(larder::Error::is_read_only) {
            return Err(Fault::failed("say that it is read-only", format!("{refused:?}, {struck:?}")));
        }
    }
    life.check()?;
    life.cut_power()
}

/// A call fails: whatever it was, nothing acknowledged is lost, and the store can be opened and used again.
fn refuse(setup: Setup, trouble: Trouble) -> Result<(), Fault> {
    let memory = Memory::holding(None);
    let Some(mut life) = live(setup, trouble, &memory)? else { return begin_after_all(setup, &memory) };
    memory.end();
    let is_read_only = (0..FLUSHES).all(|_| matches!(life.flush(), Ok(false)));
    if is_read_only {
        let refused = life.store().insert(b"refused", b"").err();
        if !refused.as_ref().is_some_and(larder::Error::is_read_only) {
            return Err(Fault::failed("flush on a disk that works", format!("{refused:?}")));
        }
        return life.cut_power();
    }
    work_after_all(life)
}

fn short_and_slow(setup: Setup) -> Result<(), Fault> {
    let memory = Memory::holding(None);
    memory.be_short_and_slow(setup.seed);
    let mut life = Life::begin(setup, &memory).map_err(|error| Fault::failed("open", error))?;
    life.go_on(2 * STEPS)?;
    if !life.flush()? {
        return Err(Fault::failed("flush", "on a short disk"));
    }
    work_after_all(life)
}
