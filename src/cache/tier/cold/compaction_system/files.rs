//! What the tasks share: a segment's rows, and how files and index entries go.

use super::pacer::letting_in;
use crate::cache::tier::cold::core::manifest::replace_file;
use crate::cache::tier::cold::core::recovery::is_damage;
use crate::cache::tier::cold::core::segment::{ReadError, read_footer, scan_records};
use crate::cache::tier::cold::core::slab::AccountView;
use crate::cache::tier::cold::core::{manifest, names};
use crate::cache::tier::cold::ledger::in_blocks;
use crate::cache::tier::cold::metadata_index::{EntryId, Location, PARTITIONS};
use crate::cache::tier::cold::serialization::footer::FooterRow;
use crate::cache::tier::cold::shared::Shared;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::io::{Disk, DiskFile};

/// A segment's rows, from its footer or, where that is damaged, from its records.
pub(super) struct Rows {
    pub rows: Vec<FooterRow>,
    pub records_end: u64,
    /// Records are known to be lost.
    pub lost: bool,
    pub from_records: bool,
}

impl Rows {
    /// Of a segment that cannot be read.
    pub(super) fn unknown() -> Self {
        Self { rows: Vec::new(), records_end: 0, lost: true, from_records: false }
    }
}

/// A sealed segment's rows; `None` if its file is gone or the medium does not give it back: one lost segment must not
/// keep the tasks from the others.
///
/// # Errors
/// When the operating system refuses.
pub(super) fn rows_of<D: Disk, C: Clock>(
    shared: &Shared<D, C>,
    account: &AccountView,
) -> Result<Option<Rows>> {
    let identity = &account.identity;
    let path = names::segment(&shared.config.dir, identity.segment_id);
    let gone = |error: std::io::Error| {
        if !is_damage(&error) {
            return Err(Error::io("read", &path, error));
        }
        tracing::warn!(path = %path.display(), %error, "segment left out");
        Ok(None)
    };
    let file = match shared.disk.open_read(&path) {
        Ok(file) => file,
        Err(error) => return gone(error),
    };
    match read_footer(&file, identity) {
        Ok((summary, rows)) => {
            let records_end = summary.records_end;
            return Ok(Some(Rows { rows, records_end, lost: false, from_records: false }));
        }
        Err(ReadError::Io(error)) => return gone(error),
        Err(ReadError::Damaged(problem)) => {
            tracing::warn!(path = %path.display(), %problem, "footer damaged; its records are read instead");
        }
    }
    let scan = match scan_records(&file, identity, shared.hash_seed, &shared.dictionaries) {
        Ok(scan) => scan,
        Err(error) => return gone(error),
    };
    let lost = (scan.rows.len() as u64) < u64::from(account.summary.records);
    Ok(Some(Rows { rows: scan.rows, records_end: scan.summary.records_end, lost, from_records: true }))
}

/// Removes every index entry that names one of these slots, whose segments are about to go.
pub(super) fn sweep_slots<D: Disk, C: Clock>(shared: &Shared<D, C>, slots: &[u32]) {
    if slots.is_empty() {
        return;
    }
    let entries = (0..PARTITIONS).flat_map(|number| shared.index.partition(number as u16));
    for (id, entry) in letting_in(entries) {
        if slots.contains(&entry.location.slot) {
            shared.index.replace_if(id, entry.location, None);
        }
    }
}

/// Removes every index entry that names this segment, which is about to go: by its rows, so that it costs what the
/// segment holds and not what the store does.
pub(super) fn sweep_segment<D: Disk, C: Clock>(shared: &Shared<D, C>, account: &AccountView) {
    match rows_of(shared, account) {
        Ok(Some(found)) if !found.lost => {
            for row in letting_in(found.rows.iter()) {
                let location = Location { slot: account.slot, offset: row.offset };
                shared.index.replace_if(EntryId::of(row.hash), location, None);
            }
        }
        // What it held cannot be told any more.
        _ => sweep_slots(shared, &[account.slot]),
    }
}

/// Closes a segment that no index entry names, and deletes its file. Returns the bytes the file system gets back.
pub(super) fn remove_segment<D: Disk, C: Clock>(shared: &Shared<D, C>, account: &AccountView) -> u64 {
    let path = names::segment(&shared.config.dir, account.identity.segment_id);
    let freed = shared.disk.open_read(&path).and_then(|file| file.allocated_bytes());
    shared.slab.retire(account.slot);
    remove_file(shared, &path);
    shared.slab.release(account.slot);
    freed.unwrap_or(0)
}

pub(super) fn remove_file<D: Disk, C: Clock>(shared: &Shared<D, C>, path: &std::path::Path) {
    let bytes = shared.disk.open(path).and_then(|file| {
        let bytes = file.len();
        file.give_back();
        bytes
    });
    match shared.disk.remove(path) {
        Ok(()) => shared.ledger.strike(in_blocks(bytes.unwrap_or(0))),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "left behind; the next start removes it");
        }
    }
}

/// Writes or replaces a file in one step, and keeps the ledger: both are there until the new one has taken the name.
pub(super) fn replace_counted<D: Disk, C: Clock>(
    shared: &Shared<D, C>,
    path: &std::path::Path,
    bytes: &[u8],
) -> Result<()> {
    let before = shared.disk.open_read(path).and_then(|file| file.len()).unwrap_or(0);
    let new = in_blocks(bytes.len() as u64);
    shared.ledger.enter(new);
    let replaced = replace_file(&shared.disk, &shared.config.dir, path, bytes);
    // After a failed sync of the directory the new one has the name all the same.
    let has_name = replaced.as_ref().err().is_none_or(Error::is_read_only);
    shared.ledger.strike(if has_name { in_blocks(before) } else { new });
    replaced
}

/// Makes the directory's names durable.
///
/// # Errors
/// Those of [`manifest::sync_names`]: the kernel may have lost names of the writer's too, and reports that once only.
pub(super) fn sync_names<D: Disk, C: Clock>(shared: &Shared<D, C>) -> Result<()> {
    let synced = manifest::sync_names(&shared.disk, &shared.config.dir);
    if let Err(error) = &synced
        && error.is_read_only()
    {
        shared.condition.make_read_only(error);
    }
    synced
}

/// Makes removals durable. A name that comes back is in no manifest: the next start removes it again.
pub(super) fn sync_removals<D: Disk, C: Clock>(shared: &Shared<D, C>) {
    if let Err(error) = sync_names(shared) {
        tracing::error!(%error, "directory not synced after removals");
    }
}

/// Whether a cleanup has something to do there.
pub(super) fn is_due(account: &AccountView, now_ms: u64) -> bool {
    account.next_expiry_ms <= now_ms
}
