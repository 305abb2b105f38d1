//! Which segments to compact, which to evict from, and what to do on one's own: decisions only. They look at accounts
//! and touch nothing.

use std::collections::BTreeMap;

use super::saved_index::SNAPSHOT_ENTRY_BYTES;
use crate::cache::tier::cold::core::slab::AccountView;
use crate::cache::tier::cold::groups::EXPIRING;
use crate::cache::tier::cold::ledger::{BLOCK_BYTES, in_blocks};
use crate::cache::tier::cold::serialization::segment::LogKind;

/// A segment that holds less than this share of a full one is worth merging, if there are enough of them.
const SMALL_SHARE: f64 = 0.25;
/// That many small segments are merged when a compaction runs,
const SMALL_SEGMENTS: usize = 4;
/// and that many (each start and each roll on demand may leave one) make one due.
const SMALL_SEGMENTS_DUE: usize = 16;
/// Asked for by hand, compaction takes every segment of which it can give this share back.
const REQUESTED_RATIO: f64 = 0.02;
/// Stored anew, a segment must shrink by this share to be worth the CPU time.
const RECOMPRESSION_PERCENT: u8 = 10;
/// Victims of one commit hold at most this many segments' bytes.
const ROUND_SEGMENTS: u64 = 16;
/// By itself, a compaction moves this many segments' live bytes in one commit: outputs come out full, and whatever is
/// more urgent does not wait long.
const ROUND_LIVE_SEGMENTS: u64 = 1;
/// What expires within this time is left to die: moving it would be paid for and lost.
const DYING_MS: u64 = 3600 * 1000;
/// The high trigger lies at this part of the way from the low one to everything.
const HIGH_TRIGGER_SHARE: f64 = 0.33;
/// Active segments are rolled for the garbage in them when they hold this part of a full segment of it.
const ROLL_SHARE: f64 = 0.125;

/// Why a compaction runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cache::tier::cold) enum Trigger {
    /// Somebody asked: take whatever pays.
    Requested,
    /// By itself, because it is due: at its own pace.
    Automatic,
    /// Because it is due, and somebody waits for it.
    Awaited,
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
    pub capacity_bytes: u64,
    pub now_ms: u64,
    /// How far the store has come, in sequence numbers.
    pub sequence: u64,
    /// `ColdTierConfig::dead_ratio_max`: the low trigger.
    pub dead_ratio_max: f64,
    /// The snapshot reflects all operations up to this sequence number.
    pub covered: u64,
    /// Segments with a lower number were begun before the current parameters were chosen.
    pub parameters_since: u64,
    /// Nobody uses the store at the moment.
    pub is_idle: bool,
}

impl Circumstances {
    /// Share of garbage beyond which everything is collected, whatever it costs.
    pub fn high_trigger(&self) -> f64 {
        self.dead_ratio_max + (1.0 - self.dead_ratio_max) * HIGH_TRIGGER_SHARE
    }

    /// Whether what storing a segment anew saves has to be measured before it can be decided.
    pub fn wants_measuring(&self, account: &AccountView) -> bool {
        self.is_older_than_parameters(account) && account.saving_percent.is_none()
    }

    fn is_older_than_parameters(&self, account: &AccountView) -> bool {
        account.sealed && account.identity.segment_id < self.parameters_since
    }

    /// Whether all of a segment dies soon by itself.
    fn is_dying(&self, account: &AccountView) -> bool {
        let summary = &account.summary;
        summary.unexpiring == 0 && summary.expiry_max_ms <= self.now_ms + DYING_MS
    }

    /// Whether nothing in the segment is in force, and it can go without being copied or remembered: what it hides is
    /// covered, or hidden by the records that took its records' places.
    fn is_free(&self, account: &AccountView) -> bool {
        let summary = &account.summary;
        // A cleanup that was stopped leaves segments behind in which everything has expired.
        let is_over = summary.unexpiring == 0 && summary.expiry_max_ms <= self.now_ms;
        let hidden = if is_over { summary.exposing_max } else { summary.shadow_max };
        let hides_nothing = is_replaced(account) || hidden <= self.covered;
        account.sealed && account.live_records() == 0 && hides_nothing
    }

