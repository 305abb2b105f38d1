//! `Counted`: any [`Disk`], with a ledger of what is written to it, what it holds and what leaves it.
//!
//! The simulator's disk and the real one are measured by this same code, from below the store: nothing here believes
//! what the store says of itself. The ledgers lie in one table of this process, by number, for the reason given in
//! `disk.rs`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use dashmap::DashMap;
use larder::{Disk, DiskFile};

use crate::contents::{HEADER_BYTES as SEGMENT_HEADER_BYTES, SegmentContents, read_segment};
use crate::disk::BLOCK_BYTES;

/// The name of the store's thread that maintains it.
const MAINTENANCE_THREAD: &str = "larder-compact";

/// Snapshots that one round of maintenance may write: two suffice; a store that writes more goes round in circles.
const SNAPSHOTS_A_STEP_MAX: u64 = 100;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Records.
    Segment,
    /// The index, saved.
    Snapshot,
    /// The log of edits, and the pointer to it.
    Manifest,
    /// A compression dictionary.
    Dictionary,
}

impl FileKind {
    /// Judged by its name; a file that is still being written has its kind already.
    fn of(path: &Path) -> Self {
        let name = path.file_name().map_or(&[][..], |name| name.as_encoded_bytes());
        match name {
            name if name.starts_with(b"seg-") => Self::Segment,
            name if name.starts_with(b"snap-") => Self::Snapshot,
            name if name.starts_with(b"dict-") => Self::Dictionary,
            _ => Self::Manifest,
        }
    }
}

/// Files of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindTotals {
    /// Files that take room: those that have a name, and those that are still open without one.
    pub files: u64,
    /// Their lengths.
    pub bytes: u64,
    /// Their lengths in whole blocks.
    pub allocated: u64,
    /// Most of that since the last `take_step`.
    pub allocated_peak: u64,
    /// Bytes written to files of this kind, ever.
    pub written: u64,
}

/// What a ledger says of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By kind, in the order of [`FileKind`].
    kinds: [KindTotals; 4],
    /// Bytes of records, headers and footers apart, that the maintenance thread has read from segments.
    pub maintenance_record_bytes_read: u64,
    /// Segments that the maintenance thread has begun to write.
    pub segments_rewritten: u64,
    /// Most allocated bytes of all files at any write since the last `take_step`.
    pub allocated_peak: u64,
}

impl Totals {
    /// The files of one kind.
    pub fn of(&self, kind: FileKind) -> &KindTotals {
        &self.kinds[kind as usize]
    }

    /// Allocated bytes of all files.
    pub fn allocated(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.allocated).sum()
    }

    /// Written bytes of all files.
    pub fn written(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.written).sum()
    }
}

/// A record in a segment that has left the disk.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    /// Its number in the order of all writes and deletions: kept when it is moved.
    pub sequence: u64,
    /// When its time was up, unix ms; 0 = never.
    pub expires_at_ms: u64,
    /// Bytes, header and padding included.
    pub bytes: u64,
}

/// What happened since the last look.
#[derive(Debug, Default)]
pub struct Step {
    /// As it stands.
    pub totals: Totals,
    /// The records of the segments removed meanwhile.
    pub gone: Vec<Gone>,
    /// Segments removed whose records could not be read; their bytes are in no `gone`.
    pub unreadable: u64,
    /// Maintenance wrote one snapshot after the other, and was stopped by refusing it the next.
    pub runaway: bool,
}

#[derive(Debug, Default)]
struct Ledger {
    totals: Totals,
    names: HashMap<PathBuf, u64>,
    files: HashMap<u64, File>,
    next_file: u64,
    gone: Vec<Gone>,
    unreadable: u64,
    /// Snapshots begun since the last `take_step`.
    snapshots_begun: u64,
}

#[derive(Clone, Copy, Debug)]
struct File {
    kind: FileKind,
    len: u64,
    /// Names and handles.
    links: u32,
    /// Where its records end, once its footer is there.
    records_end: Option<u64>,
}

/// Every ledger of this process, by number.
static LEDGERS: LazyLock<DashMap<u64, Mutex<Ledger>>> = LazyLock::new(DashMap::new);
static NEXT_LEDGER: AtomicU64 = AtomicU64::new(1);

