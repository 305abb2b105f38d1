//! How a command ends: the exit codes, and the one error type of the program.
//!
//! A message says what happened, where, and what to do about it.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use larder::ErrorKind;
use serde::Serialize;

/// How a command ended, after it has printed its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All done.
    Done,
    /// Something failed; it has been said.
    Failed,
    /// `verify` found damage.
    Damaged,
    /// Stopped by a signal; nothing is lost.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Damaged => 3,
            Exit::Interrupted => 130,
        })
    }
}

/// Why a command could not go on and print its result.
#[derive(Debug)]
pub enum Failure {
    /// The library refused or failed; the text says during what.
    Store(String, larder::Error),
    /// Something outside the store: an input file, stdout, an argument that only shows to be wrong when used.
    Other(String),
    /// What was asked for is not there; the store is all right.
    Absent(String),
    /// A signal asked to stop.
    Interrupted,
    /// Whoever read stdout has left.
    BrokenPipe,
}

impl Failure {
    /// A library error met while doing `what` ("open", "compact") in `dir`. The text is made only if there is one.
    pub fn store<'a>(what: &'a str, dir: &'a Path) -> impl FnOnce(larder::Error) -> Self + use<'a> {
        move |error| match error.kind() {
            ErrorKind::Cancelled => Self::Interrupted,
            _ => Self::Store(format!("{what} {}", dir.display()), error),
        }
    }

    /// The exit code this failure leads to.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Store(..) | Self::Other(_) | Self::Absent(_) => Exit::Failed,
            Self::Interrupted => Exit::Interrupted,
            Self::BrokenPipe => Exit::Done,
        }
    }

    /// The failure as the JSON object of a command that could not print its result.
    pub fn to_json(&self) -> impl Serialize + use<> {
        let kind = match self {
            Self::Store(_, error) => format!("{:?}", error.kind()).to_lowercase(),
            Self::Other(_) => "other".to_owned(),
            Self::Absent(_) => "absent".to_owned(),
            Self::Interrupted => "interrupted".to_owned(),
            Self::BrokenPipe => "brokenpipe".to_owned(),
        };
        ErrorObject { error: Problem { kind, message: self.to_string() } }
    }
}

#[derive(Serialize)]
struct ErrorObject {
    error: Problem,
}

#[derive(Serialize)]
struct Problem {
    kind: String,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(what, error) => {
                write!(f, "{what}: {error}")?;
                advice(error.kind()).map_or(Ok(()), |advice| write!(f, "\n  {advice}"))
            }
            Self::Other(message) | Self::Absent(message) => f.write_str(message),
            Self::Interrupted => f.write_str("interrupted; nothing is lost"),
            Self::BrokenPipe => f.write_str("the reader of stdout has left"),
        }
    }
}

/// What to do about a library error, where its text does not say so itself.
fn advice(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Full => {
            Some("Free space on that disk and run the command again; what was stored is still there.")
        }
        ErrorKind::ReadOnly => {
            Some("Check the disk (dmesg), then run the command again: opening anew lifts the refusal.")
        }
        ErrorKind::Corruption => {
            Some("`larder verify DIR` lists what is damaged; keep a copy before changing anything.")
        }
        ErrorKind::NewerFormat => Some("Use the newer `larder` that wrote it; nothing was changed."),
        ErrorKind::OlderFormat => Some("Read it with the `larder` that wrote it, and load the entries anew."),
        ErrorKind::Locked => {
            Some("`larder watch DIR` and `larder report DIR` show a store in use from its files.")
        }
        ErrorKind::WriteLost => Some("Check the disk, then load those records again."),
        ErrorKind::Io => Some("Check that the path exists, is on a local disk and belongs to you."),
        _ => None,
    }
}
