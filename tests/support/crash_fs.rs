//! What a file system may hold after a crash, worked out from the log of a recording disk.
//!
//! The rules are those of POSIX and no kinder. Bytes are durable once a sync on their file has begun after the write
//! and returned; a name (created, renamed, removed) once a sync of its directory has. Of everything else a power cut
//! keeps what it likes:
//! - of the unsynced writes, each 512-byte sector of a file holds the state after some prefix of the writes to that
//!   sector (so a write may be there, missing, cut short or full of holes), and the length may have grown or not,
//!   whether the bytes came or not (missing ones read as zero);
//! - of the unsynced names, any subset in which the changes of one name keep their order. A rename that is lost leaves
//!   the old name, and the old file at the target.
//!
//! A process kill loses nothing that was handed to the kernel.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use crate::recording::Event;

const SECTOR: usize = 512;

/// The files of a store after a crash. `None`: not even its directory is there.
pub type Image = Option<BTreeMap<String, Vec<u8>>>;

/// A file system that remembers what is durable and what is not.
#[derive(Clone, Default)]
pub struct CrashFs {
    files: Vec<File>,
    /// Open files: handle -> index in `files`.
    handles: BTreeMap<u64, usize>,
    /// As a running program sees the directory.
    names: BTreeMap<String, usize>,
    names_durable: BTreeMap<String, usize>,
    names_pending: Vec<NameChange>,
    dir_pending: bool,
}

#[derive(Clone, Default)]
struct File {
    durable: Vec<u8>,
    /// Written since the last sync, in order: offset, bytes.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Create { name: String, file: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

impl NameChange {
    fn touches(&self) -> Vec<&String> {
        match self {
            Self::Create { name, .. } | Self::Remove { name } => vec![name],
            Self::Rename { from, to } => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Rename { from, to } => {
                let file = names.remove(from).expect("a renamed file has a name");
                names.insert(to.clone(), file);
            }
            Self::Remove { name } => {
                names.remove(name).expect("a removed file has a name");
            }
        }
    }
}

/// Which unsynced writes to a file survive a power cut.
#[derive(Clone, Copy, Debug)]
enum Survival {
    Nothing,
    Everything,
    /// The first writes, and of the next one its first sectors.
    Prefix,
    /// Each write by itself.
    AnyWrites,
    /// Each sector by itself.
    AnySectors,
}

impl File {
    fn now(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (offset, written) in &self.pending {
            write_over(&mut bytes, *offset, written);
        }
        bytes
    }

    fn sync(&mut self) {
        for (offset, written) in std::mem::take(&mut self.pending) {
            write_over(&mut self.durable, offset, &written);
        }
    }

    /// The bytes after a power cut.
    fn cut(&self, survival: Survival, rng: &mut Rng) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let ends = || self.pending.iter().map(|(offset, bytes)| offset + bytes.len());
        let len_max = ends().max().unwrap_or(0).max(self.durable.len());
        let survives = self.surviving(survival, rng);

        // Of each sector: how many of the writes to it have reached the disk.
        let mut reached: BTreeMap<usize, usize> = BTreeMap::new();
        for (index, (offset, bytes)) in self.pending.iter().enumerate() {
            for (nth, sector) in sectors(*offset, bytes.len()).enumerate() {
                if survives(index, nth, rng) {
                    reached.insert(sector, index + 1);
                }
            }
        }
        let mut bytes = self.durable.clone();
        bytes.resize(len_max, 0);
        let mut data_end = self.durable.len();
        for (sector, writes) in reached {
            let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
            for (offset, written) in &self.pending[..writes] {
                let (start, end) = ((*offset).max(from), (offset + written.len()).min(to));
                if start < end {
                    bytes[start..end].copy_from_slice(&written[start - offset..end - offset]);
                    data_end = data_end.max(end);
                }
            }
        }
        let len = match survival {
            Survival::Nothing if rng.u8(..4) > 0 => self.durable.len(),
            Survival::Everything => len_max,
            _ => match rng.u8(..5) {
                0 => self.durable.len(),
                1 => len_max,
                2 => ends().nth(rng.usize(..self.pending.len())).unwrap_or(len_max).max(self.durable.len()),
                _ => data_end,
            },
        };
        bytes.truncate(len);
        bytes
    }

