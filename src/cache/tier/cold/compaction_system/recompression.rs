//! Whether storing a segment anew pays: measured on some of its records, once for each change of the parameters.
//!
//! What the parameters promise for the whole store says little about one segment: most of the bytes may be of values
//! that nothing shrinks, and the segment of others. So its own records are stored anew, in memory, and compared.

use super::CompactionSystem;
use super::files::rows_of;
use super::relocation::{is_in_force, stored_anew};
use crate::cache::tier::cold::core::names;
use crate::cache::tier::cold::core::segment::{decode_record, read_record, row_bytes};
use crate::cache::tier::cold::core::slab::AccountView;
use crate::cache::tier::cold::metadata_index::{EntryId, Location};
use crate::cache::tier::cold::serialization::footer::FooterRow;
use crate::cache::tier::cold::serialization::record::RecordMeta;
use crate::cache::tier::cold::shared::Shared;
use crate::clock::Clock;
use crate::error::Result;
use crate::io::Disk;

/// Places of a segment looked at, and how many raw bytes their records may have together; four are looked at in any
/// case.
const PLACES: u64 = 32;
const RAW_BYTES_MAX: u64 = 1 << 20;
const PLACES_MIN: u64 = 4;

impl CompactionSystem {
    /// Measures segments that are older than the parameters in force, so many at most.
    ///
    /// # Errors
    /// When the task is stopped, or the operating system refuses to read.
    pub(in crate::cache::tier::cold) fn measure_outdated<D: Disk, C: Clock>(
        &self,
        shared: &Shared<D, C>,
        segments_max: usize,
    ) -> Result<()> {
        let circumstances = self.circumstances(shared);
        let mut accounts = self.accounts(shared);
        accounts.retain(|account| circumstances.wants_measuring(account));
        for account in accounts.iter().take(segments_max) {
            self.check_stop(shared)?;
            let percent = saving_percent(shared, account)?;
            shared.slab.note_saving(account.slot, percent);
            tracing::debug!(segment = account.identity.segment_id, percent, "stored anew on trial");
        }
        Ok(())
    }
}

/// Share of a segment's live bytes that storing them anew saves; 0 if it cannot be read.
///
/// Records are picked at even distances in bytes, so each with a probability in proportion to its length: the mean of
/// their ratios is then that of the segment (Hansen and Hurwitz, "On the theory of sampling from finite populations",
/// 1943), however uneven its records are. What is dead is passed over, and more are picked for it: asking the index
/// for every record took 10 ms a segment instead of 2.
fn saving_percent<D: Disk, C: Clock>(shared: &Shared<D, C>, account: &AccountView) -> Result<u8> {
    if account.live_bytes() == 0 {
        return Ok(0);
    }
    let Some(found) = rows_of(shared, account)? else { return Ok(0) };
    let bytes_of = |at: usize| row_bytes(&found.rows, at, found.records_end) as u64;
    let bytes: u64 = (0..found.rows.len()).map(bytes_of).sum();
    let raw_mean = account.summary.raw_bytes / u64::from(account.summary.records).max(1);
    let wanted = (RAW_BYTES_MAX / raw_mean.max(1)).clamp(PLACES_MIN, PLACES);
    let places = (wanted * account.summary.record_bytes()).div_ceil(account.live_bytes());
    let path = names::segment(&shared.config.dir, account.identity.segment_id);
    let Ok(file) = shared.disk.open_read(&path) else { return Ok(0) };
    let mut trial = SegmentTrial { shared, account, file, buffer: Vec::new(), raw: Vec::new() };
    let (mut passed, mut place, mut measured, mut share) = (0, 0, 0, 0.0);
    for (at, row) in found.rows.iter().enumerate() {
        passed += bytes_of(at);
        // How many of the places, in the middle of equal parts, lie in this record.
        let before = std::mem::replace(&mut place, (2 * places * passed).div_ceil(bytes) / 2);
        if place > before
            && let Some(ratio) = trial.ratio_anew(row, bytes_of(at) as usize)
        {
            share += (place - before) as f64 * ratio;
            measured += place - before;
        }
    }
    if measured == 0 {
        return Ok(0);
    }
    Ok((100.0 * (1.0 - share / measured as f64)).clamp(0.0, 100.0) as u8)
}

/// A segment whose records are stored anew, in memory.
struct SegmentTrial<'a, D: Disk, C: Clock> {
    shared: &'a Shared<D, C>,
    account: &'a AccountView,
    file: D::File,
    buffer: Vec<u8>,
    raw: Vec<u8>,
}

impl<D: Disk, C: Clock> SegmentTrial<'_, D, C> {
    /// What a record takes when it is stored anew, of what it takes now; `None` if it is not live or cannot be read: what
    /// is damaged is met when it is moved.
    fn ratio_anew(&mut self, row: &FooterRow, hint: usize) -> Option<f64> {
        let Self { shared, account, file, buffer, raw } = self;
        let entry = shared.index.get(EntryId::of(row.hash))?;
        if entry.location != (Location { slot: account.slot, offset: row.offset }) || entry.is_shadow() {
            return None;
        }
        let identity = &account.identity;
        let record = read_record(file, identity, row.offset, hint, buffer, &shared.dictionaries).ok()?;
        if is_in_force(shared, &record.meta) {
            return Some(1.0);
        }
        let end = record.meta.stored_range().end;
        decode_record(&record.meta, &mut buffer[..end], &shared.dictionaries, raw).ok()?;
        let (encoded, _) = stored_anew(shared, record.meta.key_len, raw);
        let anew = RecordMeta { stored_len: encoded.stored.len() as u32, ..record.meta };
        Some(anew.record_bytes() as f64 / record.meta.record_bytes() as f64)
    }
}
