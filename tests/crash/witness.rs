//! A child that meets trouble from outside of it, goes on if it can, and says what was acknowledged; and its judge.
//!
//! Scripts bring the trouble: `tests/ext4.sh` cuts the power of a file system ([`crate::ext4`]), `tests/syscalls.sh`
//! lets system calls fail or kills the child in them ([`crate::syscalls`]). Like the child of [`crate::kills`] it does
//! what it does by number. A call may be refused, and a write that was accepted may be lost: then it reads as a miss,
//! and the next flush fails (P4). Once a flush succeeds again, what is read of each key stands.
//!
//! Operations have even numbers; the odd one behind is the miss that the operation may have left. Behind each round one
//! number stands for what was read after its flush.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use larder::{ColdTier, ErrorKind, ManualClock, OsDisk};

use crate::contents::{Present, expect_contents, look_up, read_all};
use crate::fault::{Fault, FaultKind, unwinding};
use crate::history::{History, Window};
use crate::kills::{KEYS, ROUND, TASKS, now_ms, open, operation};
use crate::values::key;

/// Where the child's work is described to it.
pub const CHILD: &str = "LARDER_CRASH_WITNESS";

/// Numbers that a round takes.
const NUMBERS: u64 = 2 * (ROUND + 1);
/// How often a flush may fail before the child gives up.
const FLUSHES: u32 = 300;
/// How long a child may say nothing.
const QUIET: Duration = Duration::from_secs(60);

/// The states a key may be in, with the operations that left them; the last is the one that was asked for.
type Possible = Vec<(u64, Option<Present>)>;

