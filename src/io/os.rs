//! [`Disk`] on the operating system's files. With `memory.rs` the only place where `std::fs` is used.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
#[cfg(target_os = "linux")]
use std::{io::IoSliceMut, num::NonZero};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::{fs::Advice, io::ReadWriteFlags};

#[cfg(target_os = "linux")]
use super::sync_range::begin_write_back;
use super::{Disk, DiskFile, write_zeros};

/// Bytes of a file that goes that the disk is told of at a time.
#[cfg(target_os = "linux")]
const DISCARD_BYTES: u64 = 1 << 20;

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

/// A file of the real file system.
#[derive(Debug)]
pub struct OsFile(File);

/// The lock file of an open store.
#[derive(Debug)]
pub struct OsLock(File);

impl Drop for OsLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting has a copy of the descriptor until it
        // runs its own program, and with it the lock. Whatever this answers, closing follows.
        drop(self.0.unlock());
    }
}

fn is_missing(path: &Path) -> bool {
    !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err()
}

/// A FIFO or device planted under one of our names must neither block the open nor be read.
fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<OsFile> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(OsFile(file))
}

/// A file system mounted with `discard` tells the disk what it need not keep, and the disk does nothing else meanwhile: 16 MiB
/// take it 2 to 8 ms. So the file is cut bit by bit, each bit durable before the next: only then is it told.
#[cfg(target_os = "linux")]
fn shrink_where_discarded(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.len() <= DISCARD_BYTES
        || !is_discarded(&fs::read_to_string("/proc/self/mountinfo")?, metadata.dev())
    {
        return Ok(());
    }
    let mut left = metadata.len();
    while left > DISCARD_BYTES {
        left -= DISCARD_BYTES;
        file.set_len(left)?;
        file.sync_data()?;
    }
    Ok(())
}

/// Whether the file system on this device is mounted with `discard`, by the lines of `mountinfo` (proc_pid_mountinfo(5)).
#[cfg(target_os = "linux")]
fn is_discarded(mounts: &str, device: u64) -> bool {
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mounts.lines().any(|line| {
        let options = line.rsplit(' ').next().unwrap_or_default();
        line.split(' ').nth(2) == Some(&device) && options.split(',').any(|option| option == "discard")
    })
}

#[expect(clippy::disallowed_methods, reason = "this is the seam the other modules are sent to")]
impl Disk for OsDisk {
    type File = OsFile;
    type Lock = OsLock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|ancestor| is_missing(ancestor)).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // A directory is as durable as its name in the one above it.
        for created in missing {
            let above = created.parent().filter(|above| !above.as_os_str().is_empty());
            self.sync_dir(above.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<OsFile> {
        open_regular(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600), path)
    }

    fn open(&self, path: &Path) -> io::Result<OsFile> {
        open_regular(OpenOptions::new().read(true).write(true), path)
    }

    fn open_read(&self, path: &Path) -> io::Result<OsFile> {
        open_regular(OpenOptions::new().read(true), path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<Option<u64>> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    #[cfg(target_os = "linux")]
    fn memory_bytes(&self) -> Option<u64> {
        super::memory::memory_bytes()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 cannot be one of ours: it is not listed, and so never touched.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<OsLock>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let OsFile(file) = open_regular(&mut options, path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(OsLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl DiskFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        // Past libc, whose `pread` is a place where threads may be cancelled: that costs a read of a cached page 3 %.
        Ok(rustix::io::pread(&self.0, buf, offset)?)
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match rustix::io::preadv2(&self.0, &mut [IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT) {
            // Not every file system can tell.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.read_at(buf, offset),
            outcome => Ok(outcome?),
        }
    }

    #[cfg(target_os = "linux")]
    fn will_need(&self, offset: u64, bytes: u64) {
        let _ = rustix::fs::fadvise(&self.0, offset, NonZero::new(bytes), Advice::WillNeed);
    }

    #[cfg(target_os = "linux")]
    fn random_reads(&self) {
        let _ = rustix::fs::fadvise(&self.0, 0, None, Advice::Random);
    }

    #[cfg(target_os = "linux")]
    fn begin_write_back(&self, offset: u64, bytes: u64) {
        begin_write_back(&self.0, offset, bytes);
    }

    #[cfg(target_os = "linux")]
    fn give_back(&self) {
        // Whatever is refused, removing the file is all that matters.
        drop(shrink_where_discarded(&self.0));
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.blocks() * 512)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(self, bytes),
            outcome => Ok(outcome?),
        }
    }
}
