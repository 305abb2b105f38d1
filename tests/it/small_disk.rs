//! A [`Disk`] of few bytes that others fill: whatever lies in the directory above the store's counts, and a write for
//! which there is no room is cut short, then refused.

#![expect(clippy::disallowed_methods, reason = "the tests fill the disk with files of others")]

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use larder::{Disk, DiskFile, OsDisk};

const BLOCK_BYTES: u64 = 4096;

/// The real disk, as far as it goes.
pub struct SmallDisk {
    root: PathBuf,
    bytes: u64,
    /// What it says is free, if it says anything.
    told: Mutex<Option<u64>>,
}

impl SmallDisk {
    /// All files below `root` may take so many bytes together.
    pub fn new(root: &Path, bytes: u64) -> Self {
        Self { root: root.to_path_buf(), bytes, told: Mutex::new(None) }
    }

    /// From now on it says that so many bytes are free, whatever is true.
    pub fn tell_free(&self, bytes: u64) {
        *self.told.lock().unwrap() = Some(bytes);
    }

    fn wrap(&self, file: <OsDisk as Disk>::File) -> SmallFile {
        SmallFile { file, root: self.root.clone(), bytes: self.bytes }
    }

    fn refuse_if_full(&self) -> io::Result<()> {
        match taken(&self.root) < self.bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

/// Bytes of the files below a directory.
pub fn taken(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    // What goes while it is looked at takes nothing.
    let bytes = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.map(|entry| entry.path()).unwrap_or_default();
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => taken(&path),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        }
    };
    entries.map(bytes).sum()
}

/// Leaves so many bytes of a disk free: the rest of it goes to a file of somebody else's.
pub fn fill_up(root: &Path, disk_bytes: u64, free_bytes: u64) {
    let ballast = root.join("ballast");
    let others = taken(root) - std::fs::metadata(&ballast).map_or(0, |meta| meta.blocks() * 512);
    let bytes = disk_bytes.saturating_sub(others + free_bytes) / BLOCK_BYTES * BLOCK_BYTES;
    std::fs::write(&ballast, vec![1; bytes as usize]).expect("write the ballast");
}

impl Disk for SmallDisk {
    type File = SmallFile;
    type Lock = <OsDisk as Disk>::Lock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<SmallFile> {
        self.refuse_if_full()?;
        Ok(self.wrap(OsDisk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<SmallFile> {
        Ok(self.wrap(OsDisk.open(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<SmallFile> {
        Ok(self.wrap(OsDisk.open_read(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<Option<u64>> {
        Ok(*self.told.lock().unwrap())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>> {
        OsDisk.lock(path)
    }
}

/// A file of a [`SmallDisk`].
pub struct SmallFile {
    file: <OsDisk as Disk>::File,
    root: PathBuf,
    bytes: u64,
}

impl DiskFile for SmallFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let end = self.file.len()?.next_multiple_of(BLOCK_BYTES);
        let room = end + self.bytes.saturating_sub(taken(&self.root)) / BLOCK_BYTES * BLOCK_BYTES;
        let len = if offset + buf.len() as u64 <= end {
            buf.len()
        } else {
            room.saturating_sub(offset).min(buf.len() as u64) as usize
        };
        if len == 0 && !buf.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_at(&buf[..len], offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }
}