    /// Whether nothing in the segment is in force, and all the same it cannot go: what it hides is not covered. Moving
    /// it would give nothing back.
    pub fn is_waiting(&self, account: &AccountView) -> bool {
        account.sealed && account.live_records() == 0 && !self.is_free(account)
    }

    /// Whether all of the segment has expired, and it stays only for what it hides: that is moved out, key by key, which
    /// costs a fraction of a snapshot.
    fn is_spent(&self, account: &AccountView) -> bool {
        let summary = &account.summary;
        let expired = summary.unexpiring == 0 && summary.expiry_max_ms <= self.now_ms;
        account.sealed && expired && account.live_records() == 0 && !self.is_free(account)
    }

    /// Bytes that a compaction has reason to give back before they go by themselves: what has expired among records
    /// that all expire goes with them.
    fn worthwhile_bytes(&self, account: &AccountView) -> u64 {
        match account.summary.unexpiring {
            0 if self.is_dying(account) => 0,
            0 => account.dead_bytes.min(account.reclaimable_bytes()),
            _ => account.reclaimable_bytes(),
        }
    }
}

/// How much of the segment files is garbage, the active segments included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::cache::tier::cold) struct Garbage {
    /// What is worth collecting before it goes by itself, storing outdated records anew included.
    pub worthwhile_share: f64,
    /// Everything.
    pub share: f64,
}

impl Garbage {
    pub fn of(accounts: &[AccountView], circumstances: &Circumstances) -> Self {
        let saved = |account: &AccountView| {
            if !wants_recompression(account, circumstances) {
                return 0.0;
            }
            saving_bytes(account)
        };
        // One pass: this is asked at every look.
        let (mut bytes, mut worthwhile, mut reclaimable) = (0.0, 0.0, 0.0);
        for account in accounts {
            bytes += account.summary.record_bytes() as f64;
            worthwhile += circumstances.worthwhile_bytes(account) as f64 + saved(account);
            reclaimable += account.reclaimable_bytes() as f64;
        }
        let bytes = f64::max(bytes, 1.0);
        Self { worthwhile_share: worthwhile / bytes, share: reclaimable / bytes }
    }

    /// Everything, or what is worth collecting if that is more.
    pub fn any_share(&self) -> f64 {
        self.share.max(self.worthwhile_share)
    }

    /// Whether a compaction is due.
    fn is_due(&self, circumstances: &Circumstances) -> bool {
        self.worthwhile_share > circumstances.dead_ratio_max || self.is_high(circumstances)
    }

    /// Whether it is beyond the high trigger.
    pub fn is_high(&self, circumstances: &Circumstances) -> bool {
        self.share > circumstances.high_trigger()
    }
}

/// Whether every record of a segment was replaced: what replaced it hides what it hid, so no snapshot is needed.
pub(in crate::cache::tier::cold) fn is_replaced(account: &AccountView) -> bool {
    account.live_records() == 0 && account.summary.tombstones == 0 && account.expired_records == 0
}

/// Bytes that storing a segment anew saves.
fn saving_bytes(account: &AccountView) -> f64 {
    account.live_bytes() as f64 * f64::from(account.saving_percent.unwrap_or(0)) / 100.0
}

