//! What changes from one look to the next: rates a second, and the disk's bytes over the time watched.

use std::collections::VecDeque;

use crate::glance::{Glance, Source};
use crate::output;

/// Looks kept: at four a second, five minutes.
const KEPT: usize = 1200;
/// Rates are taken over this time, in milliseconds, so that they can be read.
const OVER_MS: u64 = 2000;

/// The figures of one look that rates are made of.
#[derive(Clone, Debug)]
struct Mark {
    at_ms: u64,
    disk_bytes: u64,
    entries: u64,
    written: u64,
    reclaimed: u64,
    expired: u64,
    hits: u64,
    misses: u64,
    inserts: u64,
    evicted: u64,
    rejected: u64,
}

/// The looks so far.
#[derive(Debug, Default)]
pub struct Trail {
    marks: VecDeque<Mark>,
}

impl Trail {
    /// Adds a look.
    pub fn add(&mut self, glance: &Glance) {
        let stats = &glance.stats;
        if self.marks.len() == KEPT {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark {
            at_ms: glance.at_ms,
            disk_bytes: glance.disk.bytes,
            entries: stats.entries,
            written: stats.segment_bytes_written,
            reclaimed: stats.bytes_reclaimed,
            expired: stats.expired_removed,
            hits: stats.hits,
            misses: stats.misses,
            inserts: stats.inserts,
            evicted: stats.evicted,
            rejected: stats.rejected,
        });
    }

    /// Bytes on disk at each look, oldest first.
    pub fn disk_bytes(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.marks.iter().map(|mark| mark.disk_bytes)
    }

    /// Rates a second over the last two seconds; `None` before there are two looks.
    pub fn rates(&self, source: Source) -> Option<Vec<(&'static str, String)>> {
        let last = self.marks.back()?;
        let earlier =
            self.marks.iter().rev().skip(1).find(|mark| last.at_ms.saturating_sub(mark.at_ms) >= OVER_MS);
        let first = earlier.or(self.marks.front())?;
        let seconds = last.at_ms.saturating_sub(first.at_ms) as f64 / 1000.0;
        if seconds <= 0.0 {
            return None;
        }
        let change = |figure: fn(&Mark) -> u64| (figure(last) as i64 - figure(first) as i64) as f64 / seconds;
        let bytes = |figure| format!("{}/s", output::signed_bytes(change(figure) as i64));
        let count = |figure| format!("{:+.0} /s", change(figure));
        let mut rates =
            vec![("disk", bytes(|mark| mark.disk_bytes)), ("entries", count(|mark| mark.entries))];
        // Only whoever has the store open counts what goes through it.
        if source == Source::Open {
            rates.extend([
                ("written", bytes(|mark| mark.written)),
                ("reclaimed", bytes(|mark| mark.reclaimed)),
                ("expired", count(|mark| mark.expired)),
                ("puts", count(|mark| mark.inserts)),
                ("gets", count(|mark| mark.hits + mark.misses)),
            ]);
            if last.evicted + last.rejected > 0 {
                rates.extend([
                    ("evicted", count(|mark| mark.evicted)),
                    ("not let in", count(|mark| mark.rejected)),
                ]);
            }
        }
        Some(rates)
    }
}
