//! System calls that fail, or in which the child is killed: `tests/syscalls.sh` calls this program with
//! `LARDER_CRASH_SYSCALLS`.
//!
//! Each point is a child under strace, in which the n-th call of one kind is refused with one error or is the end. strace
//! counts calls by thread: an error meets the n-th call of each thread, a kill the first thread that comes so far. A
//! point counts if the call concerned the store: what was met is read from strace's own log.

use std::path::Path;

use serde_json::{Map, Value};

use crate::fault::{Fault, FaultKind, unwinding};
use crate::suite::faults_by_name;
use crate::witness::{Heard, Row};

pub const WORK: &str = "LARDER_CRASH_SYSCALLS";

/// Points in a row in one directory.
const ROW: u64 = 4;
/// Rounds of a child: each task once, and one that only writes.
const ROUNDS: u64 = 6;
/// Points without a call of the store before a kind is given up: a program that starts opens files too.
const STRAY_MAX: u64 = 60;

/// What is tried: a name, the calls, and what becomes of them. `+` lets all later ones fail too.
const KINDS: [(&str, &str, &str); 28] = [
    ("write_eio", "pwrite64", "error=EIO"),
    ("write_eio_lasting", "pwrite64", "error=EIO+"),
    ("write_enospc", "pwrite64", "error=ENOSPC"),
    ("write_enospc_lasting", "pwrite64", "error=ENOSPC+"),
    ("write_eintr", "pwrite64", "error=EINTR"),
    ("write_kill", "pwrite64", "signal=KILL"),
    ("sync_eio", "fsync,fdatasync", "error=EIO"),
    ("sync_enospc", "fsync,fdatasync", "error=ENOSPC"),
    ("sync_kill", "fsync,fdatasync", "signal=KILL"),
    ("open_emfile", "openat", "error=EMFILE"),
    ("open_emfile_lasting", "openat", "error=EMFILE+"),
    ("open_eacces", "openat", "error=EACCES"),
    ("open_enospc", "openat", "error=ENOSPC"),
    ("open_kill", "openat", "signal=KILL"),
    ("rename_eio", "?rename,?renameat,?renameat2", "error=EIO"),
    ("rename_enospc", "?rename,?renameat,?renameat2", "error=ENOSPC"),
    ("rename_kill", "?rename,?renameat,?renameat2", "signal=KILL"),
    ("unlink_eio", "?unlink,?unlinkat", "error=EIO"),
    ("unlink_erofs", "?unlink,?unlinkat", "error=EROFS"),
    ("unlink_kill", "?unlink,?unlinkat", "signal=KILL"),
    ("mkdir_enospc", "?mkdir,?mkdirat", "error=ENOSPC"),
    ("mkdir_kill", "?mkdir,?mkdirat", "signal=KILL"),
    ("list_eio", "getdents64", "error=EIO"),
    ("list_kill", "getdents64", "signal=KILL"),
    ("stat_eio", "statx", "error=EIO"),
    ("stat_enomem", "statx", "error=ENOMEM"),
    ("stat_kill", "statx", "signal=KILL"),
    ("read_kill", "pread64", "signal=KILL"),
];

/// What a point came to.
enum Met {
    /// A call on the store.
    Store,
    /// A call on the store, which took its refusal for damage: entries are lost, and the row ends.
    Damage,
    /// Only calls that concern something else.
    Other,
    /// None: no thread makes so many.
    Nothing,
}

