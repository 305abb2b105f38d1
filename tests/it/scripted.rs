//! A [`Disk`] that does what a script says: passes a call on, fails it, cuts a write short, panics, or holds it until
//! the test lets go. Files and test talk through channels; the disk itself is reached through `ColdTier::disk`.

use std::io;
use std::path::Path;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use larder::{Disk, DiskFile, OsDisk};

/// What is asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Create,
    Open,
    OpenRead,
    Rename,
    Remove,
    SyncDir,
    List,
    Read,
    WillNeed,
    RandomReads,
    WriteBack,
    GiveBack,
    Write,
    Sync,
    Stat,
}

impl Op {
    /// Whether nothing can come of it: it cannot fail.
    pub fn is_advice(self) -> bool {
        matches!(self, Self::WillNeed | Self::RandomReads | Self::WriteBack | Self::GiveBack)
    }
}

/// One call, told before it is made. `name` is the file's at the time it was opened, of a rename the old one.
#[derive(Clone, Debug)]
pub struct Call {
    pub op: Op,
    pub name: String,
    pub offset: u64,
    pub len: usize,
}

impl Call {
    /// To a segment that a compaction is writing.
    pub fn is_output(&self) -> bool {
        self.name.starts_with("seg-") && self.name.ends_with(".tmp")
    }

    /// To a segment under its own name.
    pub fn is_segment(&self) -> bool {
        self.name.starts_with("seg-") && self.name.ends_with(".lard")
    }
}

/// What becomes of a call.
pub enum Verdict {
    Pass,
    Fail(io::ErrorKind),
    /// Fails with an error of the operating system's.
    FailAs(rustix::io::Errno),
    /// Of a write only this many bytes are written.
    Short(usize),
    Panic,
    Hold(Hold),
}

/// A call that waits: it says that it is there, and goes on when it is told to, or when the test has let go of the
/// other end (so that a failed test never hangs).
#[derive(Clone)]
pub struct Hold {
    reached: Sender<Call>,
    release: Receiver<()>,
}

/// The test's end of a [`Hold`].
pub struct Gate {
    pub reached: Receiver<Call>,
    pub release: Sender<()>,
}

impl Gate {
    pub fn new() -> (Self, Hold) {
        let (reached, at) = unbounded();
        let (release, wait) = unbounded();
        (Self { reached: at, release }, Hold { reached, release: wait })
    }

    /// Waits until a call is held. The time is a watchdog's: what never comes must not hang the suite.
    pub fn wait(&self) -> Call {
        self.reached.recv_timeout(std::time::Duration::from_secs(120)).expect("the scripted call never came")
    }
}

#[derive(Clone)]
struct Wire {
    concerns: fn(&Call) -> bool,
    script: Receiver<Verdict>,
    standing: fn(&Call) -> Option<io::ErrorKind>,
    /// Holds a token while the standing failure is on.
    is_failing: Receiver<()>,
    log: Option<Sender<Call>>,
}

impl Wire {
    /// Logs a call. Of advice that is all: it cannot fail.
    fn note(&self, call: Call) {
        if let Some(log) = &self.log {
            // A test that has stopped listening has seen enough.
            let _ = log.send(call);
        }
    }

    /// Settles what becomes of a call: how many bytes of a write may be written.
    fn settle(&self, op: Op, name: &str, offset: u64, len: usize) -> io::Result<usize> {
        let call = Call { op, name: name.to_string(), offset, len };
        self.note(call.clone());
        if !self.is_failing.is_empty()
            && let Some(kind) = (self.standing)(&call)
        {
            return Err(io::Error::new(kind, "a standing failure"));
        }
        if !(self.concerns)(&call) {
            return Ok(len);
        }
        match self.script.try_recv() {
            Err(_) | Ok(Verdict::Pass) => Ok(len),
            Ok(Verdict::Fail(kind)) => Err(io::Error::new(kind, "a scripted failure")),
            Ok(Verdict::FailAs(errno)) => Err(errno.into()),
            Ok(Verdict::Short(bytes)) => Ok(bytes.min(len)),
            Ok(Verdict::Panic) => panic!("a scripted panic: {call:?}"),
            Ok(Verdict::Hold(hold)) => {
                let _ = hold.reached.send(call);
                let _ = hold.release.recv();
                Ok(len)
            }
        }
    }
}

/// The real disk behind a script.
pub struct ScriptedDisk {
    wire: Wire,
    script: Sender<Verdict>,
    failing: Sender<()>,
    log: Option<Receiver<Call>>,
    memory_bytes: Option<u64>,
}

