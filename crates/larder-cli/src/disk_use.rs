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
        if entry.file_name().as_encoded_bytes().starts_with(b"seg-") {
            sum.segment_files += 1;
            sum.segment_bytes += allocated;
        }
    }
    Ok(sum)
}