/// The victims of the next commit of a compaction that runs by itself; none if nothing is due.
pub(in crate::cache::tier::cold) fn choose_round(
    accounts: &[AccountView],
    circumstances: &Circumstances,
) -> Vec<Victim> {
    let free: Vec<Victim> = accounts
        .iter()
        .filter(|account| circumstances.is_free(account))
        .map(|account| Victim { account: *account, recompress: false })
        .collect();
    if !free.is_empty() {
        return free;
    }
    if wants_sweep(accounts, circumstances) {
        let spent = sealed(accounts, circumstances).filter(|victim| circumstances.is_spent(&victim.account));
        let spent: Vec<Victim> = spent.collect();
        return take_round(spent, u64::MAX, circumstances.segment_bytes);
    }
    let garbage = Garbage::of(accounts, circumstances);
    let mut victims: Vec<Victim>;
    if garbage.is_due(circumstances) {
        let high = garbage.is_high(circumstances);
        let is_worth = |victim: &Victim| {
            let bytes = match high {
                true => victim.account.reclaimable_bytes(),
                false => circumstances.worthwhile_bytes(&victim.account),
            };
            bytes > 0 || victim.recompress
        };
        victims = sealed(accounts, circumstances).filter(is_worth).collect();
        victims.sort_by(|a, b| score(b, circumstances).total_cmp(&score(a, circumstances)));
        // Records of one kind and class: so their output is of one class too, and comes out full.
        if let Some(first) = victims.first().map(kind_of) {
            victims.retain(|victim| kind_of(victim) == first);
        }
    } else if circumstances.is_idle && wants_renewal(accounts, circumstances) {
        victims = sealed(accounts, circumstances).filter(|victim| victim.recompress).collect();
        victims.sort_by(|a, b| score(b, circumstances).total_cmp(&score(a, circumstances)));
    } else {
        let small = |account: &&AccountView| circumstances.is_mergeable(account);
        // Counted before any is copied: this is asked at every look, and hardly ever so.
        if accounts.iter().filter(small).count() < SMALL_SEGMENTS_DUE {
            return Vec::new();
        }
        victims = sealed(accounts, circumstances).filter(|victim| small(&&victim.account)).collect();
        // Of the kind that there is most of: of many kinds as many segments could come out, to be merged again and again. Of
        // one kind they are fewer, or of an older class, which comes to an end.
        let mut counts: BTreeMap<(LogKind, u8), usize> = BTreeMap::new();
        victims.iter().for_each(|victim| *counts.entry(kind_of(victim)).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(kind, _)| kind);
        victims.retain(|victim| Some(kind_of(victim)) == most);
    }
    take_round(victims, ROUND_LIVE_SEGMENTS * circumstances.segment_bytes, circumstances.segment_bytes)
}

fn sealed<'a>(
    accounts: &'a [AccountView],
    circumstances: &'a Circumstances,
) -> impl Iterator<Item = Victim> + 'a {
    let victim = |account: &AccountView| Victim {
        account: *account,
        recompress: wants_recompression(account, circumstances),
    };
    accounts.iter().filter(|account| account.sealed).map(victim)
}

/// Victims from the front until their live bytes fill the outputs, in the order of writing: entries that were written
/// together stay together.
fn take_round(victims: Vec<Victim>, live_bytes_max: u64, segment_bytes: u64) -> Vec<Victim> {
    let (mut live_bytes, mut bytes) = (0, 0);
    let mut round = Vec::new();
    for victim in victims {
        live_bytes += victim.account.live_bytes();
        bytes += victim.account.summary.record_bytes();
        if !round.is_empty() && (live_bytes > live_bytes_max || bytes > ROUND_SEGMENTS * segment_bytes) {
            break;
        }
        round.push(victim);
    }
    round.sort_by_key(|victim| victim.account.identity.segment_id);
    round
}

/// All segments that a compaction asked for takes, in rounds that are committed one by one, most rewarding first.
pub(in crate::cache::tier::cold) fn choose_all(
    accounts: &[AccountView],
    circumstances: &Circumstances,
) -> Vec<Vec<Victim>> {
    let mut victims: Vec<Victim> = sealed(accounts, circumstances).collect();
    for victim in &mut victims {
        // Asked for, what dies soon is stored anew as well.
        victim.recompress = is_outdated(&victim.account, circumstances);
    }
    let small = |victim: &Victim| is_small(&victim.account, circumstances.segment_bytes);
    let merge_small = victims.iter().filter(|victim| small(victim)).count() >= SMALL_SEGMENTS;
    victims.retain(|victim| {
        let account = &victim.account;
        let ratio = account.reclaimable_bytes() as f64 / account.summary.record_bytes().max(1) as f64;
        let expired = account.next_expiry_ms <= circumstances.now_ms;
        ratio >= REQUESTED_RATIO || expired || victim.recompress || (merge_small && small(victim))
    });
    victims.sort_by(|a, b| score(b, circumstances).total_cmp(&score(a, circumstances)));
    into_rounds(victims, ROUND_SEGMENTS * circumstances.segment_bytes)
}

