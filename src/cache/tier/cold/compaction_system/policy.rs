//! Which segments to compact, and what to do on one's own: decisions only. They look at accounts and touch nothing.

use super::saved_index::SNAPSHOT_ENTRY_BYTES;
use crate::cache::tier::cold::core::slab::AccountView;

/// A segment that holds less than this share of a full one is worth merging, if there are enough of them.
const SMALL_SHARE: f64 = 0.25;
/// That many small segments are merged when a compaction runs,
const SMALL_SEGMENTS: usize = 4;
/// and that many (each start and each roll on demand may leave one) make one due.
const SMALL_SEGMENTS_DUE: usize = 16;
/// Asked for by hand, compaction takes every segment of which it can give this share back.
const REQUESTED_RATIO: f64 = 0.02;
/// Stored anew, a segment must shrink by this factor to be worth the CPU time.
const RECOMPRESSION_GAIN: f64 = 1.1;
/// Victims of one commit hold at most this many segments' bytes: the disk space a compaction needs.
const ROUND_SEGMENTS: u64 = 16;

/// Why a compaction runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cache::tier::cold) enum Trigger {
    /// Somebody asked: take whatever pays.
    Requested,
    /// By itself, above this share of reclaimable bytes.
    Automatic {
        /// `ColdTierConfig::dead_ratio_max`.
        dead_ratio_max: f64,
    },
}

/// A segment to be compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache::tier::cold) struct Victim {
    pub account: AccountView,
    /// Store its records anew with the current codec and dictionary.
    pub recompress: bool,
}

/// What is known besides the accounts.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache::tier::cold) struct Circumstances {
    pub segment_bytes: u64,
    pub now_ms: u64,
    /// Raw / stored bytes that the current parameters are expected to reach; 0 = unknown.
    pub expected_ratio: f64,
    /// Segments with a lower number were begun before the current parameters were chosen.
    pub parameters_since: u64,
}

/// Share of the sealed segments' record bytes that a compaction would give back, what storing live records anew would
/// save included.
pub(in crate::cache::tier::cold) fn reclaimable_ratio(
    accounts: &[AccountView],
    circumstances: &Circumstances,
) -> f64 {
    let sealed = || accounts.iter().filter(|account| account.sealed);
    let bytes: u64 = sealed().map(|account| account.summary.record_bytes()).sum();
    let reclaimable = |account: &AccountView| {
        let saved = if wants_recompression(account, circumstances) {
            account.live_bytes() as f64 * (1.0 - ratio_of(account) / circumstances.expected_ratio)
        } else {
            0.0
        };
        account.reclaimable_bytes() as f64 + saved
    };
    sealed().map(reclaimable).sum::<f64>() / bytes.max(1) as f64
}

fn ratio_of(account: &AccountView) -> f64 {
    account.summary.raw_bytes as f64 / account.summary.payload_bytes.max(1) as f64
}

/// The segments to compact, in rounds that are committed one by one, most rewarding first.
pub(in crate::cache::tier::cold) fn choose_victims(
    accounts: &[AccountView],
    trigger: Trigger,
    circumstances: &Circumstances,
) -> Vec<Vec<Victim>> {
    let newest = accounts.iter().map(|account| account.identity.segment_id).max().unwrap_or(0);
    let least = match trigger {
        Trigger::Requested => REQUESTED_RATIO,
        // Below half of the trigger a segment waits: more of it will die.
        Trigger::Automatic { dead_ratio_max } => dead_ratio_max / 2.0,
    };
    let mut victims: Vec<Victim> = accounts
        .iter()
        .filter(|account| account.sealed)
        .map(|account| Victim { account: *account, recompress: wants_recompression(account, circumstances) })
        .collect();
    let small = |victim: &Victim| is_small(&victim.account, circumstances.segment_bytes);
    let merge_small = victims.iter().filter(|victim| small(victim)).count() >= SMALL_SEGMENTS;
    victims.retain(|victim| {
        let account = &victim.account;
        let ratio = account.reclaimable_bytes() as f64 / account.summary.record_bytes().max(1) as f64;
        let expired = trigger == Trigger::Requested && account.next_expiry_ms <= circumstances.now_ms;
        ratio >= least || expired || victim.recompress || (merge_small && small(victim))
    });
    // Benefit x age over cost (Rosenblum & Ousterhout, "The design and implementation of a log-structured file
    // system", 1992, section 3.5): what is old has had its chance to die.
    victims.sort_by(|a, b| benefit(b, newest).total_cmp(&benefit(a, newest)));
    into_rounds(victims, ROUND_SEGMENTS * circumstances.segment_bytes)
}

