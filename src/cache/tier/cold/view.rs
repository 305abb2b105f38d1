//! Turning the store's inner figures into what users are shown.

use std::sync::atomic::{AtomicU64, Ordering};

use super::compression::CompressionParameters;
use super::core::slab::{AccountView, Slab};
use super::dictionary::DictionaryTable;
use super::groups::EXPIRING;
use super::report::CompressionChoice;
use super::serialization::segment::LogKind;
use super::shared::{Counters, Shared};
use crate::cache::stats::ColdStats;
use crate::clock::Clock;
use crate::io::Disk;

/// Whether a segment is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum SegmentState {
    /// Records are appended to it.
    Active,
    /// It is complete and never written again.
    Sealed,
}

/// What lies together in a segment: records that are likely to die at the same time.
///
/// As text: `lasting 0` to `lasting 4`, `expiring 0` to `expiring 15`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SegmentGroup {
    /// Records that mostly never expire, by how long they are likely to last until they are replaced: 0 (soon) to 4.
    /// Of new keys and deletions nothing is known yet; they are in 2.
    Lasting(u8),
    /// Records of one class of times to live. Classes are learned from the traffic, and a number is given to other
    /// times to live when its own are not met any more: what a segment holds, its expiries say.
    Expiring(u8),
}

impl SegmentGroup {
    fn of(number: u8) -> Self {
        match number.checked_sub(EXPIRING) {
            None => Self::Lasting(number),
            Some(class) => Self::Expiring(class),
        }
    }
}

impl std::fmt::Display for SegmentGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lasting(class) => write!(f, "lasting {class}"),
            Self::Expiring(class) => write!(f, "expiring {class}"),
        }
    }
}

/// As it is displayed: `"lasting 2"`.
#[cfg(feature = "serde")]
impl serde::Serialize for SegmentGroup {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its number; the file is `seg-<number>.lard`.
    pub id: u64,
    /// Whether it is being written.
    pub state: SegmentState,
    /// Fresh writes, or survivors of compactions.
    pub log: LogKind,
    /// What lies together in it.
    pub group: SegmentGroup,
    /// Length of the file.
    pub file_bytes: u64,
    /// Records written to it, deletions included.
    pub records: u64,
    /// Values among them, still in force.
    pub live_records: u64,
    /// Overwritten or deleted since.
    pub dead_records: u64,
    /// Found expired by a cleanup.
    pub expired_records: u64,
    /// Values written to it that never expire, dead ones included.
    pub unexpiring_records: u64,
    /// Bytes of live records, headers and padding included (estimated where records are dead).
    pub live_bytes: u64,
    /// Bytes of dead records, estimated.
    pub dead_bytes: u64,
    /// Bytes of expired records.
    pub expired_bytes: u64,
    /// Earliest expiry of its records, unix ms.
    pub earliest_expiry_ms: Option<u64>,
    /// Latest expiry of its records, unix ms.
    pub latest_expiry_ms: Option<u64>,
    /// Dictionaries its records need.
    pub dictionaries: Vec<u8>,
}

impl From<&AccountView> for SegmentInfo {
    fn from(account: &AccountView) -> Self {
        let summary = &account.summary;
        Self {
            id: account.identity.segment_id,
            state: if account.sealed { SegmentState::Sealed } else { SegmentState::Active },
            log: account.identity.log,
            group: SegmentGroup::of(account.identity.group),
            file_bytes: file_bytes(account),
            records: summary.records.into(),
            live_records: account.live_records(),
            dead_records: account.dead_records,
            expired_records: account.expired_records,
            unexpiring_records: summary.unexpiring.saturating_sub(summary.tombstones).into(),
            live_bytes: account.live_bytes(),
            dead_bytes: account.reclaimable_bytes().saturating_sub(account.expired_bytes),
            expired_bytes: account.expired_bytes.min(account.reclaimable_bytes()),
            earliest_expiry_ms: (summary.expiry_min_ms != 0).then_some(summary.expiry_min_ms),
            latest_expiry_ms: (summary.expiry_max_ms != 0).then_some(summary.expiry_max_ms),
            dictionaries: summary.dictionary_slots(),
        }
    }
}

fn file_bytes(account: &AccountView) -> u64 {
    account.summary.file_bytes.max(account.summary.records_end)
}

/// The segments of a slab, oldest first.
pub(super) fn segment_infos<F>(slab: &Slab<F>) -> Vec<SegmentInfo> {
    slab.accounts().iter().map(SegmentInfo::from).collect()
}

/// How records are compressed, for people.
pub(super) fn compression_choice(
    parameters: CompressionParameters,
    dictionaries: &DictionaryTable,
) -> CompressionChoice {
    let dictionary_bytes = match parameters.dictionary {
        0 => 0,
        slot => dictionaries.read(slot).as_ref().map_or(0, |dictionary| dictionary.bytes().len() as u32),
    };
    CompressionChoice { codec: parameters.codec, dictionary_bytes }
}

/// The gauges that the segments' accounts add up to.
pub(super) fn add_accounts(stats: &mut ColdStats, accounts: &[AccountView]) {
    for account in accounts {
        let info = SegmentInfo::from(account);
        let share = |bytes: u64| {
            let records = info.records.saturating_sub(account.summary.tombstones.into()).max(1);
            (u128::from(bytes) * u128::from(info.live_records) / u128::from(records)) as u64
        };
        stats.segments += 1;
        stats.segment_bytes += info.file_bytes;
        stats.live_bytes += info.live_bytes;
        stats.dead_bytes += info.dead_bytes;
        stats.expired_bytes += info.expired_bytes;
        stats.live_payload_bytes += share(account.summary.payload_bytes);
        stats.live_raw_bytes += share(account.summary.raw_bytes);
    }
}

pub(super) fn cold_stats<D: Disk, C: Clock>(shared: &Shared<D, C>) -> ColdStats {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counters: &Counters = &shared.counters;
    let mut stats = ColdStats {
        entries: shared.index.len(),
        shadows: shared.index.shadows(),
        raw_bytes_inserted: read(&counters.raw_bytes_inserted),
        stored_bytes_inserted: read(&counters.stored_bytes_inserted),
        segment_bytes_written: read(&counters.segment_bytes_written),
        snapshot_bytes: read(&counters.snapshot_bytes),
        dictionaries: shared.dictionaries.count() as u64,
        dictionary_bytes: 2 * shared.dictionaries.total_bytes() as u64,
        index_bytes: shared.index.resident_bytes(),
        queued_bytes: shared.budget.queued_bytes(),
        inserts: read(&counters.inserts),
        removes: read(&counters.removes),
        hits: read(&counters.hits),
        misses: read(&counters.misses),
        expired_misses: read(&counters.expired_misses),
        damaged_misses: read(&counters.damaged_misses),
        collision_misses: read(&counters.collision_misses),
        writes_lost: read(&counters.writes_lost),
        expired_removed: read(&counters.expired_removed),
        compactions: read(&counters.compactions),
        bytes_reclaimed: read(&counters.bytes_reclaimed),
        disk_bytes: shared.ledger.taken_bytes(),
        capacity_bytes: shared.ledger.capacity_bytes(),
        evicted: read(&counters.evicted),
        evicted_bytes: read(&counters.evicted_bytes),
        rejected: read(&counters.rejected),
        evictions_untold: read(&counters.evictions_untold),
        clock_jumps_refused: read(&counters.clock_jumps_refused),
        recovery: shared.recovery.clone(),
        ..ColdStats::default()
    };
    add_accounts(&mut stats, &shared.slab.accounts());
    stats
}