/// Segments that are not half full, if putting them together makes fewer of them: what the rounds of a compaction asked
/// for leave behind.
pub(in crate::cache::tier::cold) fn choose_merger(
    accounts: &[AccountView],
    circumstances: &Circumstances,
) -> Vec<Victim> {
    let half = circumstances.segment_bytes / 2;
    let part_full = |victim: &Victim| victim.account.summary.record_bytes() <= half;
    let victims: Vec<Victim> = sealed(accounts, circumstances).filter(part_full).collect();
    let bytes: u64 = victims.iter().map(|victim| victim.account.summary.record_bytes()).sum();
    if victims.len() as u64 <= bytes.div_ceil(circumstances.segment_bytes) + 1 {
        return Vec::new();
    }
    take_round(victims, ROUND_SEGMENTS * circumstances.segment_bytes, circumstances.segment_bytes)
}

fn is_small(account: &AccountView, segment_bytes: u64) -> bool {
    account.sealed && (account.summary.record_bytes() as f64) < SMALL_SHARE * segment_bytes as f64
}

impl Circumstances {
    /// Small, and not going to die by itself in a while.
    fn is_mergeable(&self, account: &AccountView) -> bool {
        is_small(account, self.segment_bytes) && account.summary.unexpiring > 0
    }
}

/// Log and class of a victim.
fn kind_of(victim: &Victim) -> (LogKind, u8) {
    (victim.account.identity.log, class_of(&victim.account))
}

/// Group of the segment's lasting records; one for all that expire.
fn class_of(account: &AccountView) -> u8 {
    account.identity.group.min(EXPIRING)
}

/// What a victim gives for what it costs: how much better it is to collect it now than later.
///
/// `age x ((1 - u) / (u x -ln u) - 1)`, u the live share and age the time since the segment was completed. For a group of
/// segments that are collected in turn, and whose records die at one rate, this is where one byte copied frees the same
/// space in each group: it weighs hot groups against cold ones as Rosenblum and Ousterhout's benefit-to-cost does
/// ("The design and implementation of a log-structured file system", 1992, section 3.5), and measured better.
fn score(victim: &Victim, circumstances: &Circumstances) -> f64 {
    let account = &victim.account;
    let gain = match victim.recompress {
        true => saving_bytes(account),
        false => 0.0,
    };
    let live = (account.live_bytes() as f64 - gain) / account.summary.record_bytes().max(1) as f64;
    let live = live.clamp(1e-4, 1.0 - 1e-4);
    let age = (circumstances.sequence.saturating_sub(account.sealed_at) + 1) as f64;
    age * ((1.0 - live) / (live * -live.ln()) - 1.0)
}

/// Recompression pays where the segment is not going to die soon.
fn wants_recompression(account: &AccountView, circumstances: &Circumstances) -> bool {
    is_outdated(account, circumstances) && !circumstances.is_dying(account)
}

/// Whether the segment is older than the parameters, and gains by them; once only, whatever comes of it.
fn is_outdated(account: &AccountView, circumstances: &Circumstances) -> bool {
    circumstances.is_older_than_parameters(account)
        && account.saving_percent.is_some_and(|percent| percent >= RECOMPRESSION_PERCENT)
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
    for round in &mut rounds {
        round.sort_by_key(|victim| victim.account.identity.segment_id);
    }
    rounds
}

/// The segments to evict from next: one that is mostly dead, otherwise the oldest fresh ones while fresh segments take
/// more than their share, otherwise the oldest ones of survivors: a probation queue and a main one (after Yang et al.:
/// "FIFO queues are all you need for cache eviction", SOSP 2023).
pub(in crate::cache::tier::cold) fn choose_evictions(
    accounts: &[AccountView],
    circumstances: &Circumstances,
) -> Vec<Victim> {
    let live_share = |victim: &Victim| {
        victim.account.live_bytes() as f64 / victim.account.summary.record_bytes().max(1) as f64
    };
    let victims = || sealed(accounts, circumstances);
    let emptiest = victims().min_by(|a, b| live_share(a).total_cmp(&live_share(b)));
    if let Some(emptiest) = emptiest.filter(|victim| live_share(victim) < EVICTION_DEAD_FIRST) {
        return vec![emptiest];
    }
    // Accounts come in the order of the segments' numbers: oldest first.
    let of_log = |log: LogKind| victims().filter(move |victim| victim.account.identity.log == log);
    let fresh: u64 = of_log(LogKind::Fresh).map(|victim| victim.account.summary.record_bytes()).sum();
    let fresh_is_over = fresh as f64 > FRESH_SHARE * circumstances.capacity_bytes as f64;
    let log = match fresh_is_over || of_log(LogKind::Survivors).next().is_none() {
        true => LogKind::Fresh,
        false => LogKind::Survivors,
    };
    let enough = EVICTION_SEGMENTS * circumstances.segment_bytes;
    let mut bytes = 0;
    let fits = |victim: &Victim| {
        let before = bytes;
        bytes += victim.account.summary.record_bytes();
        before == 0 || bytes <= enough
    };
    of_log(log).take_while(fits).collect()
}

