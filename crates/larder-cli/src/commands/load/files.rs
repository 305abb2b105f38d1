//! A directory as input: every regular file below it is an entry, its path relative to the directory the key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Serialize;

use crate::failure::Failure;
use crate::interrupt;

/// Largest value a store takes.
const VALUE_BYTES_MAX: u64 = 64 << 20;

/// A file that was not stored.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedFile {
    /// Its path, relative to the input.
    pub file: String,
    /// Why.
    pub problem: String,
}

/// A regular file of a tree.
#[derive(Debug)]
pub struct FoundFile {
    /// Its path, relative to the input.
    pub path: PathBuf,
    /// Its length when it was found.
    pub bytes: u64,
}

/// What lies below a directory.
#[derive(Debug, Default)]
pub struct Tree {
    root: PathBuf,
    /// The regular files, in order of their paths.
    pub files: Vec<FoundFile>,
    /// Their lengths together.
    pub bytes: u64,
    /// Symbolic links and special files, which are passed over.
    pub passed_over: u64,
}

/// What reading a file gave.
#[derive(Debug)]
pub enum Content {
    /// The bytes.
    Value(Vec<u8>),
    /// More than a store takes.
    TooLarge(SkippedFile),
    /// It cannot be read.
    Unreadable(SkippedFile),
}

impl Tree {
    /// Lists everything below `root`, except a store in `store`: that would be loaded into itself.
    ///
    /// # Errors
    /// A directory cannot be listed, or a signal asked to stop.
    pub fn find(root: &Path, store: &Path) -> Result<Self, Failure> {
        let identity = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
        let store = identity(store);
        if store.is_some() && identity(root) == store {
            let root = root.display();
            return Err(Failure::Other(format!(
                "{root}: it is the store itself; name the directory to be loaded"
            )));
        }
        let mut tree = Self { root: root.to_owned(), ..Self::default() };
        let mut below = vec![PathBuf::new()];
        while let Some(dir) = below.pop() {
            interrupt::check()?;
            let listed = tree.root.join(&dir);
            tree.list(&dir, &mut below, &|path| store.is_some() && identity(path) == store).map_err(
                |error| {
                    let listed = listed.display();
                    Failure::Other(format!(
                        "list {listed}: {error}; make it readable, or load a directory below it"
                    ))
                },
            )?;
        }
        tree.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn list(
        &mut self,
        dir: &Path,
        below: &mut Vec<PathBuf>,
        left_out: &dyn Fn(&Path) -> bool,
    ) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(dir))? {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            // Of the entry itself: a link is not followed, so nothing outside the input is loaded and no circle ends
            // in an endless walk.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !left_out(&entry.path()) {
                    below.push(path);
                }
            } else if kind.is_file() {
                let bytes = entry.metadata().map_or(0, |data| data.len());
                self.bytes += bytes;
                self.files.push(FoundFile { path, bytes });
            } else {
                self.passed_over += 1;
            }
        }
        Ok(())
    }

    /// Reads one of the files.
    pub fn read(&self, file: &FoundFile) -> Content {
        let skipped = |problem| SkippedFile { file: file.path.display().to_string(), problem };
        let too_large = || skipped(format!("larger than the {} MiB a value may have", VALUE_BYTES_MAX >> 20));
        if file.bytes > VALUE_BYTES_MAX {
            return Content::TooLarge(too_large());
        }
        let mut value = Vec::with_capacity(file.bytes as usize);
        let opened = open(&self.root.join(&file.path));
        match opened.and_then(|file| file.take(VALUE_BYTES_MAX + 1).read_to_end(&mut value)) {
            // It has grown since it was listed.
            Ok(_) if value.len() as u64 > VALUE_BYTES_MAX => Content::TooLarge(too_large()),
            Ok(_) => Content::Value(value),
            Err(error) => Content::Unreadable(skipped(error.to_string())),
        }
    }
}

impl FoundFile {
    /// Its key: the bytes of the relative path, parts separated by `/`.
    pub fn key(&self) -> &[u8] {
        self.path.as_os_str().as_bytes()
    }
}

/// Opens a file that was a regular one a moment ago, without following what may have taken its place, and without
/// waiting for it.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}
