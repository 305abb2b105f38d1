//! The one seam to the file system.
//!
//! Everything the store does to files goes through [`Disk`] and [`DiskFile`], so that a test can record every write,
//! sync, rename and unlink, or make any of them fail. Nothing above this module touches `std::fs`.
//!
//! Durability contract, that of POSIX and no more: written bytes survive a power cut once `sync` on their file has
//! returned; a created, renamed or removed name survives once `sync_dir` on its directory has returned.

mod append;
#[cfg(target_os = "linux")]
mod memory;
mod os;
#[cfg(target_os = "linux")]
mod sync_range;

pub(crate) use append::{Pieces, WriteBack, whole_pieces};
pub use os::{OsDisk, OsFile, OsLock};

use std::io;
use std::path::Path;

/// A file system, as far as the store needs one.
pub trait Disk: Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Held while a store is open; released when dropped, and by the death of the process.
    type Lock: Send + Sync + 'static;

    /// Creates the directory and its parents, readable by the owner alone, durable. An existing one is left as it is.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Creates a file that must not exist yet, for reading and writing, readable by the owner alone.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens an existing regular file for reading and appending. Never follows a symbolic link, never truncates.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens an existing regular file for reading. Never follows a symbolic link.
    fn open_read(&self, path: &Path) -> io::Result<Self::File>;
    /// Renames a file; an existing one at `to` is replaced atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Bytes that the file system of a directory has left for its owner; `None` if that cannot be told. What others may
    /// still take from it, or a quota, is not in it.
    fn free_bytes(&self, _dir: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }
    /// Bytes of memory that this process may fill, the kernel's cache of its files included; `None` if that cannot be told.
    /// Asked once, when a store is opened.
    fn memory_bytes(&self) -> Option<u64> {
        None
    }
    /// Takes the lock file of a store, without waiting: `None` if another holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
}

/// An open file of a [`Disk`]: positional reads and writes, no cursor.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buf.len()` bytes at `offset`; fewer near the end of the file, 0 behind it.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `buf` at `offset` and says how many bytes.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes the bytes written so far, and the length, durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Bytes the file system has given the file, as `du` counts them.
    fn allocated_bytes(&self) -> io::Result<u64>;

    /// Makes a new file so many bytes long, on the disk and not only by its length: a full disk says so now.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        write_zeros(self, bytes)
    }

    /// As [`read_at`](Self::read_at), but does not wait for the disk: what is not in memory is
    /// [`WouldBlock`](io::ErrorKind::WouldBlock). Files that cannot tell read as always.
    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buf, offset)
    }

    /// Says that these bytes will be read soon, so that the disk can begin. Advice: whatever comes of it, they can be read.
    fn will_need(&self, _offset: u64, _bytes: u64) {}

    /// Says that reads of this open file come in no order, so that what lies beside them is not fetched as well. Advice
    /// too.
    fn random_reads(&self) {}

    /// Has the disk begin to write these bytes, and does not wait. Advice: nothing is durable before [`sync`](Self::sync).
    fn begin_write_back(&self, _offset: u64, _bytes: u64) {}

    /// Says that the file is about to be removed and nobody reads it any more: where it pays, its space is given back bit by
    /// bit. Advice; what is left of the contents afterwards is open.
    fn give_back(&self) {}

    /// Reads until `buf` is full or the file ends; returns the bytes read.
    fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(buf, offset, |buf, offset| self.read_at(buf, offset))
    }

    /// Likewise, of what is in memory.
    fn read_cached_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(buf, offset, |buf, offset| self.read_cached_at(buf, offset))
    }

    /// Writes all of `buf` at `offset`.
    fn write_full_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.write_at(&buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn read_full(
    buf: &mut [u8],
    offset: u64,
    read_at: impl Fn(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Allocates a file by writing it.
fn write_zeros<F: DiskFile + ?Sized>(file: &F, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; bytes.min(1 << 20) as usize];
    let mut at = 0;
    while at < bytes {
        let len = (bytes - at).min(zeros.len() as u64);
        file.write_full_at(&zeros[..len as usize], at)?;
        at += len;
    }
    Ok(())
}

/// The whole of a file, up to `max` bytes; a longer file is an error.
pub(crate) fn read_all<F: DiskFile>(file: &F, max: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{len} bytes, more than {max}")));
    }
    let mut bytes = vec![0; len as usize];
    let got = file.read_full_at(&mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}