    /// Decides which parts survive: (index of the write, its n-th sector).
    fn surviving(
        &self,
        survival: Survival,
        rng: &mut Rng,
    ) -> impl Fn(usize, usize, &mut Rng) -> bool + use<> {
        let whole = rng.usize(..=self.pending.len());
        let of_next = self.pending.get(whole).map_or(0, |(offset, bytes)| {
            let count = sectors(*offset, bytes.len()).count();
            rng.usize(..=count)
        });
        let writes: Vec<bool> = self.pending.iter().map(|_| rng.bool()).collect();
        move |write, sector, rng| match survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Prefix => write < whole || (write == whole && sector < of_next),
            Survival::AnyWrites => writes[write],
            Survival::AnySectors => rng.bool(),
        }
    }
}

fn write_over(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

fn sectors(offset: usize, len: usize) -> std::ops::Range<usize> {
    offset / SECTOR..(offset + len).div_ceil(SECTOR)
}

impl CrashFs {
    /// A file system that holds these files, all durable.
    pub fn holding(image: &Image) -> Self {
        let mut fs = Self::default();
        for (name, bytes) in image.iter().flatten() {
            fs.names.insert(name.clone(), fs.files.len());
            fs.files.push(File { durable: bytes.clone(), pending: Vec::new() });
        }
        fs.names_durable = fs.names.clone();
        fs
    }

    /// Follows the log by one event.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::CreateDir => self.dir_pending = true,
            Event::SyncParent => self.dir_pending = false,
            Event::Create { handle, name } => {
                let file = self.files.len();
                self.files.push(File::default());
                self.handles.insert(*handle, file);
                self.change(NameChange::Create { name: name.clone(), file });
            }
            Event::Open { handle, name } => {
                // A file may have been removed between its being opened and that being told: what is done to it then
                // leaves nothing behind.
                if let Some(file) = self.names.get(name) {
                    self.handles.insert(*handle, *file);
                }
            }
            Event::Write { handle, offset, bytes } => {
                if let Some(file) = self.file(*handle) {
                    file.pending.push((*offset as usize, bytes.clone()));
                }
            }
            Event::Sync { handle } => {
                if let Some(file) = self.file(*handle) {
                    file.sync();
                }
            }
            Event::Rename { from, to } => {
                self.change(NameChange::Rename { from: from.clone(), to: to.clone() })
            }
            Event::Remove { name } => self.change(NameChange::Remove { name: name.clone() }),
            Event::SyncDir => {
                self.names_durable.clone_from(&self.names);
                self.names_pending.clear();
            }
            Event::Mark(_) => {}
        }
    }

    fn file(&mut self, handle: u64) -> Option<&mut File> {
        self.handles.get(&handle).map(|file| &mut self.files[*file])
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.names_pending.push(change);
    }

    /// The files after a process kill: as they are.
    pub fn kill(&self) -> Image {
        Some(self.names.iter().map(|(name, file)| (name.clone(), self.files[*file].now())).collect())
    }

    /// The files after a power cut, one of the many possible: `rng` chooses.
    pub fn power_cut(&self, rng: &mut Rng) -> Image {
        if self.dir_pending && rng.bool() {
            return None;
        }
        let names = self.names_after_cut(rng);
        let whole = *choose(rng, &[Survival::Nothing, Survival::Everything]);
        let torn = *choose(rng, &[Survival::Prefix, Survival::AnyWrites, Survival::AnySectors]);
        // Either all files fare alike, or each in its own way.
        let style = rng.u8(..4);
        let mut image = BTreeMap::new();
        for (name, file) in names {
            let survival = match style {
                0 => whole,
                1 => torn,
                2 => *choose(rng, &[Survival::Nothing, Survival::Everything]),
                _ => *choose(rng, &[Survival::Nothing, Survival::Everything, Survival::Prefix, torn]),
            };
            image.insert(name, self.files[file].cut(survival, rng));
        }
        Some(image)
    }

    fn names_after_cut(&self, rng: &mut Rng) -> BTreeMap<String, usize> {
        let mut names = self.names_durable.clone();
        let in_order = rng.usize(..=self.names_pending.len());
        let style = rng.u8(..4);
        let mut lost: BTreeSet<&String> = BTreeSet::new();
        for (index, change) in self.names_pending.iter().enumerate() {
            let kept = match style {
                0 => true,
                1 => index < in_order,
                _ => rng.bool(),
            };
            let touches = change.touches();
            if kept && !touches.iter().any(|name| lost.contains(name)) {
                change.apply(&mut names);
            } else {
                lost.extend(touches);
            }
        }
        names
    }
}

fn choose<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}
