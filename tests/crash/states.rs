//! Crash states: laid out as files, recovered, judged, put to work again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fastrand::Rng;
use larder::{ColdTier, ManualClock};

use crate::contents::read_all;
use crate::crash_fs::{CrashFs, Image};
use crate::fault::{Fault, unwinding};
use crate::history::{History, Window};
use crate::memory::Memory;
use crate::recording::{Event, MarkKind};
use crate::saved::replay_command;
use crate::script::{Plan, START_MS, Trace, Work, record_recovery};
use crate::suite::{Count, Tell};

/// The two ways a run can end before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    PowerCut,
    Kill,
}

/// What a log says at one of its prefixes.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    floor: u64,
    floor_now_ms: u64,
    ceiling: u64,
    now_ms: u64,
}

impl Standing {
    /// Goes on through more of the log. A power cut does not respect what was only handed to the kernel.
    fn follow(mut self, events: &[Event], crash: Crash) -> Self {
        for event in events {
            let Event::Mark(mark) = event else { continue };
            self.now_ms = self.now_ms.max(mark.now_ms);
            match mark.kind {
                MarkKind::Started => self.ceiling = mark.op,
                MarkKind::HandedOver if crash == Crash::Kill => self.floor = mark.op,
                MarkKind::HandedOver => {}
                MarkKind::Durable => self.floor = mark.op,
                MarkKind::DurableWithClock => (self.floor, self.floor_now_ms) = (mark.op, mark.now_ms),
            }
        }
        self
    }

    fn window(self) -> Window {
        Window { floor: self.floor, ceiling: self.ceiling, now_min_ms: self.now_ms, now_max_ms: self.now_ms }
    }
}

/// One state to recover from, with everything needed to judge and to save it.
pub struct Case<'a> {
    pub plan: Plan,
    /// Where it comes from, for people.
    pub origin: String,
    pub image: Image,
    pub history: &'a History,
    pub window: Window,
    /// The wall clock of the recovery.
    pub wall_ms: u64,
    /// Chooses what the recovered store is put through.
    pub work_seed: u64,
}

impl<'a> Case<'a> {
    fn new(
        plan: Plan,
        origin: String,
        image: Image,
        history: &'a History,
        standing: Standing,
        rng: &mut Rng,
    ) -> Self {
        let mut window = standing.window();
        let wall_ms = if rng.u32(..8) == 0 {
            // The wall clock was set back meanwhile: the store goes on from the time it saved, at the latest with
            // the last acknowledged sync.
            window.now_min_ms = standing.floor_now_ms;
            START_MS - 86_400_000
        } else {
            let wall_ms = standing.now_ms + if rng.bool() { 0 } else { rng.u64(..=5000) };
            (window.now_min_ms, window.now_max_ms) = (wall_ms, wall_ms);
            wall_ms
        };
        Self { plan, origin, image, history, window, wall_ms, work_seed: rng.u64(..) }
    }

    /// The store's time after the recovery, where it is certain.
    fn now_ms(&self) -> Option<u64> {
        (self.window.now_min_ms == self.window.now_max_ms && self.wall_ms >= START_MS).then_some(self.wall_ms)
    }

    /// Recovers and judges.
    pub fn check(&self) -> Result<(), Fault> {
        let memory = Memory::holding(self.image.as_ref());
        unwinding(|| {
            let clock = ManualClock::new(self.wall_ms);
            let cold = ColdTier::open_with(self.plan.config(), memory.disk(), clock)
                .map_err(|error| Fault::failed("recovery", error))?;
            self.plan.let_evictions_end(&cold)?;
            let (history, now_ms) = (self.history, self.now_ms());
            let contents =
                read_all(&cold, history.keys.keys(), now_ms).map_err(|fault| fault.when("after recovery"))?;
            history.judge(self.window, &contents).map_err(|fault| {
                let recovery = cold.stats().recovery;
                fault.when(&format!("after a recovery that says {recovery:?}"))
            })?;
            let work = Work { plan: self.plan, memory: &memory, history, wall_ms: self.wall_ms, now_ms };
            work.go_on(cold, contents, &mut Rng::with_seed(self.work_seed))
        })
    }
}

/// How many states of each kind to try.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub power_cuts: u64,
    pub kills: u64,
    pub pairs: u64,
}

/// Second crashes tried for each first one.
const CUTS_OF_A_PAIR: u64 = 4;

