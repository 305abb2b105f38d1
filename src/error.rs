//! The one error type of the library, shaped by what a caller can do about it.
//!
//! A miss is never an error: it is `Ok(None)`. Damaged bytes on disk are never an error of `get` either: they are a
//! counted miss. An [`Error`] means the call did not do what it was asked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of every fallible call of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in one word a program can match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A configuration value or an argument is outside its limits. Nothing was changed.
    Config,
    /// The write queue is full and the caller asked not to wait (any longer). Nothing was changed.
    Busy,
    /// The store is closed, or one of its workers has failed. Reopen it.
    Closed,
    /// Another process (or another handle of this one) holds the directory.
    Locked,
    /// The store refuses writes until it is reopened, because a sync failed; reads go on.
    ReadOnly,
    /// The disk is full.
    Full,
    /// Bytes on disk are not what was written there.
    Corruption,
    /// The files were written by a newer version of this library. They were left untouched.
    NewerFormat,
    /// The files were written by a version of this library from before its first release. They were left untouched.
    OlderFormat,
    /// A write that had been accepted could not be stored; it reads as a miss.
    WriteLost,
    /// A task was cancelled, because the store closes. Nothing was lost.
    Cancelled,
    /// The operating system refused a file operation.
    Io,
}

/// An error: what happened, where, and (through [`Error::kind`] and the predicates) what can be done.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// A failed file operation: `what` is a verb phrase ("append to", "sync"), `path` the file.
    pub(crate) fn io(what: &str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Io,
        };
        Self { kind, message: format!("{what} {}", path.display()), source: Some(Box::new(source)) }
    }

    pub(crate) fn config(field: &str, problem: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Config, format!("{field}: {problem}"))
    }

    pub(crate) fn corruption(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corruption, message)
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the store is closed, or a worker of it has failed: reopen it")
    }

    pub(crate) fn locked(dir: PathBuf) -> Self {
        Self::new(
            ErrorKind::Locked,
            format!(
                "{} is in use by another store: close it first, or choose another directory",
                dir.display()
            ),
        )
    }

    /// A copy for a second listener: the kind and the whole text, without the source chain's types.
    pub(crate) fn echo(&self) -> Self {
        let mut message = self.message.clone();
        if let Some(source) = &self.source {
            message.push_str(&format!(": {source}"));
        }
        Self { kind: self.kind, message, source: None }
    }

    /// The kind, for matching.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The queue was full; nothing was changed. Try again later.
    pub fn is_busy(&self) -> bool {
        self.kind == ErrorKind::Busy
    }

    /// The disk is full. Free space, then go on; what was stored is still there.
    pub fn is_full(&self) -> bool {
        self.kind == ErrorKind::Full
    }

    /// Bytes on disk are damaged.
    pub fn is_corruption(&self) -> bool {
        self.kind == ErrorKind::Corruption
    }

    /// The store is closed or a worker of it has failed.
    pub fn is_closed(&self) -> bool {
        self.kind == ErrorKind::Closed
    }

    /// The directory is in use by another store.
    pub fn is_locked(&self) -> bool {
        self.kind == ErrorKind::Locked
    }

    /// The store refuses writes until it is reopened.
    pub fn is_read_only(&self) -> bool {
        self.kind == ErrorKind::ReadOnly
    }

    /// A configuration value or an argument is outside its limits.
    pub fn is_config(&self) -> bool {
        self.kind == ErrorKind::Config
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
