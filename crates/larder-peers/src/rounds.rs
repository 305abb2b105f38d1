//! Who runs when: every store once, then every store again, each time beginning with another one, so that what changes
//! on the machine meanwhile meets all of them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::limited::remove_group;
use crate::peer::Kind;
use crate::plan::{Plan, Workload};
use crate::stages::{READY, Stage};
use crate::{Failure, Result};

/// How long a process overwrites before it is killed.
const BEFORE_KILL: Duration = Duration::from_secs(2);

/// One run.
pub struct Rounds<'a> {
    /// The stores.
    pub kinds: &'a [Kind],
    /// What is measured.
    pub workloads: &'a [Workload],
    /// Amounts.
    pub plan: &'a Plan,
    /// Where the stores go.
    pub dir: &'a Path,
    /// How often.
    pub rounds: u64,
}

impl Rounds<'_> {
    /// Runs all; `tell` gets each result as soon as there is one.
    pub fn run(&self, tell: &mut dyn FnMut(&Map<String, Value>) -> Result<()>) -> Result<()> {
        for round in 0..self.rounds {
            for turn in 0..self.kinds.len() {
                let kind = &self.kinds[(turn + round as usize) % self.kinds.len()];
                let mut tell = |mut result: Map<String, Value>| {
                    result.insert("peer".to_owned(), json!(kind.name));
                    result.insert("round".to_owned(), json!(round));
                    result.insert("entries".to_owned(), json!(self.plan.entries));
                    tell(&result)
                };
                // One that fails is a result too; the others go on.
                if let Err(failure) = self.all_stages(kind, &mut tell) {
                    eprintln!("{}: {failure}", kind.name);
                    let failed = json!({ "workload": "failed", "failure": failure.to_string() });
                    tell(failed.as_object().cloned().unwrap_or_default())?;
                }
                self.remove(kind)?;
            }
        }
        Ok(())
    }

    fn asked(&self, kind: &Kind, workload: Workload) -> bool {
        self.workloads.contains(&workload) && kind.unable(workload).is_none()
    }

    fn all_stages(&self, kind: &Kind, tell: &mut dyn FnMut(Map<String, Value>) -> Result<()>) -> Result<()> {
        self.remove(kind)?;
        if self.workloads.iter().any(|workload| !matches!(workload, Workload::Ttl | Workload::Limited)) {
            self.stage(kind, Stage::Serve, tell)?;
        }
        if self.asked(kind, Workload::Restart) {
            self.stage(kind, Stage::Restart, tell)?;
        }
        if self.asked(kind, Workload::Kill) {
            self.kill(kind)?;
            self.stage(kind, Stage::Revive, tell)?;
        }
        // After a kill the versions are not known any more, but a deletion does not need them; one that forgets cannot
        // be deleted from by another process.
        if self.asked(kind, Workload::Delete) && kind.unable(Workload::Restart).is_none() {
            self.stage(kind, Stage::Delete, tell)?;
        }
        if self.asked(kind, Workload::Ttl) {
            self.remove(kind)?;
            self.stage(kind, Stage::Ttl, tell)?;
        }
        if self.asked(kind, Workload::Limited) {
            self.remove(kind)?;
            self.stage(kind, Stage::Limited, tell)?;
        }
        Ok(())
    }

    fn start(&self, kind: &Kind, stage: Stage) -> Result<Child> {
        let workloads: Vec<_> = self.workloads.iter().map(|workload| workload.name()).collect();
        let child = Command::new(std::env::current_exe()?)
            .args(["stage", &stage.name(), "--peer", kind.name, "--workload", &workloads.join(",")])
            .arg("--dir")
            .arg(self.dir.join(kind.name))
            .args(self.plan.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(child)
    }

    fn stage(
        &self,
        kind: &Kind,
        stage: Stage,
        tell: &mut dyn FnMut(Map<String, Value>) -> Result<()>,
    ) -> Result<()> {
        let mut child = self.start(kind, stage)?;
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines() {
                // Some stores print; what is no object is theirs.
                if let Ok(Value::Object(result)) = serde_json::from_str(&line?) {
                    tell(result)?;
                }
            }
        }
        let status = child.wait()?;
        remove_group(child.id());
        if status.success() { Ok(()) } else { Err(Failure(format!("stage {}: {status}", stage.name()))) }
    }

    fn kill(&self, kind: &Kind) -> Result<()> {
        let mut child = self.start(kind, Stage::Doomed)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            while output.read_line(&mut line)? > 0 && line.trim() != READY {
                line.clear();
            }
        }
        thread::sleep(BEFORE_KILL);
        child.kill()?;
        child.wait()?;
        if line.trim() == READY { Ok(()) } else { Err(Failure("it ended before it was killed".to_owned())) }
    }

    fn remove(&self, kind: &Kind) -> Result<()> {
        let dir = self.dir.join(kind.name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::remove_file(dir.with_extension("versions")).ok();
        Ok(())
    }
}
