//! What can be reclaimed, when and why: from what the segments say of themselves.
//!
//! Of a segment the first and the last expiry are known, not each entry's, and how many of its values never expire. So
//! bytes that fall due are estimated: the live bytes of a segment are shared out between values that expire and those
//! that do not by their counts, and the former are taken to be spread evenly between first and last expiry.

use larder::SegmentInfo;
use serde::Serialize;

use crate::glance::{Glance, Source, quotient};
use crate::output;

/// Share of reclaimable bytes at which a store compacts by itself, unless configured otherwise.
pub const COMPACTS_AT: f64 = 0.25;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Ends of the buckets of the histogram, from now.
const BUCKETS: [(&str, u64); 9] = [
    ("due now", 0),
    ("1 min", MINUTE),
    ("5 min", 5 * MINUTE),
    ("30 min", 30 * MINUTE),
    ("1 h", HOUR),
    ("6 h", 6 * HOUR),
    ("1 d", DAY),
    ("7 d", 7 * DAY),
    ("30 d", 30 * DAY),
];

/// Live bytes that fall due within a time.
#[derive(Clone, Debug, Serialize)]
pub struct Due {
    /// `now`, `minute`, `hour`, `day`.
    pub within: &'static str,
    /// Taken to be spread evenly over each segment's range.
    pub estimated_bytes: u64,
    /// If all of a segment's entries that expire did so at its first expiry.
    pub at_most_bytes: u64,
    /// Segments in which something falls due.
    pub segments: u64,
}

/// A bar of the histogram of remaining lives.
#[derive(Clone, Debug, Serialize)]
pub struct Bucket {
    /// Longest life in it.
    pub up_to: &'static str,
    /// Live bytes, estimated.
    pub bytes: u64,
}

/// Something that can be reclaimed.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// What it is.
    pub what: String,
    /// How much.
    pub bytes: u64,
    /// When it goes, and by what.
    pub when: String,
}

/// What can be reclaimed, when and why.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// Dead and expired bytes over the bytes of all segments.
    pub reclaimable_share: f64,
    /// Dead and expired bytes over the bytes of all records: what automatic compaction goes by, but for what will soon
    /// go by itself.
    pub garbage_share: f64,
    /// What falls due, and by when.
    pub due: Vec<Due>,
    /// Live bytes by the life that is left to them.
    pub lives: Vec<Bucket>,
    /// In words, the largest first.
    pub reasons: Vec<Reason>,
}

impl Forecast {
    /// Of a store at one moment.
    pub fn of(glance: &Glance) -> Self {
        let (now, segments) = (glance.at_ms, &glance.segments);
        let due = [("now", 0), ("minute", MINUTE), ("hour", HOUR), ("day", DAY)]
            .map(|(within, ms)| due(segments, within, now, ms))
            .to_vec();
        let stats = &glance.stats;
        let garbage = stats.dead_bytes + stats.expired_bytes;
        let garbage_share = quotient(garbage, stats.live_bytes + garbage);
        Self {
            reclaimable_share: quotient(garbage, stats.segment_bytes),
            garbage_share,
            lives: lives(segments, now),
            reasons: reasons(glance, &due, garbage_share),
            due,
        }
    }
}

/// Live bytes of a segment that will expire. Which values are dead is not known, only how many: they are taken to be of
/// both kinds alike.
fn expiring_bytes(segment: &SegmentInfo) -> u64 {
    if segment.latest_expiry_ms.is_none() {
        return 0;
    }
    let values = segment.live_records + segment.dead_records;
    let expiring = values.saturating_sub(segment.unexpiring_records);
    (u128::from(segment.live_bytes) * u128::from(expiring) / u128::from(values.max(1))) as u64
}

/// Live bytes of a segment that are estimated to be due at a moment.
fn due_by(segment: &SegmentInfo, now: u64, moment: u64) -> u64 {
    let (Some(first), Some(last)) = (segment.earliest_expiry_ms, segment.latest_expiry_ms) else { return 0 };
    // Where a cleanup has been, what lies behind now is gone from the live bytes; elsewhere it still counts.
    let first = if segment.expired_records > 0 && last > now { first.max(now) } else { first };
    let expiring = expiring_bytes(segment);
    if moment >= last {
        return expiring;
    }
    if moment <= first {
        return 0;
    }
    let share = (moment - first) as f64 / (last - first) as f64;
    (expiring as f64 * share) as u64
}

