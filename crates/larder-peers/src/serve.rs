//! What is done with a store while it stays open: the load, and then whatever reads and writes it.

use std::sync::atomic::AtomicU32;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::Result;
use crate::contents::Contents;
use crate::driver::{ABSENT, Draw, Driver};
use crate::machine::{anonymous_memory_bytes, disk_bytes, drop_caches, resident_memory_bytes, watching_disk};
use crate::measure::{Stopwatch, Tally};
use crate::peer::Peer;
use crate::plan::Workload;
use crate::settle::settle;
use crate::stages::{Job, vec_of};

/// Threads of a mixed workload.
const MIXED_THREADS: u64 = 2;

/// A store that was opened, and what it is measured against.
pub(crate) struct Serving<'a> {
    pub job: &'a Job<'a>,
    pub peer: &'a dyn Peer,
    pub driver: Driver<'a>,
    /// Memory that was the harness's before the store was opened.
    pub harness_bytes: u64,
    /// Likewise, that is no file's.
    pub anonymous_bytes: u64,
}

impl Job<'_> {
    /// Opens a fresh store and lets `act` have it; the versions that entries have then are kept for other processes.
    pub(crate) fn serving(
        &self,
        contents: &Contents,
        act: impl FnOnce(&Serving<'_>) -> Result<()>,
    ) -> Result<()> {
        let versions: Vec<AtomicU32> = vec_of(self.plan.entries, ABSENT);
        let (harness_bytes, anonymous_bytes) = (resident_memory_bytes(), anonymous_memory_bytes());
        let peer = self.open(contents, false)?;
        let driver = Driver::new(&*peer, contents, self.plan, &versions);
        act(&Serving { job: self, peer: &*peer, driver, harness_bytes, anonymous_bytes })?;
        peer.close()?;
        self.write_versions(&versions)
    }

    pub(crate) fn serve(&self, contents: &Contents, tell: &mut dyn FnMut(Map<String, Value>)) -> Result<()> {
        self.serving(contents, |serving| {
            tell(serving.load()?);
            for workload in self.workloads {
                let result = match workload {
                    Workload::Get => serving.read(*workload, Draw::Uniform, 1)?,
                    Workload::Get2 => serving.read(*workload, Draw::Uniform, 2)?,
                    Workload::Zipf => serving.read(*workload, Draw::Zipf, 1)?,
                    Workload::Zipf2 => serving.read(*workload, Draw::Zipf, 2)?,
                    Workload::Miss => serving.read(*workload, Draw::Missing, 1)?,
                    Workload::Mixed => serving.mixed()?,
                    Workload::Cold => {
                        let how = drop_caches(self.dir, self.plan.caches)?;
                        let mut result = serving.read(*workload, Draw::Uniform, 1)?;
                        result.insert("caches".to_owned(), json!(how));
                        result
                    }
                    Workload::Load
                    | Workload::Restart
                    | Workload::Kill
                    | Workload::Delete
                    | Workload::Ttl
                    | Workload::Limited => continue,
                };
                tell(result);
            }
            Ok(())
        })
    }
}

impl Serving<'_> {
    /// Puts every entry; `seconds` are until the last was accepted.
    pub(crate) fn load(&self) -> Result<Map<String, Value>> {
        let watch = self.watch();
        let (tally, last) = self.driver.load(|_| None)?;
        let accepted = watch.elapsed().as_secs_f64();
        self.peer.flush()?;
        let flushed = watch.elapsed().as_secs_f64();
        let settled = settle(self.peer)?;
        let mut result = watch.result("load", &tally, (1, accepted), self.job.dir)?;
        let settled_s = watch.until(settled.at);
        let memory = anonymous_memory_bytes().saturating_sub(self.anonymous_bytes);
        for (name, value) in [
            ("flushed_s", json!(flushed)),
            ("settled_s", json!(settled_s)),
            ("settled_per_s", json!(tally.calls.len() as f64 / settled_s)),
            ("never_settled", json!(settled.is_given_up)),
            ("last_puts_mean_us", json!(last.calls.mean() / 1e3)),
            ("memory_bytes_per_entry", json!(memory as f64 / self.job.plan.entries as f64)),
        ] {
            result.insert(name.to_owned(), value);
        }
        self.finish(&mut result);
        Ok(result)
    }

    fn read(&self, workload: Workload, draw: Draw, threads: u64) -> Result<Map<String, Value>> {
        let watch = self.watch();
        let tally = self.driver.read(draw, threads)?;
        let seconds = watch.elapsed().as_secs_f64();
        let mut result = watch.result(&workload.name(), &tally, (threads, seconds), self.job.dir)?;
        self.finish(&mut result);
        Ok(result)
    }

    /// Rates are of the operations; bytes are until the store has settled.
    fn mixed(&self) -> Result<Map<String, Value>> {
        let before = self.driver.logical_bytes();
        let goal = self.job.plan.mixed_goal(before);
        let watch = self.watch();
        let mut ended = (0.0, 0);
        let ((tally, settled), most) = watching_disk(self.job.dir, || {
            let tally: Tally = self.driver.mixed(MIXED_THREADS, goal)?;
            ended = (watch.until(Instant::now()), disk_bytes(self.job.dir)?);
            self.peer.flush()?;
            Ok((tally, settle(self.peer)?))
        })?;
        let (seconds, disk_at_end) = ended;
        let mut result = watch.result("mixed", &tally, (MIXED_THREADS, seconds), self.job.dir)?;
        for (name, value) in [
            ("settled_s", json!(watch.until(settled.at))),
            ("never_settled", json!(settled.is_given_up)),
            ("overwritten_share", json!(tally.put_bytes as f64 / before as f64)),
            ("disk_bytes_max", json!(most)),
            ("disk_bytes_unsettled", json!(disk_at_end)),
        ] {
            result.insert(name.to_owned(), value);
        }
        self.finish(&mut result);
        Ok(result)
    }

    pub(crate) fn watch(&self) -> Stopwatch {
        Stopwatch::new(self.harness_bytes)
    }

    /// What the driver does not know.
    pub(crate) fn finish(&self, result: &mut Map<String, Value>) {
        result.insert("logical_bytes".to_owned(), json!(self.driver.logical_bytes()));
        let index = self.peer.index_bytes().map(|bytes| bytes as f64 / self.job.plan.entries as f64);
        result.insert("index_bytes_per_entry".to_owned(), json!(index));
    }
}
