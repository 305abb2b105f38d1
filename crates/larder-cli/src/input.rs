//! Where records come from: a file, stdin or bytes in memory, plain or zstd, as one reader.
//!
//! Reading from a file descriptor waits in `poll` with a time-out, so that Ctrl-C is heard while a pipe is silent.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Stdin};
use std::os::fd::AsFd;
use std::path::Path;

use indicatif::ProgressBar;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::failure::Failure;
use crate::{interrupt, output};

/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BUFFER_BYTES: usize = 256 << 10;
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// An opened input, not yet looked into.
#[derive(Debug)]
pub struct Input {
    /// What error messages call it.
    pub name: String,
    /// Bytes to come, if known.
    pub total_bytes: Option<u64>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(File),
    Stdin(Stdin),
    Memory(&'static [u8]),
}

impl Input {
    /// Opens a file, or stdin for `-`.
    ///
    /// # Errors
    /// The file cannot be opened; the text names it.
    #[expect(clippy::disallowed_methods, reason = "the user's input is no part of a store")]
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            if io::stdin().is_terminal() {
                output::warn("reading from the terminal; Ctrl-D ends the input");
            }
            return Ok(Self {
                name: "<stdin>".to_owned(),
                total_bytes: None,
                source: Source::Stdin(io::stdin()),
            });
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::Other(format!("open {name}: {error}")))?;
        let metadata = file.metadata().map_err(|error| Failure::Other(format!("open {name}: {error}")))?;
        if metadata.is_dir() {
            return Err(Failure::Other(format!("open {name}: it is a directory; name a file")));
        }
        let total_bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { name, total_bytes, source: Source::File(file) })
    }

    /// Bytes that are part of the program.
    pub fn memory(name: &str, bytes: &'static [u8]) -> Self {
        Self { name: name.to_owned(), total_bytes: Some(bytes.len() as u64), source: Source::Memory(bytes) }
    }

    /// The reader of the bytes as they are. `bar` follows the bytes taken in.
    pub fn into_raw_reader(self, bar: &ProgressBar) -> Box<dyn Read> {
        match self.source {
            Source::File(file) => Box::new(bar.wrap_read(Watched(file))),
            Source::Stdin(stdin) => Box::new(bar.wrap_read(Watched(stdin))),
            Source::Memory(bytes) => Box::new(bar.wrap_read(bytes)),
        }
    }

    /// The reader of the plain text: zstd is recognised by its first bytes. `bar` follows the bytes taken in.
    ///
    /// # Errors
    /// The first bytes cannot be read, or a name that ends in `.zst` stands for something else.
    pub fn into_reader(self, bar: &ProgressBar) -> io::Result<Box<dyn Read>> {
        let name = self.name.clone();
        let mut raw = self.into_raw_reader(bar);
        let mut start = Vec::with_capacity(ZSTD_MAGIC.len());
        raw.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start)?;
        let is_zstd = start == ZSTD_MAGIC;
        if !is_zstd && !start.is_empty() && name.ends_with(".zst") {
            let problem = "the name ends in .zst, but it is not a zstd file; rename it or compress it";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let whole = io::Cursor::new(start).chain(raw);
        let buffered = BufReader::with_capacity(BUFFER_BYTES, whole);
        if is_zstd {
            Ok(Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?))
        } else {
            Ok(Box::new(buffered))
        }
    }
}

/// A descriptor whose reads end with an error when a signal asks the program to stop.
struct Watched<R>(R);

impl<R: Read + AsFd> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if interrupt::requested() {
                return Err(io::Error::other("interrupted"));
            }
            let mut descriptors = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut descriptors, Some(&POLL)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.0.read(buf),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