/// Tries `share` states of one recorded run.
pub fn enumerate(
    plan: Plan,
    trace: &Trace,
    share: Share,
    save: impl Fn(&Case<'_>, &[Event], &Fault) -> Option<PathBuf>,
    tell: &Tell,
) {
    let mut rng = Rng::with_seed(plan.seed ^ 0x5eed);
    let prefixes = Prefixes::of(&trace.events);
    let mut points = Vec::new();
    for (kind, count) in [
        (Count::PowerCutStates, share.power_cuts),
        (Count::KilledStates, share.kills),
        (Count::CrashPairs, share.pairs / CUTS_OF_A_PAIR),
    ] {
        points.extend((0..count).map(|_| (prefixes.choose(&mut rng), kind)));
    }
    points.sort_by_key(|(prefix, _)| *prefix);

    let broken = |case: &Case<'_>, events: &[Event], fault: Fault| {
        let saved = save(case, events, &fault);
        tell.broken(&case.origin, fault, saved.map(|saved| replay_command(&saved)));
    };
    let check = |case: &Case<'_>, count: Count, events: &[Event]| {
        tell.began(&case.origin);
        if let Err(fault) = case.check() {
            broken(case, events, fault);
        }
        tell.checked(count, 1);
    };
    let mut fs = CrashFs::default();
    let mut followed = 0;
    for (prefix, kind) in points {
        for event in &trace.events[followed..prefix] {
            fs.apply(event);
        }
        followed = prefix;
        let events = &trace.events[..prefix];
        let crash = match kind {
            Count::PowerCutStates => Crash::PowerCut,
            Count::KilledStates => Crash::Kill,
            _ if rng.bool() => Crash::PowerCut,
            _ => Crash::Kill,
        };
        let origin = format!("seed {}, {crash:?} after event {prefix} of {}", plan.seed, trace.events.len());
        let standing = Standing::default().follow(events, crash);
        let killed = killed_in(&fs, trace.events.get(prefix), &mut rng);
        let image = match crash {
            Crash::PowerCut => fs.power_cut(&mut rng),
            Crash::Kill => killed.kill(),
        };
        if kind != Count::CrashPairs {
            check(&Case::new(plan, origin, image, &trace.history, standing, &mut rng), kind, events);
            continue;
        }

        // The recovery is recorded, and cut in its turn.
        tell.began(&format!("{origin}, first of a pair"));
        let memory = Memory::holding(image.as_ref());
        let window = standing.window();
        let work_seed = rng.u64(..);
        let mut again = Rng::with_seed(work_seed);
        let second = match unwinding(|| record_recovery(plan, &memory, window, &trace.history, &mut again)) {
            Ok(second) => second,
            Err(fault) => {
                let (history, wall_ms) = (&trace.history, window.now_max_ms);
                let case = Case { plan, origin, image, history, window, wall_ms, work_seed };
                broken(&case, events, fault);
                continue;
            }
        };
        // After a power cut the disk holds what it holds; after a kill the unsynced is still unsynced.
        let base = match crash {
            Crash::PowerCut => CrashFs::holding(&image),
            Crash::Kill => killed,
        };
        let opened = second.events.iter().skip(1).position(|event| matches!(event, Event::Mark(_)));
        let opening = opened.map_or(0, |at| at + 1);
        let (while_opening, later) = (Prefixes::of(&second.events[..opening]), Prefixes::of(&second.events));
        for nth in 0..CUTS_OF_A_PAIR {
            // Half of them while the store was being opened.
            let cut = if nth % 2 == 0 { while_opening.choose(&mut rng) } else { later.choose(&mut rng) };
            let crash_again = if rng.u32(..4) == 0 { Crash::Kill } else { Crash::PowerCut };
            let mut fs = base.clone();
            for event in &second.events[..cut] {
                fs.apply(event);
            }
            let image = match crash_again {
                Crash::PowerCut => fs.power_cut(&mut rng),
                Crash::Kill => fs.kill(),
            };
            let both = if crash == crash_again { crash } else { Crash::PowerCut };
            let standing =
                Standing::default().follow(events, both).follow(&second.events[..cut], crash_again);
            let origin =
                format!("{origin}, then {crash_again:?} after event {cut} of {}", second.events.len());
            let events: Vec<Event> = events.iter().chain(&second.events[..cut]).cloned().collect();
            check(
                &Case::new(plan, origin, image, &second.history, standing, &mut rng),
                Count::CrashPairs,
                &events,
            );
        }
    }
}

/// Where the log may be cut: at each kind of event, as often for a rare kind as for a common one.
struct Prefixes {
    count: usize,
    /// Of each kind (what was done to which sort of file), the events before which the log can be cut.
    kinds: Vec<Vec<usize>>,
}

impl Prefixes {
    fn of(events: &[Event]) -> Self {
        let mut names: BTreeMap<u64, String> = BTreeMap::new();
        let mut unsynced: BTreeMap<u64, u32> = BTreeMap::new();
        let mut kinds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let sort = |name: &str| name.chars().take_while(|c| c.is_alphabetic()).collect::<String>();
        for (at, event) in events.iter().enumerate() {
            let kind = match event {
                Event::Create { handle, name } | Event::Open { handle, name } => {
                    names.insert(*handle, sort(name));
                    let is_new = matches!(event, Event::Create { .. });
                    if is_new { format!("create {}", sort(name)) } else { continue }
                }
                Event::Write { handle, .. } => {
                    *unsynced.entry(*handle).or_default() += 1;
                    format!("write {}", names[handle])
                }
                // A sync that several writes wait for is another thing than one for a single write, or none.
                Event::Sync { handle } => {
                    format!("sync {} {}", names[handle], unsynced.remove(handle).unwrap_or(0).min(3))
                }
                Event::Rename { to, .. } => format!("rename {}", sort(to)),
                Event::Remove { name } => format!("remove {}", sort(name)),
                Event::CreateDir | Event::SyncDir | Event::SyncParent => format!("{event:?}"),
                Event::Mark(_) => continue,
            };
            kinds.entry(kind).or_default().push(at);
        }
        Self { count: events.len(), kinds: kinds.into_values().collect() }
    }

    /// One in four anywhere; the others before or just behind an event of some kind.
    fn choose(&self, rng: &mut Rng) -> usize {
        if self.kinds.is_empty() || rng.u32(..4) == 0 {
            return rng.usize(..=self.count);
        }
        let kind = &self.kinds[rng.usize(..self.kinds.len())];
        let event = kind[rng.usize(..kind.len())];
        (event + usize::from(rng.u32(..3) == 0)).min(self.count)
    }
}

/// The file system at a kill between two system calls, or in the middle of a write.
fn killed_in(fs: &CrashFs, next: Option<&Event>, rng: &mut Rng) -> CrashFs {
    let mut fs = fs.clone();
    if let (Some(Event::Write { handle, offset, bytes }), true) = (next, rng.bool()) {
        let bytes = bytes[..rng.usize(..=bytes.len())].to_vec();
        fs.apply(&Event::Write { handle: *handle, offset: *offset, bytes });
    }
    fs
}
