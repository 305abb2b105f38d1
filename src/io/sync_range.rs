//! `sync_file_range(2)`: the second and last module of the crate with `unsafe` code, one call.
//!
//! No crate offers it without: neither rustix nor nix has it. What both have does not do the same: `fdatasync` waits, and
//! commits the file system's journal and empties the device's cache each time; `posix_fadvise(DONTNEED)` begins to write
//! as well, and then has the kernel forget first what was written last.
//!
//! Sound because the call takes a file descriptor that is borrowed for as long as it lasts, three numbers and no address:
//! whatever they are, the kernel answers with an error at worst.

#![expect(unsafe_code, reason = "a system call without a safe wrapper; argued above")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Has the kernel begin to write what is dirty in a part of a file, and does not wait for it. Errors of the disk stay with
/// the file: the next `fdatasync` tells. (Waiting flags would take them from it.)
pub(super) fn begin_write_back(file: &File, offset: u64, bytes: u64) {
    let (Ok(offset), Ok(bytes)) = (i64::try_from(offset), i64::try_from(bytes)) else { return };
    // SAFETY: the descriptor is open while `file` is borrowed, and the call gets no address.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE) };
}