/// Segments' bytes evicted from at once: what is copied of them fills the better part of an output.
const EVICTION_SEGMENTS: u64 = 4;
/// At capacity a segment with less than this share in force is emptied first.
const EVICTION_DEAD_FIRST: f64 = 0.5;
/// Fresh segments' share of the capacity: the time an entry has to show that it is read.
const FRESH_SHARE: f64 = 0.15;

/// Whether so much garbage lies in active segments that they should be sealed to get at it.
pub(in crate::cache::tier::cold) fn wants_roll(
    accounts: &[AccountView],
    circumstances: &Circumstances,
) -> bool {
    let active = accounts.iter().filter(|account| !account.sealed);
    let garbage: u64 = active.map(AccountView::reclaimable_bytes).sum();
    garbage as f64 > ROLL_SHARE * circumstances.segment_bytes as f64
        && Garbage::of(accounts, circumstances).is_due(circumstances)
}

/// When a cleanup that runs by itself looks into a segment. One in which everything expires is left until all has,
/// with a look in between if the times are far apart: each look reads the footer.
pub(in crate::cache::tier::cold) fn cleanup_due_ms(account: &AccountView) -> u64 {
    let summary = &account.summary;
    if account.next_expiry_ms == u64::MAX {
        return u64::MAX;
    }
    let spread_ms = summary.expiry_max_ms.saturating_sub(account.next_expiry_ms);
    match summary.unexpiring {
        0 => account.next_expiry_ms + if spread_ms > LOOK_MS { spread_ms / 2 } else { spread_ms },
        _ => account.next_expiry_ms + (spread_ms / 8).max(LOOK_MS.min(spread_ms)),
    }
}

/// Looks into a segment are at least this far apart.
const LOOK_MS: u64 = 60_000;

/// What automatic maintenance looks at.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache::tier::cold) struct Pulse {
    pub circumstances: Circumstances,
    /// Entries in the index.
    pub entries: u64,
    /// Shadows in the index: the snapshot holds them too.
    pub shadows: u64,
    /// Raw bytes inserted since the last tuning.
    pub raw_bytes_since_tuning: u64,
    /// Raw bytes of live entries.
    pub live_raw_bytes: u64,
    /// `ColdTierConfig::retune_ratio`; `None` if the codec is fixed.
    pub retune_ratio: Option<f64>,
    /// The parameters in force were found by a brief look.
    pub is_provisional: bool,
    /// The last tuning has taken its share of time for now.
    pub tuning_rests: bool,
    /// Records appended since the last snapshot.
    pub records_since_snapshot: u64,
    /// Bytes of the snapshot.
    pub snapshot_bytes: u64,
    /// It is damaged, and its parity made up for that.
    pub is_snapshot_worn: bool,
    /// Compactions that ran by themselves since another task did.
    pub compactions_in_a_row: u32,
    /// The last task that ran by itself was a cleanup.
    pub is_after_cleanup: bool,
    /// Garbage found, and left, by the last automatic compaction: what it could not give back. 0 = it could.
    pub stuck_share: f64,
}

/// A task that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache::tier::cold) enum Due {
    Expiry,
    Compaction,
    Tuning,
    Snapshot,
}

/// After so many compactions, what else is due comes first.
const COMPACTIONS_IN_A_ROW: u32 = 16;
/// Entries below which there is nothing to measure.
const TUNING_ENTRIES_MIN: u64 = 100;
/// Records between two snapshots, at least.
const SNAPSHOT_RECORDS: u64 = 200_000;
/// A snapshot smaller than this is never too large.
const STALE_SNAPSHOT_BYTES: u64 = 256 << 10;

