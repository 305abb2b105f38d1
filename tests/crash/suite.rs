//! What the suites have in common: what is counted, how a job tells the harness what it does, and the shape of a suite.

use std::time::Duration;

use crossbeam_channel::Sender;

use crate::fault::{Fault, FaultKind, unwinding};

/// What is counted, by its name in the line that is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    Kills,
    PowerCutStates,
    CrashPairs,
    DamagedOpens,
    FailedSyncs,
    DiskFull,
    FailedCalls,
    KilledStates,
    ClockTurns,
}

impl Count {
    pub const ALL: [(Count, &str); 9] = [
        (Count::Kills, "kills"),
        (Count::PowerCutStates, "power_cut_states"),
        (Count::CrashPairs, "crash_pairs"),
        (Count::DamagedOpens, "damaged_opens"),
        (Count::FailedSyncs, "failed_syncs"),
        (Count::DiskFull, "disk_full"),
        (Count::FailedCalls, "failed_calls"),
        (Count::KilledStates, "killed_states"),
        (Count::ClockTurns, "clock_turns"),
    ];
}

/// One family of faults, in numbered jobs that stand each for itself.
pub struct Suite {
    pub name: &'static str,
    /// Jobs of a full run.
    pub jobs: u64,
    /// What a job of it counts at least: a suite that tries nothing must not pass.
    pub counts: &'static [(Count, u64)],
    pub run: fn(u64, &Tell),
}

/// What a job tells the harness.
pub enum Report {
    /// A case begins; if nothing follows, it hangs.
    Began { worker: usize, origin: String },
    /// Cases were checked.
    Checked { count: Count, cases: u64 },
    /// A case broke the promise.
    Broken { origin: String, fault: Fault, again: String },
    /// A job has ended.
    Ended { suite: &'static str, took: Duration },
}

/// A job's end of the channel to the harness.
pub struct Tell {
    pub suite: &'static str,
    pub seed: u64,
    pub worker: usize,
    pub to: Sender<Report>,
}

impl Tell {
    pub fn began(&self, origin: &str) {
        self.send(Report::Began { worker: self.worker, origin: format!("{}: {origin}", self.suite) });
    }

    pub fn ended(&self, took: Duration) {
        self.send(Report::Ended { suite: self.suite, took });
    }

    pub fn checked(&self, count: Count, cases: u64) {
        self.send(Report::Checked { count, cases });
    }

    /// `again` repeats the very case, where the job's own seed does not.
    pub fn broken(&self, origin: &str, fault: Fault, again: Option<String>) {
        let again = again.unwrap_or_else(|| self.again());
        self.send(Report::Broken { origin: format!("{}: {origin}", self.suite), fault, again });
    }

    /// Checks one case: whatever happens in it is told.
    pub fn check(&self, count: Count, origin: &str, case: impl FnOnce() -> Result<(), Fault>) {
        self.began(origin);
        if let Err(fault) = unwinding(case) {
            self.broken(origin, fault, None);
        }
        self.checked(count, 1);
    }

    fn again(&self) -> String {
        format!("LARDER_CRASH_SEED={} cargo test --release --test crash -- {}", self.seed, self.suite)
    }

    fn send(&self, report: Report) {
        // A harness that has stopped listening has seen enough.
        let _ = self.to.send(report);
    }
}

/// Broken promises, by the names of the line.
pub fn faults_by_name(faults: &[FaultKind]) -> Vec<(&'static str, usize)> {
    let count = |kind| faults.iter().filter(|fault| **fault == kind).count();
    vec![
        ("lost", count(FaultKind::Lost)),
        ("wrong", count(FaultKind::Wrong)),
        ("resurrected", count(FaultKind::Resurrected)),
        ("expired_served", count(FaultKind::ExpiredServed)),
        ("panics", count(FaultKind::Panicked)),
        ("failed", count(FaultKind::Failed)),
    ]
}