/// `work`: points of each kind, first seed, and a part of the names of the kinds to try, if not all. Whether all went
/// well.
pub fn run(work: &str) -> bool {
    let mut words = work.split(' ');
    let mut number =
        || words.next().and_then(|word| word.parse::<u64>().ok()).expect("points of each kind, first seed");
    let (points, mut seed) = (number(), number());
    let wanted = words.next().unwrap_or("");
    let (mut faults, mut by_kind, mut acknowledged, mut total) = (Vec::new(), Map::new(), 0, 0);
    let mut taken_for_damage = 0;
    for (name, calls, what) in KINDS.into_iter().filter(|(name, _, _)| name.contains(wanted)) {
        let (mut done, mut nth, mut stray, mut row) = (0, 0, 0, None);
        while done < points && stray < STRAY_MAX {
            nth += 1;
            let (row_of, _, left) = row.get_or_insert_with(|| {
                seed += 1;
                let dir = tempfile::tempdir().expect("create a temporary directory");
                (Row::new(seed - 1, dir.path().join("store")), dir, ROW)
            });
            let before = row_of.acknowledged;
            let met = unwinding(|| strike(row_of, calls, what, nth));
            acknowledged += row_of.acknowledged - before;
            *left -= 1;
            let is_over = *left == 0;
            match met {
                Ok(Met::Store) => {
                    done += 1;
                    stray = 0;
                }
                Ok(Met::Damage) => {
                    done += 1;
                    taken_for_damage += 1;
                    row = None;
                    continue;
                }
                Ok(Met::Other) => stray += 1,
                Ok(Met::Nothing) => break,
                Err(fault) => {
                    println!(
                        "{name}: {what} at call {nth}, seed {}, {} left of its row\n  {fault}",
                        row_of.seed, *left
                    );
                    faults.push(fault.kind);
                    done += 1;
                    row = None;
                    continue;
                }
            }
            if is_over {
                row = None;
            }
        }
        total += done;
        by_kind.insert(name.into(), Value::from(done));
    }
    let mut line = Map::new();
    line.insert("points".into(), Value::from(total));
    line.insert("acknowledged".into(), Value::from(acknowledged));
    line.insert("taken_for_damage".into(), Value::from(taken_for_damage));
    for (name, cases) in faults_by_name(&faults) {
        line.insert(name.into(), Value::from(cases));
    }
    line.insert("by_kind".into(), Value::Object(by_kind));
    println!("{}", Value::Object(line));
    faults.is_empty() && total > 0
}

/// One child whose `nth` call is met.
fn strike(row: &mut Row, calls: &str, what: &str, nth: u64) -> Result<Met, Fault> {
    let log = tempfile::NamedTempFile::new().map_err(|error| Fault::failed("a file for strace", error))?;
    let kills = what.starts_with("signal");
    let (what, lasting) = what.strip_suffix('+').map_or((what, ""), |what| (what, "+"));
    let mut under: Vec<String> = "strace -f -qqq -y -s 200".split(' ').map(String::from).collect();
    // Stops at these calls alone, which is faster; with it strace 6.1 forgets signals from the second call on.
    if !kills {
        under.push("--seccomp-bpf".into());
    }
    under.push("-o".into());
    under.push(log.path().display().to_string());
    under.extend(["-e".into(), format!("trace={calls}")]);
    under.extend(["-e".into(), format!("inject={calls}:{what}:when={nth}{lasting}")]);
    under.push("--".into());
    let mut child = row.start(ROUNDS, &under);
    child.listen(|_| false)?;
    child.process.wait().map_err(|error| Fault::failed("wait", error))?;
    let heard = std::mem::take(&mut child.heard);
    let met = met(&heard, log.path(), &row.dir, kills)?;
    // A failed sync closes the store to writes; so may a disk that refuses everything, and a directory that cannot be
    // opened to be synced.
    let may_stick = calls.contains("sync") || !lasting.is_empty();
    let is_sync_of_directory = |error: &str| calls == "openat" && error.contains("sync ");
    let stuck = heard.stuck.clone().filter(|error| !may_stick && !is_sync_of_directory(error));
    let died = !kills && heard.pid.is_some() && !heard.ended();
    // What the medium cannot give back is damage, and gone: a segment whose file cannot be looked at among it.
    let is_damage = calls == "statx" && what == "error=EIO";
    match row.judge(heard, !kills) {
        Err(fault) if fault.kind == FaultKind::Lost && is_damage => return Ok(Met::Damage),
        outcome => outcome?,
    }
    match stuck {
        _ if died => Err(Fault { kind: FaultKind::Panicked, text: "a child died".into() }),
        Some(error) => {
            Err(Fault { kind: FaultKind::Failed, text: format!("no flush succeeds any more: {error}") })
        }
        None => Ok(met),
    }
}

#[expect(clippy::disallowed_methods, reason = "the log is strace's, and no file of a store")]
fn met(heard: &Heard, log: &Path, dir: &Path, kills: bool) -> Result<Met, Fault> {
    let log = std::fs::read(log).map_err(|error| Fault::failed("read strace's log", error))?;
    let log = String::from_utf8_lossy(&log);
    let dir = dir.to_str().expect("a path that is text");
    if kills {
        return Ok(match heard.pid {
            _ if heard.done => Met::Nothing,
            Some(_) if log.contains(dir) => Met::Store,
            _ => Met::Other,
        });
    }
    let injected: Vec<&str> = log.lines().filter(|line| line.contains("(INJECTED)")).collect();
    Ok(match &injected[..] {
        [] => Met::Nothing,
        lines if lines.iter().any(|line| line.contains(dir)) => Met::Store,
        _ => Met::Other,
    })
}
