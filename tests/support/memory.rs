//! A [`Disk`] in memory: as fast as a test that opens a store 200,000 times needs it, and one that fails on cue.
//!
//! Owner: the test that holds the [`Memory`]; what the store holds is only its number. What is durable is followed as
//! POSIX has it and no kinder: after a failed sync the unsynced bytes of that file, or the unsynced names, never become
//! durable any more, whatever a later sync says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use larder::{Disk, DiskFile};

/// Where every store on such a disk is.
pub const DIR: &str = "/memory/store";

/// The files of a directory.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Every disk there is, by its number.
static HELD: LazyLock<DashMap<u64, Held>> = LazyLock::new(DashMap::new);

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create,
    Open,
    Rename,
    Remove,
    SyncDir,
    List,
    Lock,
    Read,
    Write,
    Sync,
    Len,
}

pub const EIO: i32 = 5;
pub const EACCES: i32 = 13;
pub const EMFILE: i32 = 24;
pub const ENOSPC: i32 = 28;
pub const EROFS: i32 = 30;

/// How a disk misbehaves: of the calls `concerns` picks, the one numbered `at` fails with that error number, and if it
/// `lasts` all later ones too, until the test ends it.
#[derive(Clone, Copy)]
pub struct Trouble {
    pub concerns: fn(Op, &str) -> bool,
    pub at: u64,
    pub errno: i32,
    pub lasts: bool,
    /// A write that is to fail stores half of its bytes first.
    pub half: bool,
}

/// A call that failed on cue.
#[derive(Clone, Debug)]
pub struct Struck {
    pub op: Op,
    pub name: String,
}

#[derive(Default)]
struct Held {
    dir: bool,
    locked: bool,
    next: u64,
    names: BTreeMap<String, u64>,
    inodes: BTreeMap<u64, Inode>,
    names_durable: BTreeMap<String, u64>,
    /// Names whose last change a failed sync has lost.
    names_broken: BTreeSet<String>,
    trouble: Option<Trouble>,
    /// Calls that trouble concerns so far.
    concerned: u64,
    struck: Option<Struck>,
    /// Reads and writes do as much as this generator says.
    short: Option<fastrand::Rng>,
}

#[derive(Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    broken: bool,
}

impl Held {
    fn fail(&mut self, op: Op, name: &str) -> io::Result<()> {
        let Some(trouble) = self.trouble else { return Ok(()) };
        if !(trouble.concerns)(op, name) {
            return Ok(());
        }
        let number = self.concerned;
        self.concerned += 1;
        if number == trouble.at || (trouble.lasts && number > trouble.at) {
            self.struck.get_or_insert_with(|| Struck { op, name: name.to_string() });
            return Err(io::Error::from_raw_os_error(trouble.errno));
        }
        Ok(())
    }