fn is_small(account: &AccountView, segment_bytes: u64) -> bool {
    account.sealed && (account.summary.record_bytes() as f64) < SMALL_SHARE * segment_bytes as f64
}

fn benefit(victim: &Victim, newest: u64) -> f64 {
    let account = &victim.account;
    let age = (newest - account.identity.segment_id + 1) as f64;
    account.reclaimable_bytes() as f64 * age / (account.live_bytes() + 1) as f64
}

/// Recompression pays where the segment's ratio is behind the expected one; once only, whatever comes of it.
fn wants_recompression(account: &AccountView, circumstances: &Circumstances) -> bool {
    let summary = &account.summary;
    if account.identity.segment_id >= circumstances.parameters_since || summary.payload_bytes == 0 {
        return false;
    }
    circumstances.expected_ratio > ratio_of(account) * RECOMPRESSION_GAIN
}

fn into_rounds(victims: Vec<Victim>, round_bytes: u64) -> Vec<Vec<Victim>> {
    let mut rounds: Vec<Vec<Victim>> = Vec::new();
    let mut bytes = 0;
    for victim in victims {
        let victim_bytes = victim.account.summary.record_bytes();
        match rounds.last_mut() {
            Some(round) if bytes + victim_bytes <= round_bytes => {
                round.push(victim);
                bytes += victim_bytes;
            }
            _ => {
                rounds.push(vec![victim]);
                bytes = victim_bytes;
            }
        }
    }
    // Within a round, in the order of writing: entries that were written together stay together.
    for round in &mut rounds {
        round.sort_by_key(|victim| victim.account.identity.segment_id);
    }
    rounds
}

/// What automatic maintenance looks at.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache::tier::cold) struct Pulse {
    pub circumstances: Circumstances,
    /// Entries in the index.
    pub entries: u64,
    /// Raw bytes inserted since the last tuning.
    pub raw_bytes_since_tuning: u64,
    /// Raw bytes of live entries.
    pub live_raw_bytes: u64,
    /// Records appended since the last snapshot.
    pub records_since_snapshot: u64,
    /// Bytes of the kept snapshots.
    pub snapshot_bytes: u64,
    /// Reclaimable share found, and left, by the last automatic compaction: what it could not give back.
    pub stuck_ratio: f64,
}

/// A task that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache::tier::cold) enum Due {
    Expiry,
    Compaction,
    Tuning,
    Snapshot,
}

/// Entries below which there is nothing to measure.
pub(in crate::cache::tier::cold) const TUNING_ENTRIES_MIN: u64 = 100;
/// A snapshot is written when this many records have come since the last one, and at least a quarter of the index:
/// it keeps a restart after a crash short.
const SNAPSHOT_RECORDS: u64 = 200_000;

/// Snapshots up to this size are not worth writing anew.
const STALE_SNAPSHOT_BYTES: u64 = 256 << 10;

/// What to do next, most urgent first; `None` if all is well.
pub(in crate::cache::tier::cold) fn choose_task(
    accounts: &[AccountView],
    pulse: &Pulse,
    dead_ratio_max: f64,
    retune_ratio: f64,
    tuned: bool,
) -> Option<Due> {
    if accounts.iter().any(|account| account.next_expiry_ms <= pulse.circumstances.now_ms) {
        return Some(Due::Expiry);
    }
    let ratio = reclaimable_ratio(accounts, &pulse.circumstances);
    if ratio > dead_ratio_max && ratio > pulse.stuck_ratio + 0.01 {
        return Some(Due::Compaction);
    }
    let small =
        accounts.iter().filter(|account| is_small(account, pulse.circumstances.segment_bytes)).count();
    if small >= SMALL_SEGMENTS_DUE {
        return Some(Due::Compaction);
    }
    let changed = pulse.raw_bytes_since_tuning as f64 > retune_ratio * pulse.live_raw_bytes as f64;
    if tuned && changed && pulse.entries >= TUNING_ENTRIES_MIN {
        return Some(Due::Tuning);
    }
    let snapshot_after = SNAPSHOT_RECORDS.max(pulse.entries / 4);
    // Snapshots of what the store held once: twice what two new ones would take.
    let outgrown = pulse.snapshot_bytes > STALE_SNAPSHOT_BYTES + 4 * SNAPSHOT_ENTRY_BYTES * pulse.entries;
    (pulse.records_since_snapshot > snapshot_after || outgrown).then_some(Due::Snapshot)
}