/// The most urgent task that is due. None keeps the others waiting for ever: a cleanup may be due again as soon as it has
/// ended, so something else comes behind it; a compaction is one commit at a time, and after some in a row, tuning and
/// snapshots have their turn.
pub(in crate::cache::tier::cold) fn choose_task(accounts: &[AccountView], pulse: &Pulse) -> Option<Due> {
    let circumstances = &pulse.circumstances;
    let is_expiry_due = accounts.iter().any(|account| cleanup_due_ms(account) <= circumstances.now_ms);
    let expiry = is_expiry_due.then_some(Due::Expiry);
    let compaction = || is_compaction_due(accounts, pulse).then_some(Due::Compaction);
    // What is stored anew before a tuning that may as well come now is stored anew once more behind it.
    let tuning_first = pulse.is_provisional && circumstances.is_idle;
    let others = || match pulse.compactions_in_a_row < COMPACTIONS_IN_A_ROW && !tuning_first {
        true => compaction().or_else(|| choose_other(pulse)),
        false => choose_other(pulse).or_else(compaction),
    };
    if pulse.is_after_cleanup { others().or(expiry) } else { expiry.or_else(others) }
}

fn is_compaction_due(accounts: &[AccountView], pulse: &Pulse) -> bool {
    let circumstances = &pulse.circumstances;
    let garbage = Garbage::of(accounts, circumstances);
    // What was left lately is not tried again at once, however little it is.
    let tried = pulse.stuck_share > 0.0;
    let stuck = tried && garbage.any_share() <= pulse.stuck_share + 0.01;
    (!stuck && wants_roll(accounts, circumstances))
        || wants_sweep(accounts, circumstances)
        || accounts.iter().any(|account| circumstances.is_free(account))
        || (!stuck && !choose_round(accounts, circumstances).is_empty())
        || (!garbage.is_due(circumstances) && wants_merger(accounts, circumstances))
}

/// Whether the segments that stay only for what they hide take more than the block that remembering it takes. Each of
/// them is swept once, whatever it gives back: what hid in it lasts from then on.
fn wants_sweep(accounts: &[AccountView], circumstances: &Circumstances) -> bool {
    let spent = accounts.iter().filter(|account| circumstances.is_spent(account));
    spent.map(|account| in_blocks(account.summary.file_bytes)).sum::<u64>() > BLOCK_BYTES
}

/// Whether there are segments that are worth storing anew: while nobody uses the store that is done below the triggers too,
/// since each gains by it once and for all. Garbage waits: the more of it, the less is copied for it.
fn wants_renewal(accounts: &[AccountView], circumstances: &Circumstances) -> bool {
    accounts.iter().any(|account| wants_recompression(account, circumstances))
}

/// Whether there are so many small segments that they are worth merging.
fn wants_merger(accounts: &[AccountView], circumstances: &Circumstances) -> bool {
    accounts.iter().filter(|account| circumstances.is_mergeable(account)).count() >= SMALL_SEGMENTS_DUE
}

/// Whether there is something to do as soon as nobody uses the store.
pub(in crate::cache::tier::cold) fn wants_quiet(accounts: &[AccountView], pulse: &Pulse) -> bool {
    !pulse.circumstances.is_idle && (pulse.is_provisional || wants_renewal(accounts, &pulse.circumstances))
}

fn choose_other(pulse: &Pulse) -> Option<Due> {
    let changed = |ratio: f64| pulse.raw_bytes_since_tuning as f64 > ratio * pulse.live_raw_bytes as f64;
    let wanted = |ratio: f64| changed(ratio) || pulse.is_provisional;
    let is_wanted = pulse.retune_ratio.is_some_and(wanted) && pulse.entries >= TUNING_ENTRIES_MIN;
    if is_wanted && !pulse.tuning_rests {
        return Some(Due::Tuning);
    }
    let snapshot_after = SNAPSHOT_RECORDS.max(pulse.entries / 4);
    // A snapshot of what the store held once: twice what a new one would take.
    let entries = pulse.entries + pulse.shadows;
    let outgrown = pulse.snapshot_bytes > STALE_SNAPSHOT_BYTES + 2 * SNAPSHOT_ENTRY_BYTES * entries;
    let is_due = pulse.records_since_snapshot > snapshot_after || outgrown || pulse.is_snapshot_worn;
    is_due.then_some(Due::Snapshot)
}
