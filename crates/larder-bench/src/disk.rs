//! `MemoryDisk`: a [`Disk`] whose files are bytes in memory.
//!
//! A file has to be reachable through its name and through every handle, and goes when the last of them goes. Shared
//! ownership being banned, the files stay in one place, a table of this process; names and handles are numbers, and the
//! disk's entry in the table goes with the disk. A handle that outlives its disk finds nothing.
//!
//! Contents are kept in pieces, so that an append copies what is appended and nothing else.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, PoisonError, RwLock};

use dashmap::DashMap;
use larder::{Disk, DiskFile};

/// Size of a piece of a file.
const PIECE_BYTES: usize = 64 << 10;
/// What a file system hands out.
pub const BLOCK_BYTES: u64 = 4096;

/// Every memory disk of this process, by number.
static VOLUMES: LazyLock<DashMap<u64, Volume>> = LazyLock::new(DashMap::new);
static NEXT_VOLUME: AtomicU64 = AtomicU64::new(1);

#[derive(Default)]
struct Volume {
    names: RwLock<BTreeMap<PathBuf, u64>>,
    files: DashMap<u64, RwLock<Contents>>,
    next_file: AtomicU64,
    locked: AtomicBool,
}

#[derive(Default)]
struct Contents {
    /// All but the last are full.
    pieces: Vec<Vec<u8>>,
    len: u64,
    /// Names and handles.
    links: u32,
}

impl Contents {
    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let end = self.len.min(offset.saturating_add(buf.len() as u64));
        let mut at = offset;
        let mut done = 0;
        while at < end {
            let (piece, from) = place(at);
            let take = (PIECE_BYTES - from).min((end - at) as usize);
            buf[done..done + take].copy_from_slice(&self.pieces[piece][from..from + take]);
            at += take as u64;
            done += take;
        }
        done
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        // A hole reads as zeros.
        while self.len < offset {
            let hole = (offset - self.len).min(PIECE_BYTES as u64) as usize;
            self.append(&[0; PIECE_BYTES][..hole]);
        }
        let (mut at, mut done) = (offset, 0);
        while done < bytes.len() && at < self.len {
            let (piece, from) = place(at);
            let take = (self.pieces[piece].len() - from).min(bytes.len() - done);
            self.pieces[piece][from..from + take].copy_from_slice(&bytes[done..done + take]);
            at += take as u64;
            done += take;
        }
        self.append(&bytes[done..]);
    }

    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, from) = place(self.len);
            if piece == self.pieces.len() {
                self.pieces.push(Vec::new());
            }
            let (now, later) = bytes.split_at((PIECE_BYTES - from).min(bytes.len()));
            self.pieces[piece].extend_from_slice(now);
            self.len += now.len() as u64;
            bytes = later;
        }
    }
}

/// Piece and offset in it.
fn place(offset: u64) -> (usize, usize) {
    ((offset / PIECE_BYTES as u64) as usize, (offset % PIECE_BYTES as u64) as usize)
}

fn error(kind: ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{} on the memory disk", path.display()))
}

/// Nothing panics while it holds one of these locks; if something did, the bytes are still the bytes.
fn unpoisoned<T>(guard: Result<T, PoisonError<T>>) -> T {
    guard.unwrap_or_else(PoisonError::into_inner)
}

fn with_volume<T>(number: u64, work: impl FnOnce(&Volume) -> io::Result<T>) -> io::Result<T> {
    let Some(volume) = VOLUMES.get(&number) else {
        return Err(io::Error::new(
            ErrorKind::NotFound,
            "this memory disk is gone; keep it while its files are used",
        ));
    };
    work(&volume)
}

impl Volume {
    fn contents<T>(&self, file: u64, work: impl FnOnce(&RwLock<Contents>) -> T) -> io::Result<T> {
        let found = self.files.get(&file);
        found.map(|contents| work(&contents)).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn link(&self, file: u64) -> io::Result<()> {
        self.contents(file, |contents| unpoisoned(contents.write()).links += 1)
    }

    fn unlink(&self, file: u64) {
        let left = self.contents(file, |contents| {
            let mut contents = unpoisoned(contents.write());
            contents.links -= 1;
            contents.links
        });
        if matches!(left, Ok(0)) {
            self.files.remove(&file);
        }
    }
}

/// A file system in memory.
#[derive(Debug)]
pub struct MemoryDisk {
    number: u64,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        let number = NEXT_VOLUME.fetch_add(1, Ordering::Relaxed);
        VOLUMES.insert(number, Volume::default());
        Self { number }
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        VOLUMES.remove(&self.number);
    }
}

impl MemoryDisk {
    fn open_named(&self, path: &Path) -> io::Result<MemoryFile> {
        with_volume(self.number, |volume| {
            let names = unpoisoned(volume.names.read());
            let file = *names.get(path).ok_or_else(|| error(ErrorKind::NotFound, path))?;
            // Under the lock of the names: the file cannot lose its last link in between.
            volume.link(file)?;
            Ok(MemoryFile { volume: self.number, file })
        })
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<MemoryFile> {
        with_volume(self.number, |volume| {
            let mut names = unpoisoned(volume.names.write());
            if names.contains_key(path) {
                return Err(error(ErrorKind::AlreadyExists, path));
            }
            let file = volume.next_file.fetch_add(1, Ordering::Relaxed);
            // The name and the handle.
            volume.files.insert(file, RwLock::new(Contents { links: 2, ..Contents::default() }));
            names.insert(path.to_path_buf(), file);
            Ok(MemoryFile { volume: self.number, file })
        })
    }

    fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        self.open_named(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<MemoryFile> {
        self.open_named(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        with_volume(self.number, |volume| {
            let mut names = unpoisoned(volume.names.write());
            let file = names.remove(from).ok_or_else(|| error(ErrorKind::NotFound, from))?;
            if let Some(replaced) = names.insert(to.to_path_buf(), file) {
                volume.unlink(replaced);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        with_volume(self.number, |volume| {
            let mut names = unpoisoned(volume.names.write());
            let file = names.remove(path).ok_or_else(|| error(ErrorKind::NotFound, path))?;
            volume.unlink(file);
            Ok(())
        })
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        with_volume(self.number, |volume| {
            let names = unpoisoned(volume.names.read());
            let here = names.keys().filter(|path| path.parent() == Some(dir));
            Ok(here.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
        })
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<MemoryLock>> {
        with_volume(self.number, |volume| {
            let taken = volume.locked.swap(true, Ordering::SeqCst);
            Ok((!taken).then_some(MemoryLock { volume: self.number }))
        })
    }
}

/// Held while a store on a [`MemoryDisk`] is open. A disk holds one store.
#[derive(Debug)]
pub struct MemoryLock {
    volume: u64,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        // A disk that went first has taken its locks along.
        if let Some(volume) = VOLUMES.get(&self.volume) {
            volume.locked.store(false, Ordering::SeqCst);
        }
    }
}

/// A file of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryFile {
    volume: u64,
    file: u64,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // A disk that went first has taken its files along.
        if let Some(volume) = VOLUMES.get(&self.volume) {
            volume.unlink(self.file);
        }
    }
}

impl MemoryFile {
    fn contents<T>(&self, work: impl FnOnce(&RwLock<Contents>) -> T) -> io::Result<T> {
        with_volume(self.volume, |volume| volume.contents(self.file, work))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.contents(|contents| unpoisoned(contents.read()).read(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.contents(|contents| unpoisoned(contents.write()).write(buf, offset))?;
        Ok(buf.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.contents(|contents| unpoisoned(contents.read()).len)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.len().map(|len| len.next_multiple_of(BLOCK_BYTES))
    }
}