/// The life of a child: so many rounds, or, if none are given, until it is ended.
pub fn live(work: &str) {
    let mut words = work.splitn(4, ' ');
    let mut word = || words.next().expect("seed, first operation, rounds, directory");
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let (seed, first, rounds) = (number(word()), number(word()), number(word()));
    let dir = Path::new(word());
    say(&format!("lives {}", std::process::id()));
    let cold = match open(dir, seed, first) {
        Ok(cold) => cold,
        Err(fault) => return say(&format!("refused {fault}")),
    };
    // A panic is told on stdout too: a tracer hides how its child ended.
    match unwinding(|| {
        Witness { cold, seed, op: first, possible: BTreeMap::new(), troubled: false }.live(rounds)
    }) {
        Ok(true) => say("done"),
        Ok(false) => {}
        Err(fault) => say(&format!("broken {:?} {}", fault.kind, fault.text.replace('\n', " "))),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // One write, so that a line is there or not. Without anybody who listens there is nothing to do.
    let said = out.write_all(format!("child {line} .\n").as_bytes()).and_then(|()| out.flush());
    if said.is_err() {
        std::process::exit(1);
    }
}

struct Witness {
    cold: ColdTier<OsDisk, ManualClock>,
    seed: u64,
    op: u64,
    possible: BTreeMap<Vec<u8>, Possible>,
    /// A call failed since the last flush that was acknowledged.
    troubled: bool,
}

impl Witness {
    /// Whether it came to its end; otherwise the store took no more writes.
    fn live(mut self, rounds: u64) -> Result<bool, Fault> {
        for number in 1..=KEYS {
            let key = key(number);
            self.possible.insert(key, vec![(self.op, None)]);
        }
        for (key, present) in self.read()? {
            self.possible.insert(key, vec![(self.op, Some(present))]);
        }
        let mut round = 0;
        while rounds == 0 || round < rounds {
            say(&format!("begins {}", self.op + NUMBERS));
            for _ in 0..ROUND {
                self.write()?;
            }
            self.op += 2;
            self.cold.clock().advance(2);
            if let Err(error) = self.flush() {
                say(&format!("stuck {error}"));
                // It is closed to writes, not to reads.
                self.check()?;
                return Ok(false);
            }
            self.check()?;
            self.troubled = false;
            say(&format!("flushed {}", self.op));
            let (name, task) = TASKS[((self.seed + round) % TASKS.len() as u64) as usize];
            if let Some(Err(error)) = task.map(|task| self.cold.run(task)) {
                told(&error)?;
                say(&format!("failed {name}: {error}"));
            }
            say(&format!("did {}", self.op));
            round += 1;
        }
        // Half of them end without closing.
        if self.seed.is_multiple_of(2)
            && let Err(error) = self.cold.close()
        {
            say(&format!("failed close: {error}"));
        }
        Ok(true)
    }

    fn write(&mut self) -> Result<(), Fault> {
        self.op += 2;
        self.cold.clock().advance(2);
        let (key, state, ttl_ms) = operation(self.seed, self.op);
        let done = match (&state, ttl_ms) {
            (None, _) => self.cold.remove(&key),
            (Some(present), None) => self.cold.insert(&key, &present.value),
            (Some(present), Some(ttl_ms)) => {
                self.cold.insert_with_ttl(&key, &present.value, Duration::from_millis(ttl_ms))
            }
        };
        let possible = self.possible.get_mut(&key).expect("one of the keys");
        match done {
            Ok(()) => *possible = vec![(self.op, state)],
            Err(error) => {
                possible.push((self.op, state));
                self.troubled = true;
                told(&error)?;
            }
        }
        Ok(())
    }

    /// Flushes until that is acknowledged.
    fn flush(&mut self) -> larder::Result<()> {
        for _ in 1..FLUSHES {
            if self.cold.flush().is_ok() {
                return Ok(());
            }
            self.troubled = true;
            std::thread::sleep(Duration::from_millis(1));
        }
        self.cold.flush()
    }

    fn read(&self) -> Result<BTreeMap<Vec<u8>, Present>, Fault> {
        let keys: Vec<Vec<u8>> = (1..=KEYS).map(key).collect();
        read_all(&self.cold, keys.iter(), Some(now_ms(self.op)))
    }

    /// What is read is what was asked for, or, in trouble, possible; then it is said, and stands.
    fn check(&mut self) -> Result<(), Fault> {
        let (now_ms, mut contents) = (now_ms(self.op), self.read()?);
        for number in 1..=KEYS {
            let key = key(number);
            let possible = self.possible.get_mut(&key).expect("one of the keys");
            let read = contents.remove(&key);
            let is_it = |state: &Option<Present>| {
                state.as_ref().filter(|present| !present.is_expired(now_ms)) == read.as_ref()
            };
            let found = possible.iter().rposition(|(_, state)| is_it(state));
            let found = match (found, &read) {
                (Some(at), _) if at + 1 == possible.len() => {
                    possible.drain(..at);
                    continue;
                }
                (Some(at), _) if self.troubled => possible[at].0,
                (None, None) if self.troubled => 0,
                (_, read) => {
                    let kind = if read.is_some() { FaultKind::Wrong } else { FaultKind::Lost };
                    let read = read.as_ref().map(Present::to_string);
                    let text =
                        format!("read {read:?} while it lives, troubled: {}, {possible:?}", self.troubled);
                    return Err(Fault::new(kind, &key, text));
                }
            };
            say(&format!("reads {} {number} {found}", self.op));
            *possible = vec![(self.op, read)];
        }
        Ok(())
    }
}

/// A call was refused; a store that says it is closed has lost a worker.
fn told(error: &larder::Error) -> Result<(), Fault> {
    match error.kind() {
        ErrorKind::Closed => Err(Fault { kind: FaultKind::Panicked, text: error.to_string() }),
        _ => Ok(()),
    }
}

/// What a child has said, as far as its judge has read.
#[derive(Default)]
pub struct Heard {
    /// Its process, once it has said a word.
    pub pid: Option<u32>,
    begun: u64,
    flushed: u64,
    pub rounds: u64,
    /// It has done all of its work.
    pub done: bool,
    /// The store took no more writes.
    pub stuck: Option<String>,
    /// The store did not open.
    refused: bool,
    /// Number of a round's end, key, and the operation whose state was read; 0 is a miss.
    reads: Vec<(u64, u64, u64)>,
    broken: Option<Fault>,
}

impl Heard {
    /// It has said why it ended.
    pub fn ended(&self) -> bool {
        self.done || self.refused || self.stuck.is_some() || self.broken.is_some()
    }

    /// Leaves out that the child could not go on because of a refused call.
    pub fn forgive_refused_calls(&mut self) {
        self.broken.take_if(|fault| fault.kind == FaultKind::Failed);
    }

    pub fn take(&mut self, line: &str) {
        let Some(line) = line.strip_prefix("child ").and_then(|line| line.strip_suffix(" .")) else { return };
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        let numbers: Vec<u64> = rest.split(' ').map_while(|word| word.parse().ok()).collect();
        match (what, &numbers[..]) {
            ("lives", [pid]) => self.pid = Some(*pid as u32),
            ("begins", [op]) => self.begun = *op,
            ("flushed", [op]) => self.flushed = *op,
            ("did", [_]) => self.rounds += 1,
            ("reads", [op, key, of]) => self.reads.push((*op, *key, *of)),
            ("done", _) => self.done = true,
            ("stuck", _) => self.stuck = Some(rest.into()),
            ("refused", _) => self.refused = true,
            ("broken", _) => {
                let kinds = [
                    FaultKind::Lost,
                    FaultKind::Wrong,
                    FaultKind::Resurrected,
                    FaultKind::ExpiredServed,
                    FaultKind::Panicked,
                ];
                let kind = kinds.into_iter().find(|kind| rest.starts_with(&format!("{kind:?}")));
                self.broken =
                    Some(Fault { kind: kind.unwrap_or(FaultKind::Failed), text: format!("a child: {rest}") });
            }
            _ => {}
        }
    }
}

/// A running child.
pub struct Running {
    pub process: Child,
    lines: Receiver<String>,
    pub heard: Heard,
}

impl Running {
    /// Listens until the child has said enough, or has ended.
    pub fn listen(&mut self, enough: impl Fn(&Heard) -> bool) -> Result<(), Fault> {
        while !enough(&self.heard) {
            match self.lines.recv_timeout(QUIET) {
                Ok(line) => self.heard.take(&line),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(pid) = self.heard.pid {
                        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
                    }
                    let _ = self.process.kill();
                    let _ = self.process.wait();
                    return Err(Fault { kind: FaultKind::Failed, text: "a child hangs".into() });
                }
            }
        }
        Ok(())
    }
}