fn due(segments: &[SegmentInfo], within: &'static str, now: u64, ms: u64) -> Due {
    let mut due = Due { within, estimated_bytes: 0, at_most_bytes: 0, segments: 0 };
    for segment in segments {
        let begun = segment.earliest_expiry_ms.is_some_and(|first| first <= now + ms);
        if begun && expiring_bytes(segment) > 0 {
            due.estimated_bytes += due_by(segment, now, now + ms);
            due.at_most_bytes += expiring_bytes(segment);
            due.segments += 1;
        }
    }
    due
}

fn lives(segments: &[SegmentInfo], now: u64) -> Vec<Bucket> {
    let by = |ms: u64| segments.iter().map(|segment| due_by(segment, now, now + ms)).sum::<u64>();
    let mut before = 0;
    let mut buckets = Vec::with_capacity(BUCKETS.len() + 2);
    for (up_to, ms) in BUCKETS {
        let bytes = by(ms);
        buckets.push(Bucket { up_to, bytes: bytes.saturating_sub(before) });
        before = before.max(bytes);
    }
    let expiring: u64 = segments.iter().map(expiring_bytes).sum();
    let all: u64 = segments.iter().map(|segment| segment.live_bytes).sum();
    buckets.push(Bucket { up_to: "longer", bytes: expiring.saturating_sub(before) });
    buckets.push(Bucket { up_to: "never", bytes: all - expiring });
    buckets
}

fn reasons(glance: &Glance, due: &[Due], share: f64) -> Vec<Reason> {
    let (stats, dir) = (&glance.stats, &glance.dir);
    let holding =
        |bytes: fn(&SegmentInfo) -> u64| glance.segments.iter().filter(|segment| bytes(segment) > 0).count();
    let limit = format!("over {:.0} % of garbage ({:.0} % now)", COMPACTS_AT * 100.0, share * 100.0);
    let compaction = match glance.source {
        Source::Closed => format!("`larder compact {dir}` now; by itself, once open, {limit}"),
        Source::Open | Source::InUse => format!("a compaction starts by itself when {limit}, by default"),
    };
    let cleanup = match glance.source {
        Source::Closed => format!("`larder expire {dir}` now; by itself once open"),
        Source::Open | Source::InUse => "next cleanup, within half a second by default".to_owned(),
    };
    let mut reasons = vec![
        Reason {
            what: format!(
                "dead: overwritten or deleted entries, in {} of {} segments",
                holding(|segment| segment.dead_bytes),
                stats.segments
            ),
            bytes: stats.dead_bytes,
            when: compaction.clone(),
        },
        Reason {
            what: format!(
                "expired and out of the index, in {} of {} segments that also hold something else",
                holding(|segment| segment.expired_bytes),
                stats.segments
            ),
            bytes: stats.expired_bytes,
            when: compaction,
        },
    ];
    let now = due.first().map_or(0, |due| due.estimated_bytes);
    reasons.push(Reason {
        what: "past their time, not yet taken out of the index (estimated)".to_owned(),
        bytes: now,
        when: cleanup,
    });
    let mut before = now;
    for due in due.iter().skip(1) {
        let within = if due.within == "hour" { "an hour".to_owned() } else { format!("a {}", due.within) };
        reasons.push(Reason {
            what: format!("expiring within {within} (estimated from {} segments)", due.segments),
            bytes: due.estimated_bytes.saturating_sub(before),
            when: format!("within {within}, as each entry's time passes"),
        });
        before = due.estimated_bytes.max(before);
    }
    reasons.retain(|reason| reason.bytes > 0);
    reasons
}

/// One line on what can be reclaimed, for a header.
pub fn summary(glance: &Glance, forecast: &Forecast) -> String {
    let reclaimable = glance.stats.dead_bytes + glance.stats.expired_bytes;
    format!(
        "{} reclaimable ({:.1} % of the segments)",
        output::bytes(reclaimable),
        forecast.reclaimable_share * 100.0
    )
}
