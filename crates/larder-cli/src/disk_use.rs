//! What a store's directory takes on disk, counted as `du` counts it: allocated blocks, not lengths.
//!
//! Measured from outside on purpose, so that the library's own figures can be held against it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

/// The files of a directory and the bytes the file system has allocated for them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct DiskUse {
    /// Files of any kind.
    pub files: u64,
    /// Their allocated bytes.
    pub bytes: u64,
    /// Segment files among them.
    pub segment_files: u64,
    /// Their allocated bytes.
    pub segment_bytes: u64,
    /// Index snapshots among them.
    pub snapshot_files: u64,
    /// Dictionary files among them, two of each dictionary.
    pub dictionary_files: u64,
}

/// Counts the regular files directly in `dir`.
///
/// # Errors
/// The directory cannot be read. A file that vanishes meanwhile is not counted.
pub fn measure(dir: &Path) -> io::Result<DiskUse> {
    let mut sum = DiskUse::default();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let allocated = metadata.blocks() * 512;
        sum.files += 1;
        sum.bytes += allocated;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b"seg-") {
            sum.segment_files += 1;
            sum.segment_bytes += allocated;
        }
        sum.snapshot_files += u64::from(name.starts_with(b"snap-"));
        sum.dictionary_files += u64::from(name.starts_with(b"dict-"));
    }
    Ok(sum)
}

/// A segment file as the file system knows it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SegmentFile {
    /// Its number.
    pub id: u64,
    /// Allocated bytes.
    pub bytes: u64,
    /// When it was last written, unix ms.
    pub written_ms: u64,
}

/// The segment files in `dir`, in the order in which they were last written.
///
/// # Errors
/// The directory cannot be read. A file that vanishes meanwhile is left out.
pub fn segment_files(dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("seg-")?.strip_suffix(".lard"));
        let Some(id) = number.and_then(|digits| digits.parse().ok()) else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        let written_ms = u64::try_from(metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000);
        files.push(SegmentFile { id, bytes: metadata.blocks() * 512, written_ms: written_ms.unwrap_or(0) });
    }
    files.sort_unstable_by_key(|file| (file.written_ms, file.id));
    Ok(files)
}