/// A store that one child after the other works on.
pub struct Row {
    pub seed: u64,
    pub dir: PathBuf,
    op: u64,
    history: History,
    /// Operations that flushes have acknowledged.
    pub acknowledged: u64,
}

impl Row {
    pub fn new(seed: u64, dir: PathBuf) -> Self {
        Self { seed, dir, op: 0, history: History::default(), acknowledged: 0 }
    }

    /// Starts a child, under the program that is named, if one is.
    pub fn start(&self, rounds: u64, under: &[String]) -> Running {
        let this = std::env::current_exe().expect("path of this test binary");
        let mut command = match under {
            [] => Command::new(this),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(this);
                command
            }
        };
        let mut process = command
            // The loader looks for libraries there: many calls that are not the store's.
            .env_remove("LD_LIBRARY_PATH")
            .env(CHILD, format!("{} {} {rounds} {}", self.seed, self.op, self.dir.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a child");
        let stdout = process.stdout.take().expect("the child's stdout is a pipe");
        let (line_to, lines) = unbounded();
        // Ends with the pipe, that is with the child.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = line_to.send(line);
            }
        });
        Running { process, lines, heard: Heard { begun: self.op, flushed: self.op, ..Heard::default() } }
    }

    /// Opens what a child has left and judges it, lets it do all its work, and closes it or leaves it. Where calls have
    /// failed, a write that was not acknowledged may have become a miss.
    pub fn judge(&mut self, heard: Heard, calls_failed: bool) -> Result<(), Fault> {
        if let Some(fault) = heard.broken {
            return Err(fault);
        }
        let (first, floor, ceiling) = (self.op, heard.flushed, heard.begun);
        for op in (first + 2..=ceiling).step_by(2) {
            if (op - first).is_multiple_of(NUMBERS) {
                for (_, number, of) in heard.reads.iter().filter(|(at, _, _)| *at == op) {
                    let key = key(*number);
                    let versions = self.history.keys.get(&key).map_or(&[][..], |versions| versions);
                    let state =
                        versions.iter().find(|version| version.op == *of).and_then(|v| v.state.clone());
                    self.history.note(op, &key, state);
                }
                continue;
            }
            let (key, state, _) = operation(self.seed, op);
            self.history.note(op, &key, state);
            if calls_failed && op > floor {
                self.history.note(op + 1, &key, None);
            }
            self.acknowledged += u64::from(op <= floor);
        }
        // The next child goes on behind the numbers that this one has used.
        let after = ceiling + NUMBERS;
        let now_ms = now_ms(after);
        let window = Window { floor, ceiling: ceiling + 1, now_min_ms: now_ms, now_max_ms: now_ms };
        let cold = open(&self.dir, self.seed, after)?;
        let contents = read_all(&cold, self.history.keys.keys(), Some(now_ms))?;
        self.history
            .judge(window, &contents)
            .map_err(|fault| fault.when(&format!("floor {floor}, recovery {:?}", cold.stats().recovery)))?;
        self.history.note_recovery(after, ceiling + 1, &contents);
        self.op = after;

        for (_, task) in TASKS {
            let Some(task) = task else { continue };
            cold.run(task).map_err(|error| Fault::failed(&format!("{task:?}"), error))?;
            look_up(&cold, self.history.keys.keys(), &contents, Some(now_ms))
                .map_err(|fault| fault.when(&format!("after {task:?}")))?;
        }
        let read = read_all(&cold, self.history.keys.keys(), Some(now_ms))?;
        expect_contents(&contents, &read).map_err(|fault| fault.when("after all tasks"))?;
        cold.flush().map_err(|error| Fault::failed("flush", error))?;
        if (after / NUMBERS).is_multiple_of(2) {
            cold.abandon();
        } else {
            cold.close().map_err(|error| Fault::failed("close", error))?;
        }
        Ok(())
    }
}
