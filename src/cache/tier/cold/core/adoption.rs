//! Segments whose edit the manifest has lost: by a power cut that kept the file and took the edit, or because the
//! manifest was cut (R7).
//!
//! Edits are appended in the order in which numbers are given out, and a fresh segment's edit is appended before a record
//! is written to it. So a fresh segment with a number that the manifest's prefix never gave out was added behind that
//! prefix, and not dropped within it: what it holds is newer than what the manifest knows, deletions among it.

use std::path::Path;

use super::manifest::LoadedManifest;
use super::names::{self, FileKind};
use crate::cache::tier::cold::serialization::edit::{Edit, SegmentEntry};
use crate::cache::tier::cold::serialization::segment::{LogKind, SEGMENT_HEADER_BYTES, SegmentIdentity};
use crate::error::{Error, Result};
use crate::io::{Disk, DiskFile};

/// Enters such segments in the state that was read, for recovery to read as tails, and in `adopted`, for storage to
/// enter in the manifest on disk. Where segments that the manifest names are missing too, it has lost more than one can
/// make up for: it is broken.
///
/// # Errors
/// When the operating system refuses to list the directory.
pub fn adopt_unknown<D: Disk>(disk: &D, dir: &Path, loaded: &mut LoadedManifest) -> Result<()> {
    if loaded.broken || loaded.state.damaged {
        return Ok(());
    }
    let files = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let present = |id: u64| {
        names::segment(dir, id).file_name().is_some_and(|name| files.iter().any(|file| name == file.as_str()))
    };
    let mut unknown: Vec<u64> = files
        .iter()
        .filter_map(|name| match names::kind_of(name) {
            FileKind::Segment(id) if id >= loaded.state.next_file_id => Some(id),
            _ => None,
        })
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    if !loaded.state.segments.keys().all(|id| present(*id)) {
        // A file goes only behind a durable edit, and that edit is not here.
        (loaded.broken, loaded.clean) = (true, false);
        loaded.warnings.push("the manifest names segments that are gone, and not some that are there".into());
        return Ok(());
    }
    unknown.sort_unstable();
    for id in unknown {
        let Some(identity) = fresh_identity(disk, dir, id, loaded.state.store_id) else { continue };
        let taken = |slot: u32| loaded.state.segments.values().any(|entry| entry.slot == slot);
        let slot = (0..).find(|slot| !taken(*slot)).expect("there are more slots than segments");
        let entry = SegmentEntry { identity, slot, added_by: 0, sealed: None };
        let number = loaded.state.edit + 1;
        loaded.state.apply(number, &Edit::AddSegment(entry.clone()));
        loaded.adopted.push(entry);
    }
    Ok(())
}

/// Who a segment of this store's fresh log is, by its header; `None` for anything else, or if it holds no record.
fn fresh_identity<D: Disk>(disk: &D, dir: &Path, id: u64, store_id: u64) -> Option<SegmentIdentity> {
    let file = disk.open_read(&names::segment(dir, id)).ok()?;
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let got = file.read_full_at(&mut header, 0).ok()?;
    let identity = SegmentIdentity::decode(&header[..got]).ok()?;
    let is_ours = (identity.store_id, identity.segment_id, identity.log) == (store_id, id, LogKind::Fresh);
    (is_ours && file.len().ok()? > SEGMENT_HEADER_BYTES as u64).then_some(identity)
}
