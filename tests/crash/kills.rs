//! Children killed with SIGKILL at random moments, in every task and in plain writing, on the real file system.
//!
//! Starting a child copies every open file of this process, locks among them; only this suite opens stores on the real
//! file system, and waits for locks (see `open`).
//!
//! The child does what it does by number: which operations, which values, at which time, so that the parent knows
//! them without being told. It tells only how far it is: a line before a round of operations, one when their flush was
//! acknowledged, one around the task. The parent kills it, recovers, judges, and lets the next child go on there.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use fastrand::Rng;
use larder::{ColdTier, ColdTierConfig, CompactionTask, Durability, Maintenance, ManualClock, OsDisk};

use crate::contents::{Present, expect_contents, look_up, read_all};
use crate::fault::{Fault, FaultKind, unwinding};
use crate::history::{History, Window};
use crate::pieces;
use crate::suite::{Count, Suite, Tell};
use crate::values::{key, value};

const START_MS: u64 = 1_760_000_000_000;

/// Where the child's work is described to it.
pub const CHILD: &str = "LARDER_KILL_CHILD";

/// Kills in a row in one directory.
const ROW: u64 = 5;

pub const SUITE: Suite = Suite { name: "kills", jobs: 200, counts: &[(Count::Kills, ROW)], run };

/// Operations between two flushes.
pub const ROUND: u64 = 40;
pub const KEYS: u64 = 160;

/// What a child does after each round of writes.
pub const TASKS: [(&str, Option<CompactionTask>); 5] = [
    ("compact", Some(CompactionTask::CompactData)),
    ("cleanup", Some(CompactionTask::CleanupExpired)),
    ("tune", Some(CompactionTask::OptimizeCompression)),
    ("rebuild", Some(CompactionTask::RebuildIndex)),
    ("write", None),
];

/// Whether it is a run in pieces (`pieces.rs`): one row in four, of every task.
fn is_in_pieces(seed: u64) -> bool {
    (seed / TASKS.len() as u64) % 4 == 1
}