    /// How many of `len` bytes a call does.
    fn some_of(&mut self, len: usize) -> usize {
        match &mut self.short {
            Some(rng) if len > 1 => rng.usize(1..=len),
            _ => len,
        }
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A directory in memory, gone when this is dropped.
pub struct Memory {
    id: u64,
}

impl Memory {
    /// A disk on which the directory holds these files, all durable; without any, it is not there yet.
    pub fn holding(files: Option<&Files>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut held = Held { dir: files.is_some(), ..Held::default() };
        for (name, bytes) in files.into_iter().flatten() {
            held.names.insert(name.clone(), held.next);
            held.inodes
                .insert(held.next, Inode { now: bytes.clone(), durable: bytes.clone(), broken: false });
            held.next += 1;
        }
        held.names_durable = held.names.clone();
        HELD.insert(id, held);
        Self { id }
    }

    /// What a store is opened on.
    pub fn disk(&self) -> MemoryDisk {
        MemoryDisk { id: self.id }
    }

    /// The files as a program sees them.
    pub fn files(&self) -> Files {
        let held = held(self.id);
        held.names.iter().map(|(name, inode)| (name.clone(), held.inodes[inode].now.clone())).collect()
    }
}

/// What only a test that makes the disk fail asks for.
impl Memory {
    /// The files that a power cut leaves when nothing unsynced survives it.
    pub fn durable_files(&self) -> Files {
        let held = held(self.id);
        let bytes = |inode: &u64| held.inodes[inode].durable.clone();
        held.names_durable.iter().map(|(name, inode)| (name.clone(), bytes(inode))).collect()
    }

    pub fn begin(&self, trouble: Trouble) {
        let mut held = held(self.id);
        (held.trouble, held.concerned, held.struck) = (Some(trouble), 0, None);
    }

    /// Ends the trouble; returns how many calls it concerned.
    pub fn end(&self) -> u64 {
        let mut held = held(self.id);
        held.trouble = None;
        held.concerned
    }

    pub fn struck(&self) -> Option<Struck> {
        held(self.id).struck.clone()
    }

    /// From now on reads and writes do only a part of what they are asked, and writes and syncs take their time.
    pub fn be_short_and_slow(&self, seed: u64) {
        held(self.id).short = Some(fastrand::Rng::with_seed(seed));
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        HELD.remove(&self.id);
    }
}

/// What takes its time on a slow disk.
fn take_time(id: u64) {
    if held(id).short.is_some() {
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
}

fn held(id: u64) -> dashmap::mapref::one::RefMut<'static, u64, Held> {
    HELD.get_mut(&id).expect("the test holds the disk while a store is open on it")
}

/// A [`Memory`], as a store sees it.
pub struct MemoryDisk {
    id: u64,
}

/// A file of a [`MemoryDisk`].
pub struct MemoryFile {
    disk: u64,
    inode: u64,
    name: String,
}

/// The lock of a store on a [`MemoryDisk`].
pub struct MemoryLock {
    disk: u64,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        if let Some(mut held) = HELD.get_mut(&self.disk) {
            held.locked = false;
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("file names are plain text").to_string()
}

impl MemoryDisk {
    fn open_file(&self, path: &Path) -> io::Result<MemoryFile> {
        let name = name_of(path);
        let mut held = held(self.id);
        held.fail(Op::Open, &name)?;
        let inode = held.find(&name)?;
        Ok(MemoryFile { disk: self.id, inode, name })
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        held(self.id).dir = true;
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<MemoryFile> {
        let name = name_of(path);
        let mut held = held(self.id);
        held.fail(Op::Create, &name)?;
        if held.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = held.next;
        held.next += 1;
        held.names.insert(name.clone(), inode);
        held.inodes.insert(inode, Inode::default());
        Ok(MemoryFile { disk: self.id, inode, name })
    }

    fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        self.open_file(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<MemoryFile> {
        self.open_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (name_of(from), name_of(to));
        let mut held = held(self.id);
        held.fail(Op::Rename, &from)?;
        let inode = held.find(&from)?;
        held.names.remove(&from);
        held.names.insert(to, inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = name_of(path);
        let mut held = held(self.id);
        held.fail(Op::Remove, &name)?;
        held.find(&name)?;
        held.names.remove(&name);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if dir != Path::new(DIR) {
            return Ok(()); // The one above: it holds nothing that could be lost.
        }
        let mut held = held(self.id);
        let failed = held.fail(Op::SyncDir, &name_of(dir));
        // A directory is opened for its sync: without a descriptor nothing was tried.
        let is_untried = failed.as_ref().is_err_and(|error| error.raw_os_error() == Some(EMFILE));
        let Held { names, names_durable, names_broken, .. } = &mut *held;
        let changed: BTreeSet<String> = names.keys().chain(names_durable.keys()).cloned().collect();
        for name in changed {
            if names.get(&name) == names_durable.get(&name) {
                continue;
            }
            if is_untried {
                continue;
            }
            if failed.is_err() {
                names_broken.insert(name);
            } else if !names_broken.contains(&name) {
                match names.get(&name) {
                    Some(inode) => names_durable.insert(name, *inode),
                    None => names_durable.remove(&name),
                };
            }
        }
        failed
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut held = held(self.id);
        held.fail(Op::List, &name_of(dir))?;
        if !held.dir {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(held.names.keys().cloned().collect())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<MemoryLock>> {
        let mut held = held(self.id);
        held.fail(Op::Lock, &name_of(path))?;
        if std::mem::replace(&mut held.locked, true) {
            return Ok(None);
        }
        Ok(Some(MemoryLock { disk: self.id }))
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut held = held(self.disk);
        held.fail(Op::Read, &self.name)?;
        let want = held.some_of(buf.len());
        let bytes = &held.inodes[&self.inode].now;
        let from = (offset as usize).min(bytes.len());
        let len = want.min(bytes.len() - from);
        buf[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        take_time(self.disk);
        let mut held = held(self.disk);
        let half = held.trouble.is_some_and(|trouble| trouble.half) && held.struck.is_none();
        // A full disk still takes what it has room for already.
        let grows = offset as usize + buf.len() > held.inodes[&self.inode].now.len();
        let is_full = held.trouble.is_some_and(|trouble| trouble.errno == ENOSPC);
        let failed = if is_full && !grows { Ok(()) } else { held.fail(Op::Write, &self.name) };
        let len = match failed {
            Ok(()) => held.some_of(buf.len()),
            // It stores a part; the call that brings the rest fails, as `at` is behind by then.
            Err(_) if half && buf.len() > 1 => buf.len() / 2,
            Err(error) => return Err(error),
        };
        let inode = held.inodes.get_mut(&self.inode).expect("an open file has its bytes");
        let (from, to) = (offset as usize, offset as usize + len);
        if inode.now.len() < to {
            inode.now.resize(to, 0);
        }
        inode.now[from..to].copy_from_slice(&buf[..len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        take_time(self.disk);
        let mut held = held(self.disk);
        let failed = held.fail(Op::Sync, &self.name);
        let inode = held.inodes.get_mut(&self.inode).expect("an open file has its bytes");
        inode.broken |= failed.is_err();
        if !inode.broken {
            inode.durable.clone_from(&inode.now);
        }
        failed
    }

    fn len(&self) -> io::Result<u64> {
        let mut held = held(self.disk);
        held.fail(Op::Len, &self.name)?;
        Ok(held.inodes[&self.inode].now.len() as u64)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.len()?.next_multiple_of(4096))
    }
}
