//! Data larger than memory: a process that puts itself into a group of its own, whose memory, page cache included, is
//! limited. What the harness has is charged to where it was before.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::contents::Contents;
use crate::driver::Draw;
use crate::stages::Job;
use crate::{Failure, Result};

/// Of the first version, where memory is a hierarchy of its own.
const FIRST: &str = "/sys/fs/cgroup/memory";
/// Of the second, where there is one hierarchy for all.
const SECOND: &str = "/sys/fs/cgroup";

/// The group of a process: a name that no other has.
fn group(process: u32) -> (PathBuf, &'static str) {
    let (root, limit) = if Path::new(FIRST).join("memory.limit_in_bytes").exists() {
        (FIRST, "memory.limit_in_bytes")
    } else {
        (SECOND, "memory.max")
    };
    (Path::new(root).join(format!("larder-peers-{process}")), limit)
}

/// Puts this process into a group of its own that may take so many bytes.
fn enter(bytes: u64) -> Result<()> {
    let (group, limit) = group(std::process::id());
    let entering = || {
        if limit == "memory.max" {
            // Fails where it is switched on already; then making the limit says whether it is.
            fs::write(Path::new(SECOND).join("cgroup.subtree_control"), "+memory").ok();
        }
        fs::create_dir_all(&group)?;
        fs::write(group.join(limit), bytes.to_string())?;
        fs::write(group.join("cgroup.procs"), std::process::id().to_string())
    };
    entering().map_err(|error: std::io::Error| {
        Failure(format!("`limited` cannot be measured here, {} cannot be made: {error}", group.display()))
    })
}

/// Removes the group of a process that has ended, if it had one.
pub fn remove_group(process: u32) {
    fs::remove_dir(group(process).0).ok();
}

impl Job<'_> {
    pub(crate) fn limited(
        &self,
        contents: &Contents,
        tell: &mut dyn FnMut(Map<String, Value>),
    ) -> Result<()> {
        let plan = self.plan;
        let logical_bytes = plan.entries * contents.entry_bytes_mean();
        let limit = (logical_bytes as f64 * plan.memory_share) as u64;
        self.serving(contents, |serving| {
            enter(limit)?;
            let mut tell = |name: &str, mut result: Map<String, Value>| {
                result.insert("workload".to_owned(), json!(name));
                result.insert("memory_limit_bytes".to_owned(), json!(limit));
                serving.finish(&mut result);
                tell(result);
            };
            tell("limited-load", serving.load()?);
            // Until what stays in memory is what reading leaves there.
            serving.driver.read(Draw::Uniform, 1)?;
            let watch = serving.watch();
            let read = serving.driver.read(Draw::Uniform, 1)?;
            let seconds = watch.elapsed().as_secs_f64();
            tell("limited-idle", watch.result("", &read, (1, seconds), self.dir)?);
            let count = (plan.entries as f64 * plan.busy_data) as u64;
            let watch = serving.watch();
            let (read, put) = serving.driver.read_beside_overwrites(count, plan.busy_seconds)?;
            let seconds = watch.elapsed().as_secs_f64();
            let mut result = watch.result("", &read, (1, seconds), self.dir)?;
            result.insert("puts_per_s".to_owned(), json!(put.calls.len() as f64 / seconds));
            result.insert("put_p99_us".to_owned(), json!(put.calls.value_at_quantile(0.99) as f64 / 1e3));
            result.insert("put_bytes".to_owned(), json!(put.put_bytes));
            tell("limited-busy", result);
            Ok(())
        })
    }
}
