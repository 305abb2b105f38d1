//! Time to live, on a fresh store: what of the disk comes back, and when.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::Result;
use crate::contents::Contents;
use crate::driver::{ABSENT, Driver};
use crate::machine::{disk_bytes, resident_memory_bytes};
use crate::measure::Stopwatch;
use crate::peer::TtlSupport;
use crate::stages::{CHECKED_READS, Job, vec_of};

/// Of ten entries so many expire.
const EXPIRING_OF_TEN: u64 = 7;
/// How long after the last expiry the disk is watched, in times to live.
const WATCHED: f64 = 2.0;
/// When what it was is said, in times to live.
const SOON: f64 = 0.125;
const DISK_EVERY: Duration = Duration::from_millis(50);
/// The space is back when the disk is this close to what it is in the end; if that is less than this of what it was.
const BACK: f64 = 1.05;
const GIVEN_BACK: f64 = 0.95;

/// Seconds since the last expiry, and bytes of the disk.
type Disk = Vec<(f64, u64)>;

impl Job<'_> {
    /// Seven of ten entries expire. Who has no time to live gets deletions at the moment of expiry.
    pub(crate) fn ttl(&self, contents: &Contents, tell: &mut dyn FnMut(Map<String, Value>)) -> Result<()> {
        let versions = vec_of(self.plan.entries, ABSENT);
        let harness_bytes = resident_memory_bytes();
        let peer = self.open(contents, true)?;
        let driver = Driver::new(&*peer, contents, self.plan, &versions);
        let ttl = Duration::from_secs_f64(self.plan.ttl_seconds);
        let expires = |id: u64| id % 10 < EXPIRING_OF_TEN;
        let knows_ttl = self.kind.ttl != TtlSupport::None;
        let watch = Stopwatch::new(harness_bytes);
        let (tally, _) = driver.load(|id| (knows_ttl && expires(id)).then_some(ttl))?;
        let seconds = watch.elapsed().as_secs_f64();
        let expired_at = Instant::now() + ttl;
        peer.flush()?;
        let mut result = watch.result("ttl", &tally, (1, seconds), self.dir)?;
        let before = disk_bytes(self.dir)?;
        result.insert("disk_bytes_before".to_owned(), json!(before));
        thread::sleep(expired_at.saturating_duration_since(Instant::now()));
        if knows_ttl {
            for id in (0..self.plan.entries).filter(|id| expires(*id)) {
                versions[id as usize].store(ABSENT, Ordering::Release);
            }
        } else {
            driver.delete(expires)?;
            peer.flush()?;
        }
        said_of(&self.disk_since(expired_at, ttl.mul_f64(WATCHED))?, before, ttl, &mut result);
        result.insert("logical_bytes".to_owned(), json!(driver.logical_bytes()));
        let seen = driver.sample(CHECKED_READS)?;
        for (name, value) in [("expected", seen.expected), ("found", seen.found), ("wrong", seen.wrong)] {
            result.insert(name.to_owned(), json!(value));
        }
        result.insert("verified".to_owned(), json!(seen.verified));
        tell(result);
        peer.close()
    }

    fn disk_since(&self, expired_at: Instant, watched: Duration) -> Result<Disk> {
        let mut disk = Vec::new();
        loop {
            let seconds = expired_at.elapsed().as_secs_f64();
            disk.push((seconds, disk_bytes(self.dir)?));
            if seconds >= watched.as_secs_f64() {
                return Ok(disk);
            }
            thread::sleep(DISK_EVERY);
        }
    }
}

fn said_of(disk: &Disk, before: u64, ttl: Duration, result: &mut Map<String, Value>) {
    let end = disk.last().map_or(0, |(_, bytes)| *bytes);
    let soon = disk.iter().find(|(seconds, _)| *seconds >= ttl.as_secs_f64() * SOON);
    let back = disk.iter().find(|(_, bytes)| *bytes as f64 <= end as f64 * BACK);
    let back = back.filter(|_| (end as f64) < before as f64 * GIVEN_BACK);
    result.insert("disk_bytes".to_owned(), json!(end));
    result.insert("disk_bytes_soon".to_owned(), json!(soon.map(|(_, bytes)| bytes)));
    result.insert("back_s".to_owned(), json!(back.map(|(seconds, _)| seconds)));
}