/// Does something with a ledger; nothing with one that is gone.
fn with_ledger<T: Default>(number: u64, work: impl FnOnce(&mut Ledger) -> T) -> T {
    LEDGERS
        .get(&number)
        .map(|ledger| work(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner)))
        .unwrap_or_default()
}

pub(crate) fn is_maintenance() -> bool {
    std::thread::current().name() == Some(MAINTENANCE_THREAD)
}

impl Ledger {
    fn add(&mut self, path: &Path, len: u64) -> u64 {
        let kind = FileKind::of(path);
        let number = self.next_file;
        self.next_file += 1;
        self.names.insert(path.to_path_buf(), number);
        self.files.insert(number, File { kind, len: 0, links: 1, records_end: None });
        self.totals.kinds[kind as usize].files += 1;
        self.grow(number, len);
        number
    }

    fn grow(&mut self, number: u64, len: u64) {
        let Some(file) = self.files.get_mut(&number) else { return };
        if len <= file.len {
            return;
        }
        let totals = &mut self.totals.kinds[file.kind as usize];
        totals.bytes += len - file.len;
        totals.allocated += len.next_multiple_of(BLOCK_BYTES) - file.len.next_multiple_of(BLOCK_BYTES);
        totals.allocated_peak = totals.allocated_peak.max(totals.allocated);
        file.len = len;
        self.totals.allocated_peak = self.totals.allocated_peak.max(self.totals.allocated());
    }

    fn link(&mut self, number: u64) {
        if let Some(file) = self.files.get_mut(&number) {
            file.links += 1;
        }
    }

    fn unlink(&mut self, number: u64) {
        let Some(file) = self.files.get_mut(&number) else { return };
        file.links -= 1;
        if file.links > 0 {
            return;
        }
        let totals = &mut self.totals.kinds[file.kind as usize];
        totals.files -= 1;
        totals.bytes -= file.len;
        totals.allocated -= file.len.next_multiple_of(BLOCK_BYTES);
        self.files.remove(&number);
    }
}

/// A disk with a ledger.
#[derive(Debug)]
pub struct Counted<D> {
    disk: D,
    ledger: u64,
}

impl<D> Drop for Counted<D> {
    fn drop(&mut self) {
        LEDGERS.remove(&self.ledger);
    }
}

impl<D: Disk> Counted<D> {
    /// Counts from now on.
    pub fn new(disk: D) -> Self {
        let ledger = NEXT_LEDGER.fetch_add(1, Ordering::Relaxed);
        LEDGERS.insert(ledger, Mutex::default());
        Self { disk, ledger }
    }

    /// What the disk holds now.
    pub fn totals(&self) -> Totals {
        with_ledger(self.ledger, |ledger| ledger.totals)
    }

    /// What has happened since the last call; peaks start anew.
    pub fn take_step(&self) -> Step {
        with_ledger(self.ledger, |ledger| {
            let step = Step {
                totals: ledger.totals,
                gone: std::mem::take(&mut ledger.gone),
                unreadable: std::mem::take(&mut ledger.unreadable),
                runaway: std::mem::take(&mut ledger.snapshots_begun) > SNAPSHOTS_A_STEP_MAX,
            };
            for kind in &mut ledger.totals.kinds {
                kind.allocated_peak = kind.allocated;
            }
            ledger.totals.allocated_peak = ledger.totals.allocated();
            step
        })
    }

