//! Power cuts of a real file system: `tests/ext4.sh` mounts one, and calls this program with `LARDER_CRASH_EXT4`.
//!
//! A child works on the file system; the script shuts that down in the midst of it, which throws away everything that
//! was not synced, kills the child, and mounts the file system again. What it then holds is judged.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Map, Value};

use crate::fault::{Fault, FaultKind, unwinding};
use crate::suite::faults_by_name;
use crate::witness::Row;

pub const WORK: &str = "LARDER_CRASH_EXT4";

/// Power cuts in a row in one directory.
const ROW: u64 = 5;
/// How the file system is shut down: with its journal written out, or not.
const WAYS: [(&str, &str); 2] = [("logflush", "1"), ("nologflush", "2")];

/// `work`: rounds, first seed, mount point, script. Whether all went well.
pub fn run(work: &str) -> bool {
    let mut words = work.splitn(4, ' ');
    let mut word = || words.next().expect("rounds, first seed, mount point, script");
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let (rounds, first) = (number(word()), number(word()));
    let (mount, script) = (Path::new(word()), word());
    let (mut faults, mut done, mut acknowledged) = (Vec::new(), 0, 0);
    let mut ways = [0; WAYS.len()];
    for seed in first..first + rounds.div_ceil(ROW) {
        let mut row = Row::new(seed, mount.join(format!("store-{seed}")));
        let mut rng = Rng::with_seed(seed);
        for nth in 0..ROW.min(rounds - done) {
            let way = rng.usize(..WAYS.len());
            if let Err(fault) = unwinding(|| cut(&mut row, &mut rng, WAYS[way].1, mount, script)) {
                println!("ext4: seed {seed}, cut {nth} of its row, {}\n  {fault}", WAYS[way].0);
                faults.push(fault.kind);
                break;
            }
            ways[way] += 1;
            done += 1;
        }
        acknowledged += row.acknowledged;
        std::fs::remove_dir_all(&row.dir).expect("remove a store");
        if !faults.is_empty() {
            break;
        }
    }
    let mut line = Map::new();
    let mut put = |name: &str, cases: u64| line.insert(name.into(), Value::from(cases));
    put("rounds", done);
    for ((name, _), cases) in WAYS.iter().zip(ways) {
        put(name, cases);
    }
    put("acknowledged", acknowledged);
    for (name, cases) in faults_by_name(&faults) {
        put(name, cases as u64);
    }
    println!("{}", Value::Object(line));
    faults.is_empty() && done == rounds
}

fn call(script: &str, args: &[&str]) -> Result<(), Fault> {
    let status = Command::new(script).args(args).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        status => Err(Fault::failed(&format!("{script} {args:?}"), format!("{status:?}"))),
    }
}

/// One life, cut, recovered and judged.
fn cut(row: &mut Row, rng: &mut Rng, way: &str, mount: &Path, script: &str) -> Result<(), Fault> {
    let mount = mount.to_str().expect("a path that is text");
    let mut child = row.start(0, &[]);
    let rounds = rng.u64(..8);
    child.listen(|heard| heard.pid.is_some() && heard.rounds >= rounds)?;
    std::thread::sleep(Duration::from_micros(rng.u64(..15_000)));
    let ended = child.process.try_wait().map_err(|error| Fault::failed("wait", error))?;
    let shut_down = call(script, &["--shut-down", mount, way]);
    // It may meet the errors of a file system that is gone, and must not take them for success.
    std::thread::sleep(Duration::from_micros(rng.u64(..15_000)));
    child.process.kill().map_err(|error| Fault::failed("kill", error))?;
    child.process.wait().map_err(|error| Fault::failed("wait", error))?;
    child.listen(|_| false)?;
    shut_down?;
    call(script, &["--mount-again", mount])?;
    let mut heard = std::mem::take(&mut child.heard);
    // That calls on a file system that is gone fail is no fault.
    heard.forgive_refused_calls();
    if ended.is_some() {
        return Err(Fault { kind: FaultKind::Failed, text: "a child died before the cut".into() });
    }
    row.judge(heard, false)
}
