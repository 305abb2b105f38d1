//! What one process does with one store. Each stage is a process of its own, so that memory is the store's alone and a
//! restart is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::contents::Contents;
use crate::driver::{Driver, OVERWRITES_BEFORE_KILL};
use crate::machine::{anonymous_memory_bytes, disk_bytes, resident_memory_bytes};
use crate::measure::Stopwatch;
use crate::peer::{Kind, Options, Peer};
use crate::plan::{Plan, Workload};
use crate::settle::settle;
use crate::{Failure, Result};

/// Reads that count as part of a restart.
const FIRST_READS: u64 = 1000;
/// Reads that then check what is there.
pub(crate) const CHECKED_READS: u64 = 20_000;
/// What a stage that wants to be killed says when it has begun.
pub const READY: &str = "ready";

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Load, and whatever reads and writes a store that stays open.
    Serve,
    /// Open and read.
    Restart,
    /// Open, and overwrite until killed.
    Doomed,
    /// Open and read after a kill.
    Revive,
    /// Delete everything.
    Delete,
    /// Time to live, on a fresh store.
    Ttl,
    /// Less memory than data, on a fresh store.
    Limited,
}

impl Stage {
    /// As it is called on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// One stage of one store.
pub struct Job<'a> {
    /// The store.
    pub kind: &'a Kind,
    /// Its directory.
    pub dir: &'a Path,
    /// Amounts.
    pub plan: &'a Plan,
    /// What to measure.
    pub workloads: &'a [Workload],
}

impl Job<'_> {
    /// Does it; `tell` gets each result as soon as there is one.
    pub fn run(&self, stage: Stage, tell: &mut dyn FnMut(Map<String, Value>)) -> Result<()> {
        fs::create_dir_all(self.dir)?;
        let contents = Contents::new(self.plan.contents, self.plan.size)?;
        match stage {
            Stage::Serve => self.serve(&contents, tell),
            Stage::Restart | Stage::Revive => self.restart(stage, &contents, tell),
            Stage::Doomed => {
                let versions = self.read_versions()?;
                let peer = self.open(&contents, false)?;
                println!("{READY}");
                let driver = Driver::new(&*peer, &contents, self.plan, &versions);
                (0..OVERWRITES_BEFORE_KILL).try_for_each(|_| driver.overwrite_all())?;
                // Nothing was closed: it still is one that is killed.
                thread::sleep(Duration::MAX);
                Ok(())
            }
            Stage::Delete => self.delete(&contents, tell),
            Stage::Ttl => self.ttl(&contents, tell),
            Stage::Limited => self.limited(&contents, tell),
        }
    }

    pub(crate) fn open(&self, contents: &Contents, ttl: bool) -> Result<Box<dyn Peer>> {
        let options = Options {
            cache_bytes: self.plan.cache_mib << 20,
            ttl,
            logical_bytes: self.plan.entries * contents.entry_bytes_mean(),
        };
        (self.kind.open)(self.dir, &options)
    }

    fn restart(
        &self,
        stage: Stage,
        contents: &Contents,
        tell: &mut dyn FnMut(Map<String, Value>),
    ) -> Result<()> {
        let versions = self.read_versions()?;
        let memory_before = anonymous_memory_bytes();
        let watch = Stopwatch::new(resident_memory_bytes());
        let peer = self.open(contents, false)?;
        let opened = watch.elapsed().as_secs_f64();
        let mut driver = Driver::new(&*peer, contents, self.plan, &versions);
        if stage == Stage::Revive {
            driver = driver.after_a_kill();
        }
        let mut tally = driver.sample(1)?;
        let first = watch.elapsed().as_secs_f64();
        tally.add(&driver.sample(FIRST_READS - 1)?);
        let read = watch.elapsed().as_secs_f64();
        let name = if stage == Stage::Revive { Workload::Kill.name() } else { Workload::Restart.name() };
        let mut result = watch.result(&name, &tally, (1, read), self.dir)?;
        tally.add(&driver.sample(CHECKED_READS)?);
        // What was needed to open is given back by now, what was read is small: the rest is the index.
        let memory = anonymous_memory_bytes().saturating_sub(memory_before);
        let per_entry = |bytes: u64| bytes as f64 / self.plan.entries as f64;
        for (name, value) in [
            ("opened_s", json!(opened)),
            ("first_get_s", json!(first)),
            ("first_reads_s", json!(read)),
            ("expected", json!(tally.expected)),
            ("found", json!(tally.found)),
            ("verified", json!(tally.verified)),
            ("wrong", json!(tally.wrong)),
            ("index_bytes_per_entry", json!(peer.index_bytes().map(per_entry))),
            ("memory_bytes_per_entry", json!(per_entry(memory))),
        ] {
            result.insert(name.to_owned(), value);
        }
        tell(result);
        peer.close()
    }

    fn delete(&self, contents: &Contents, tell: &mut dyn FnMut(Map<String, Value>)) -> Result<()> {
        let versions = self.read_versions()?;
        let before = disk_bytes(self.dir)?;
        let peer = self.open(contents, false)?;
        let driver = Driver::new(&*peer, contents, self.plan, &versions);
        let watch = Stopwatch::new(resident_memory_bytes());
        let mut tally = driver.delete(|_| true)?;
        let seconds = watch.elapsed().as_secs_f64();
        peer.flush()?;
        let settled = watch.until(settle(&*peer)?.at);
        let deletions = tally.clone();
        tally.add(&driver.sample(FIRST_READS)?);
        let mut result = watch.result("delete", &deletions, (1, seconds), self.dir)?;
        result.insert("found".to_owned(), json!(tally.found));
        result.insert("wrong".to_owned(), json!(tally.wrong));
        result.insert("settled_s".to_owned(), json!(settled));
        result.insert("disk_bytes_before".to_owned(), json!(before));
        tell(result);
        peer.close()?;
        self.write_versions(&versions)
    }

    /// Beside the store, not in it.
    fn versions_path(&self) -> PathBuf {
        self.dir.with_extension("versions")
    }

    pub(crate) fn write_versions(&self, versions: &[AtomicU32]) -> Result<()> {
        let bytes: Vec<u8> =
            versions.iter().flat_map(|version| version.load(Ordering::Acquire).to_le_bytes()).collect();
        Ok(fs::write(self.versions_path(), bytes)?)
    }

    fn read_versions(&self) -> Result<Vec<AtomicU32>> {
        let bytes = fs::read(self.versions_path())?;
        let (versions, rest) = bytes.as_chunks::<4>();
        if versions.len() as u64 != self.plan.entries || !rest.is_empty() {
            return Err(Failure("the versions that the load left are those of another plan".to_owned()));
        }
        Ok(versions.iter().map(|version| AtomicU32::new(u32::from_le_bytes(*version))).collect())
    }
}

/// The versions of so many entries.
pub(crate) fn vec_of(count: u64, version: u32) -> Vec<AtomicU32> {
    (0..count).map(|_| AtomicU32::new(version)).collect()
}