    /// The records of every segment on disk.
    ///
    /// # Errors
    /// A file cannot be read, or is no segment.
    pub fn records(&self) -> io::Result<Vec<Gone>> {
        let paths: Vec<PathBuf> = with_ledger(self.ledger, |ledger| ledger.names.keys().cloned().collect());
        let mut records = Vec::new();
        // What is in an output that has no name yet is still in its victims.
        for path in paths.iter().filter(|path| FileKind::of(path) == FileKind::Segment && !is_temporary(path))
        {
            match self.disk.open_read(path) {
                // Its header is being written.
                Ok(file) if file.len()? < SEGMENT_HEADER_BYTES => {}
                Ok(file) => records.extend(read_segment(&file)?.records),
                // A store that maintains itself has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    fn counted(&self, path: &Path, inner: D::File) -> io::Result<CountedFile<D::File>> {
        let len = inner.len()?;
        let file = with_ledger(self.ledger, |ledger| {
            let number = match ledger.names.get(path) {
                Some(number) => *number,
                None => ledger.add(path, len),
            };
            ledger.link(number);
            number
        });
        Ok(CountedFile {
            inner,
            ledger: self.ledger,
            file,
            is_segment: FileKind::of(path) == FileKind::Segment,
        })
    }

    /// A segment that is about to go: which records go with it?
    fn note_gone(&self, path: &Path) {
        let is_segment = FileKind::of(path) == FileKind::Segment;
        if !is_segment || is_temporary(path) {
            return;
        }
        let contents = self.disk.open_read(path).and_then(|file| read_segment(&file));
        with_ledger(self.ledger, |ledger| match contents {
            Ok(contents) => ledger.gone.extend(contents.records),
            Err(_) => ledger.unreadable += 1,
        });
    }
}

fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

impl<D: Disk> Disk for Counted<D> {
    type File = CountedFile<D::File>;
    type Lock = D::Lock;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Self::File> {
        let runaway = is_maintenance()
            && with_ledger(self.ledger, |ledger| {
                match FileKind::of(path) {
                    FileKind::Segment => ledger.totals.segments_rewritten += 1,
                    FileKind::Snapshot => ledger.snapshots_begun += 1,
                    FileKind::Manifest | FileKind::Dictionary => {}
                }
                ledger.snapshots_begun > SNAPSHOTS_A_STEP_MAX
            });
        if runaway {
            return Err(io::Error::other("maintenance does not come to an end: refused by the simulator"));
        }
        let inner = self.disk.create(path)?;
        self.counted(path, inner)
    }

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        self.counted(path, self.disk.open(path)?)
    }

    fn open_read(&self, path: &Path) -> io::Result<Self::File> {
        self.counted(path, self.disk.open_read(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        with_ledger(self.ledger, |ledger| {
            if let Some(file) = ledger.names.remove(from)
                && let Some(replaced) = ledger.names.insert(to.to_path_buf(), file)
            {
                ledger.unlink(replaced);
            }
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note_gone(path);
        self.disk.remove(path)?;
        with_ledger(self.ledger, |ledger| {
            if let Some(file) = ledger.names.remove(path) {
                ledger.unlink(file);
            }
        });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<Option<u64>> {
        self.disk.free_bytes(dir)
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.disk.memory_bytes()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>> {
        self.disk.lock(path)
    }
}

/// A file of a [`Counted`] disk.
#[derive(Debug)]
pub struct CountedFile<F: DiskFile> {
    inner: F,
    ledger: u64,
    file: u64,
    is_segment: bool,
}

impl<F: DiskFile> Drop for CountedFile<F> {
    fn drop(&mut self) {
        with_ledger(self.ledger, |ledger| ledger.unlink(self.file));
    }
}

impl<F: DiskFile> CountedFile<F> {
    /// Where the records end: known for good once the footer is there, until then the end of the file.
    fn records_end(&self) -> io::Result<u64> {
        let known = with_ledger(self.ledger, |ledger| ledger.files.get(&self.file)?.records_end);
        if let Some(known) = known {
            return Ok(known);
        }
        let Some(end) = SegmentContents::records_end(&self.inner)? else { return self.inner.len() };
        with_ledger(self.ledger, |ledger| {
            if let Some(file) = ledger.files.get_mut(&self.file) {
                file.records_end = Some(end);
            }
        });
        Ok(end)
    }
}

impl<F: DiskFile> DiskFile for CountedFile<F> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let got = self.inner.read_at(buf, offset)? as u64;
        // What callers read depends on how far the writer has come: a count of it would differ from run to run.
        if self.is_segment && is_maintenance() {
            let records_end = self.records_end()?;
            let read = records_end.min(offset + got).saturating_sub(offset.max(SEGMENT_HEADER_BYTES));
            with_ledger(self.ledger, |ledger| ledger.totals.maintenance_record_bytes_read += read);
        }
        Ok(got as usize)
    }

    fn random_reads(&self) {
        self.inner.random_reads();
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let written = self.inner.write_at(buf, offset)?;
        with_ledger(self.ledger, |ledger| {
            if let Some(file) = ledger.files.get(&self.file) {
                ledger.totals.kinds[file.kind as usize].written += written as u64;
            }
            ledger.grow(self.file, offset + written as u64);
        });
        Ok(written)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.inner.allocated_bytes()
    }
}