impl ScriptedDisk {
    /// A disk whose script is about the calls that `concerns` picks. Without a script everything passes.
    pub fn new(concerns: fn(&Call) -> bool) -> Self {
        let (script, script_end) = unbounded();
        let (failing, is_failing) = bounded(1);
        let wire = Wire { concerns, script: script_end, standing: |_| None, is_failing, log: None };
        Self { wire, script, failing, log: None, memory_bytes: None }
    }

    /// Says which calls fail, and how, between `start_failing` and `stop_failing`.
    pub fn standing(mut self, standing: fn(&Call) -> Option<io::ErrorKind>) -> Self {
        self.wire.standing = standing;
        self
    }

    /// Says that there is so much memory.
    pub fn with_memory(self, bytes: u64) -> Self {
        Self { memory_bytes: Some(bytes), ..self }
    }

    /// Keeps a log of every call.
    pub fn logging(mut self) -> Self {
        let (log, log_end) = unbounded();
        self.wire.log = Some(log);
        self.log = Some(log_end);
        self
    }

    /// What becomes of the next calls concerned, in turn.
    pub fn script(&self, verdicts: impl IntoIterator<Item = Verdict>) {
        for verdict in verdicts {
            self.script.send(verdict).expect("the disk holds the other end");
        }
    }

    /// Forgets the rest of the script; returns how much was left.
    pub fn forget_script(&self) -> usize {
        self.wire.script.try_iter().count()
    }

    pub fn start_failing(&self) {
        self.failing.send(()).expect("the disk holds the other end");
    }

    pub fn stop_failing(&self) {
        self.wire.is_failing.try_recv().expect("it was failing");
    }

    /// The calls since the last look.
    pub fn take_log(&self) -> Vec<Call> {
        self.log.as_ref().expect("the disk keeps a log").try_iter().collect()
    }

    fn settle(&self, op: Op, path: &Path) -> io::Result<String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.wire.settle(op, &name, 0, 0).map(|_| name)
    }

    fn wrap(&self, name: String, file: <OsDisk as Disk>::File) -> ScriptedFile {
        ScriptedFile { name, file, wire: self.wire.clone() }
    }
}

impl Disk for ScriptedDisk {
    type File = ScriptedFile;
    type Lock = <OsDisk as Disk>::Lock;

    fn memory_bytes(&self) -> Option<u64> {
        self.memory_bytes
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<ScriptedFile> {
        let name = self.settle(Op::Create, path)?;
        Ok(self.wrap(name, OsDisk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<ScriptedFile> {
        let name = self.settle(Op::Open, path)?;
        Ok(self.wrap(name, OsDisk.open(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<ScriptedFile> {
        let name = self.settle(Op::OpenRead, path)?;
        Ok(self.wrap(name, OsDisk.open_read(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.settle(Op::Rename, from)?;
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.settle(Op::Remove, path)?;
        OsDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.settle(Op::SyncDir, dir)?;
        OsDisk.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.settle(Op::List, dir)?;
        OsDisk.list(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>> {
        OsDisk.lock(path)
    }
}

/// A file of a [`ScriptedDisk`].
pub struct ScriptedFile {
    name: String,
    file: <OsDisk as Disk>::File,
    wire: Wire,
}

impl DiskFile for ScriptedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.wire.settle(Op::Read, &self.name, offset, buf.len())?;
        self.file.read_at(buf, offset)
    }

    fn will_need(&self, offset: u64, bytes: u64) {
        self.wire.note(Call { op: Op::WillNeed, name: self.name.clone(), offset, len: bytes as usize });
    }

    fn random_reads(&self) {
        self.wire.note(Call { op: Op::RandomReads, name: self.name.clone(), offset: 0, len: 0 });
    }

    fn begin_write_back(&self, offset: u64, bytes: u64) {
        self.wire.note(Call { op: Op::WriteBack, name: self.name.clone(), offset, len: bytes as usize });
        self.file.begin_write_back(offset, bytes);
    }

    fn give_back(&self) {
        self.wire.note(Call { op: Op::GiveBack, name: self.name.clone(), offset: 0, len: 0 });
        self.file.give_back();
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let len = self.wire.settle(Op::Write, &self.name, offset, buf.len())?;
        self.file.write_at(&buf[..len], offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.wire.settle(Op::Sync, &self.name, 0, 0)?;
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.wire.settle(Op::Stat, &self.name, 0, 0)?;
        self.file.len()
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.wire.settle(Op::Stat, &self.name, 0, 0)?;
        self.file.allocated_bytes()
    }
}
