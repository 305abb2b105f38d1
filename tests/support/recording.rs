//! A [`Disk`] that forwards to another one and tells a channel what was done, in order.
//!
//! Owner of the log: the test that holds the receiver. Writes and names are told when they have been done, syncs when
//! they begin: so a write told before a sync was complete when that sync began, and is covered by it. The test sends
//! its own [`Mark`]s down the same channel; what the log shows before a mark had happened before it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;
use larder::{Disk, DiskFile};

/// One thing that happened: to the disk, or in the script that drove the store.
#[derive(Clone, Debug)]
pub enum Event {
    /// The store's own directory came into being.
    CreateDir,
    /// A new, empty file under a name.
    Create { handle: u64, name: String },
    /// An existing file was opened.
    Open { handle: u64, name: String },
    /// Bytes were written.
    Write { handle: u64, offset: u64, bytes: Vec<u8> },
    /// The file was synced.
    Sync { handle: u64 },
    /// A file got another name, replacing what was there.
    Rename { from: String, to: String },
    /// A name was removed.
    Remove { name: String },
    /// The names in the store's directory were synced.
    SyncDir,
    /// The directory that holds the store's directory was synced.
    SyncParent,
    /// Not of the disk: where the script stands.
    Mark(Mark),
}

/// Where a script stands: operation `op`, store time `now_ms`.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub kind: MarkKind,
    pub op: u64,
    pub now_ms: u64,
}

/// What is known at a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// The operation is about to be called.
    Started,
    /// Every operation up to this one has been handed to the kernel: a process kill may not undo it.
    HandedOver,
    /// Every operation up to this one was acknowledged as durable: nothing may undo it.
    Durable,
    /// The same, and the time too: the store's clock does not fall behind it.
    DurableWithClock,
}

/// A disk, with a log.
pub struct RecordingDisk<D> {
    disk: D,
    dir: PathBuf,
    log: Sender<Event>,
    next_handle: AtomicU64,
    memory_bytes: Option<u64>,
}

impl<D: Disk> RecordingDisk<D> {
    /// A disk for the store in `dir`. `run` tells apart the handles of several runs in one log.
    pub fn new(disk: D, dir: &Path, log: Sender<Event>, run: u64) -> Self {
        let next_handle = AtomicU64::new(run << 32);
        Self { disk, dir: dir.to_path_buf(), log, next_handle, memory_bytes: None }
    }

    /// Says that there is so much memory.
    pub fn with_memory(self, memory_bytes: Option<u64>) -> Self {
        Self { memory_bytes, ..self }
    }

    fn tell(&self, event: Event) {
        tell(&self.log, event);
    }

    fn handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    fn name(&self, path: &Path) -> String {
        assert_eq!(
            path.parent(),
            Some(&*self.dir),
            "every file of a store is directly in its directory: {path:?}"
        );
        path.file_name().and_then(|name| name.to_str()).expect("file names are plain text").to_string()
    }
}

/// A test that has stopped listening has seen enough.
fn tell(log: &Sender<Event>, event: Event) {
    let _ = log.send(event);
}

impl<D: Disk> Disk for RecordingDisk<D> {
    type File = RecordingFile<D::File>;
    type Lock = D::Lock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let is_new = self.disk.list(dir).is_err();
        self.disk.create_dir(dir)?;
        // The real disk makes it, and then its name durable; a directory that was there is left as it is.
        if is_new {
            self.tell(Event::CreateDir);
            self.tell(Event::SyncParent);
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<RecordingFile<D::File>> {
        let (name, handle) = (self.name(path), self.handle());
        let file = self.disk.create(path)?;
        self.tell(Event::Create { handle, name });
        Ok(RecordingFile { file, handle, log: self.log.clone() })
    }

    fn open(&self, path: &Path) -> io::Result<RecordingFile<D::File>> {
        let (name, handle) = (self.name(path), self.handle());
        let file = self.disk.open(path)?;
        self.tell(Event::Open { handle, name });
        Ok(RecordingFile { file, handle, log: self.log.clone() })
    }

    fn open_read(&self, path: &Path) -> io::Result<RecordingFile<D::File>> {
        let (name, handle) = (self.name(path), self.handle());
        let file = self.disk.open_read(path)?;
        self.tell(Event::Open { handle, name });
        Ok(RecordingFile { file, handle, log: self.log.clone() })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        self.tell(Event::Rename { from: self.name(from), to: self.name(to) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)?;
        self.tell(Event::Remove { name: self.name(path) });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if dir == self.dir {
            self.tell(Event::SyncDir);
        } else if Some(dir) == self.dir.parent() {
            self.tell(Event::SyncParent);
        }
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<Option<u64>> {
        self.disk.free_bytes(dir)
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.memory_bytes
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    /// The lock file is not told: it holds nothing, and a crash state may well lack it.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>> {
        self.disk.lock(path)
    }
}

/// A file of a [`RecordingDisk`].
pub struct RecordingFile<F> {
    file: F,
    handle: u64,
    log: Sender<Event>,
}

impl<F: DiskFile> DiskFile for RecordingFile<F> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let written = self.file.write_at(buf, offset)?;
        tell(&self.log, Event::Write { handle: self.handle, offset, bytes: buf[..written].to_vec() });
        Ok(written)
    }

    fn sync(&self) -> io::Result<()> {
        tell(&self.log, Event::Sync { handle: self.handle });
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }
}
