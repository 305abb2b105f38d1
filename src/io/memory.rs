//! How much memory there is for this process and the kernel's cache of its files.

use std::fs;
use std::path::Path;

/// The machine's memory, or less, if the process is in a control group (version 1 or 2) that may have less; `None` if
/// that cannot be told.
pub(super) fn memory_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(limit_of_group).chain(machine_bytes()).min()
}

fn machine_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of a group and those above it, by a line of `/proc/self/cgroup` (cgroups(7)).
fn limit_of_group(line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (root, limit) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let group = Path::new(root).join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|group| group.starts_with(root));
    // A group without a limit says "max", or has no such file.
    groups.filter_map(|group| fs::read_to_string(group.join(limit)).ok()?.trim().parse().ok()).min()
}