/// Operation `op` of a child: a key, and what it is given.
pub fn operation(seed: u64, op: u64) -> (Vec<u8>, Option<Present>, Option<u64>) {
    let mut rng = Rng::with_seed(seed ^ op.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let key = key(if op <= KEYS { op } else { rng.u64(1..=KEYS) });
    if op > KEYS && rng.u32(..5) == 0 {
        return (key, None, None);
    }
    // Several classes, met by the same keys in turn.
    let ttl_ms = match rng.u32(..12) {
        0 | 1 => Some(rng.u64(1..200)),
        2 => Some(120),
        3 | 4 => Some(1500),
        5 => Some(60_000),
        6 => Some(3_600_000),
        _ => None,
    };
    let len = if is_in_pieces(seed) { pieces::value_len(&mut rng) } else { rng.usize(..3000) };
    let value = value(op, len, rng.u32(..3) > 0);
    (key, Some(Present { value, expires_at_ms: ttl_ms.map(|ttl_ms| now_ms(op) + ttl_ms) }), ttl_ms)
}

/// The time of operation `op`: one millisecond each.
pub fn now_ms(op: u64) -> u64 {
    START_MS + op
}

/// With an interval, syncs go on by themselves between the flushes.
fn config(dir: &Path, seed: u64) -> ColdTierConfig {
    let durability = match seed % 3 {
        0 => Durability::Never,
        1 => Durability::Interval(Duration::from_millis(2)),
        _ => Durability::Always,
    };
    let segment_bytes = if is_in_pieces(seed) { pieces::SEGMENT_BYTES } else { 64 << 10 };
    ColdTierConfig::new(dir)
        .segment_bytes(segment_bytes)
        .durability(durability)
        .maintenance(Maintenance::Manual)
}

/// Opens the store at the time of operation `op`. While another thread of this test starts a child, that child holds a
/// copy of every open file of this process, locks among them, until it has become another program: a store closed here
/// at that moment seems to be in use for that long.
pub fn open(dir: &Path, seed: u64, op: u64) -> Result<ColdTier<OsDisk, ManualClock>, Fault> {
    let began = Instant::now();
    loop {
        match ColdTier::open_with(config(dir, seed), OsDisk, ManualClock::new(now_ms(op))) {
            Err(error) if error.is_locked() && began.elapsed() < Duration::from_secs(10) => {
                std::thread::yield_now()
            }
            opened => return opened.map_err(|error| Fault::failed("recovery", error)),
        }
    }
}

/// The life of a child: ends only by being killed, or when nobody listens any more.
pub fn live(work: &str) {
    let mut words = work.split(' ');
    let mut word = || words.next().expect("seed, first operation, task, directory");
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let (seed, mut op, task) = (number(word()), number(word()), word());
    let dir = Path::new(word());
    let task = TASKS.iter().find(|(name, _)| *name == task).expect("a task").1;

    let mut out = std::io::stdout().lock();
    let mut say =
        |line: String| out.write_all(format!("\nchild {line}\n").as_bytes()).and_then(|()| out.flush());
    let cold = open(dir, seed, op).unwrap_or_else(|fault| panic!("{fault}"));
    loop {
        if say(format!("begins {}", op + ROUND)).is_err() {
            return;
        }
        for _ in 0..ROUND {
            cold.clock().advance(1);
            op += 1;
            let (key, state, ttl_ms) = operation(seed, op);
            match (state, ttl_ms) {
                (None, _) => cold.remove(&key),
                (Some(present), None) => cold.insert(&key, &present.value),
                (Some(present), Some(ttl_ms)) => {
                    cold.insert_with_ttl(&key, &present.value, Duration::from_millis(ttl_ms))
                }
            }
            .expect("write");
        }
        cold.flush().expect("flush");
        if say(format!("flushed {op}")).is_err() {
            return;
        }
        if let Some(task) = task {
            cold.run(task).expect("task");
        }
        if say(format!("did {op}")).is_err() {
            return;
        }
    }
}

/// What a child has said, as far as the parent has read.
#[derive(Default)]
struct Heard {
    begun: u64,
    flushed: u64,
    rounds: u64,
    /// When its task began, while that runs; how long it took the last time.
    task_began: Option<Instant>,
    task: Duration,
}

impl Heard {
    fn take(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (Some("child"), Some(what), Some(op)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        // A line cut by the kill is not a whole number of rounds, and says nothing.
        let Some(op) = op.parse().ok().filter(|op| op % ROUND == 0) else { return };
        match what {
            "begins" => self.begun = self.begun.max(op),
            "flushed" => {
                self.flushed = self.flushed.max(op);
                self.task_began = Some(Instant::now());
            }
            "did" => {
                self.rounds += 1;
                self.task = self.task_began.take().map_or(Duration::ZERO, |at| at.elapsed());
            }
            _ => {}
        }
    }
}

/// A row of kills. They fall where they fall: the same seed does the same work, not the same kills.
fn run(seed: u64, tell: &Tell) {
    let (task, _) = TASKS[(seed % TASKS.len() as u64) as usize];
    let origin = format!("{task}, seed {seed}");
    tell.began(&origin);
    // A real file system, as far as the system's temporary directory is on one.
    let dir = tempfile::tempdir().expect("create a temporary directory");
    let row = || kill_in_a_row(task, seed, &dir.path().join("store"), tell);
    if let Err(fault) = unwinding(row) {
        tell.broken(&origin, fault, None);
    }
}

/// Kills children that do this task, one after the other in one directory, and judges what each one leaves.
fn kill_in_a_row(task: &str, seed: u64, dir: &Path, tell: &Tell) -> Result<(), Fault> {
    let mut rng = Rng::with_seed(seed);
    let mut history = History::default();
    let mut op = 0;
    for nth in 0..ROW {
        tell.began(&format!("{task}, seed {seed}, kill {nth}"));
        let (mut child, lines) = start(task, seed, op, dir);
        let mut heard = Heard { begun: op, flushed: op, ..Heard::default() };
        // Without a round to wait for, it is killed while it starts and recovers.
        let rounds = rng.u64(..6);
        let hit_task = rounds > 0 && task != "write" && rng.u32(..4) > 0;
        while heard.rounds < rounds || (hit_task && heard.task_began.is_none()) {
            match lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => heard.take(&line),
                Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(Fault { kind: FaultKind::Failed, text: "a child died or hangs".into() });
                }
            }
        }
        let task_us = heard.task.max(Duration::from_micros(300)).as_micros() as u64;
        let span_us = match (rounds, hit_task) {
            (0, _) => 20_000,
            (_, true) => task_us,
            (_, false) => task_us * 4,
        };
        let until = Instant::now() + Duration::from_micros(rng.u64(..span_us));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().expect("kill the child");
        child.wait().expect("wait for the child");
        lines.iter().for_each(|line| heard.take(&line));

        // A round may have begun whose line the kill cut off.
        let ceiling = heard.begun.max(heard.flushed) + ROUND;
        for op in op + 1..=ceiling {
            let (key, state, _) = operation(seed, op);
            history.note(op, &key, state);
        }
        // The next child goes on behind the numbers this one may have used.
        let after = ceiling + ROUND;
        let now_ms = now_ms(after);
        let window = Window { floor: heard.flushed, ceiling, now_min_ms: now_ms, now_max_ms: now_ms };
        let cold = open(dir, seed, after)?;
        let contents = read_all(&cold, history.keys.keys(), Some(now_ms))?;
        history.judge(window, &contents)?;
        history.note_recovery(after, ceiling, &contents);
        op = after;

        // The recovered store does all its work, and is left by a kill or in order.
        for (_, task) in TASKS {
            let Some(task) = task else { continue };
            cold.run(task).map_err(|error| Fault::failed(&format!("{task:?}"), error))?;
            look_up(&cold, history.keys.keys(), &contents, Some(now_ms))
                .map_err(|fault| fault.when(&format!("after {task:?}")))?;
        }
        let read = read_all(&cold, history.keys.keys(), Some(now_ms))?;
        expect_contents(&contents, &read).map_err(|fault| fault.when("after all tasks"))?;
        if rng.bool() {
            cold.flush().map_err(|error| Fault::failed("flush", error))?;
            cold.abandon();
        } else {
            cold.close().map_err(|error| Fault::failed("close", error))?;
        }
        tell.checked(Count::Kills, 1);
    }
    Ok(())
}

fn start(task: &str, seed: u64, op: u64, dir: &Path) -> (Child, Receiver<String>) {
    let mut child = Command::new(std::env::current_exe().expect("path of this test binary"))
        .env(CHILD, format!("{seed} {op} {task} {}", dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a child");
    let stdout = child.stdout.take().expect("the child's stdout is a pipe");
    let (line_to, lines) = unbounded();
    // Ends with the pipe, that is with the child.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = line_to.send(line);
        }
    });
    (child, lines)
}
