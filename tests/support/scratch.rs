//! Directories for the tests' stores: in memory where the system has such a place, so that thousands of crash states
//! can be laid out, recovered and thrown away; removed when dropped, a failed test's too.

use std::path::Path;

use tempfile::TempDir;

/// A fresh, empty directory.
pub fn scratch_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("larder-test-").tempdir_in(parent).expect("create a scratch directory")
}
