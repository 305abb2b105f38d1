//! Names of the files in a store's directory. Keys never become part of one.

use std::path::{Path, PathBuf};

/// Held locked while a store is open.
pub const LOCK: &str = "LOCK";
/// Names the manifest in force.
pub const CURRENT: &str = "CURRENT";

/// The last tuning, explained.
pub const TUNING: &str = "TUNING";

/// Room kept for maintenance on a full disk.
pub const RESERVE: &str = "RESERVE";

/// Ends the name of what is being written.
const TEMPORARY: &str = ".tmp";

/// What a file in the directory is, judged by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment, with its number.
    Segment(u64),
    /// A snapshot, with its number.
    Snapshot(u64),
    /// A dictionary, with its slot and content hash.
    Dictionary(u8, u64),
    /// A manifest, with its number.
    Manifest(u64),
    /// Something that was being written.
    Temporary,
    /// The lock, the pointer to the manifest, the explanation of the last tuning, or the reserve.
    Fixed,
    /// Not ours: never touched.
    Foreign,
}

/// Judges a name.
pub fn kind_of(name: &str) -> FileKind {
    if [LOCK, CURRENT, TUNING, RESERVE].contains(&name) {
        return FileKind::Fixed;
    }
    if let Some(stem) = name.strip_suffix(TEMPORARY) {
        // Only names that we make: a stranger's `notes.tmp` is not ours to delete.
        return match kind_of(stem) {
            FileKind::Foreign => FileKind::Foreign,
            _ => FileKind::Temporary,
        };
    }
    if let Some(number) = name.strip_prefix("MANIFEST-").and_then(number_of) {
        return FileKind::Manifest(number);
    }
    let Some(stem) = name.strip_suffix(".lard") else { return FileKind::Foreign };
    if let Some(number) = stem.strip_prefix("seg-").and_then(number_of) {
        return FileKind::Segment(number);
    }
    if let Some(number) = stem.strip_prefix("snap-").and_then(number_of) {
        return FileKind::Snapshot(number);
    }
    match stem.strip_prefix("dict-").and_then(|rest| rest.split_once('-')) {
        Some((slot, id)) if is_hex(slot, 3) && is_hex(id, 16) => {
            match (slot.parse(), u64::from_str_radix(id, 16)) {
                (Ok(slot), Ok(id)) => FileKind::Dictionary(slot, id),
                _ => FileKind::Foreign,
            }
        }
        _ => FileKind::Foreign,
    }
}

/// The number of the segment that was being written under a name.
pub fn output_of(name: &str) -> Option<u64> {
    match kind_of(name.strip_suffix(TEMPORARY)?) {
        FileKind::Segment(id) => Some(id),
        _ => None,
    }
}

fn is_hex(digits: &str, len: usize) -> bool {
    digits.len() == len && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn number_of(digits: &str) -> Option<u64> {
    if digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

/// Path of a segment.
pub fn segment(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("seg-{id:010}.lard"))
}

/// Path of a snapshot.
pub fn snapshot(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("snap-{id:010}.lard"))
}

/// Path of a dictionary.
pub fn dictionary(dir: &Path, slot: u8, id: u64) -> PathBuf {
    dir.join(format!("dict-{slot:03}-{id:016x}.lard"))
}

/// Path of a manifest.
pub fn manifest(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("MANIFEST-{number:010}"))
}

/// Where a file is written before it takes its name.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}
