//! Damage of whole files and records: cut, missing, doubled, exchanged, of a newer version; and what somebody may plant
//! in their place.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use larder::internals::core::segment::{read_footer, scan_records};
use larder::internals::dictionary::DictionaryTable;
use larder::internals::serialization::FORMAT_VERSION;
use larder::internals::serialization::segment::{SEGMENT_HEADER_BYTES, SegmentIdentity};
use larder::{Disk, ErrorKind, OsDisk};

use super::sample::{Life, Sample};
use super::{Loss, expect_sane};
use crate::fault::{Fault, FaultKind};
use crate::memory::{DIR, Files, Memory};
use crate::saved::lay_out;
use crate::suite::{Count, Tell};

/// Cases that the jobs are dealt in turn, so that each job has some of each sort.
struct Deal<'a> {
    number: u64,
    seed: u64,
    tell: &'a Tell,
}

impl Deal<'_> {
    fn is_mine(&mut self) -> bool {
        self.number += 1;
        self.number % super::JOBS == self.seed % super::JOBS
    }

    fn check(&self, sample: &Sample, origin: &str, case: impl FnOnce() -> Result<(), Fault>) {
        self.tell.check(Count::DamagedOpens, &format!("{:?}, {origin}", sample.life), case);
    }
}

pub fn run(samples: &[Sample], seed: u64, tell: &Tell) {
    let mut deal = Deal { number: 0, seed, tell };
    for sample in samples {
        cut(sample, &mut deal);
        take_away_and_double(sample, &mut deal);
        exchange_files(sample, &mut deal);
        exchange_records(sample, &mut deal);
        make_newer(sample, &mut deal);
        plant(sample, &mut deal);
    }
}

/// What may be gone when a whole file is. A segment holds many entries. A manifest that was cut, or is not the one in
/// force, may not know what segments it had.
fn loss_of_file(name: &str) -> Loss {
    if name.starts_with("seg-") || name.starts_with("MANIFEST") || name.starts_with("dict-") {
        Loss::Any
    } else {
        Loss::GivenUp
    }
}

/// A store of which a file is gone or another opens, or says that its manifest cannot be read, which repair mends.
fn expect_sane_or_unreadable(sample: &Sample, files: &Files, name: &str) -> Result<(), Fault> {
    let memory = Memory::holding(Some(files));
    if let Err(error) = sample.open(&memory)
        && error.is_corruption()
        && name.starts_with("MANIFEST")
    {
        return Ok(());
    }
    expect_sane(sample, files, loss_of_file(name))?.go_on()
}

/// Each file, cut at each length; of the zeros of a manifest at each 64th.
fn cut(sample: &Sample, deal: &mut Deal<'_>) {
    for (name, bytes) in &sample.files {
        for len in (0..bytes.len()).filter(|len| !super::is_left_out(sample, name, *len)) {
            if deal.is_mine() {
                let mut files = sample.files.clone();
                files.insert(name.clone(), bytes[..len].to_vec());
                let origin = format!("{name} cut at {len}");
                deal.check(sample, &origin, || expect_sane_or_unreadable(sample, &files, name));
            }
        }
    }
}

fn take_away_and_double(sample: &Sample, deal: &mut Deal<'_>) {
    for (name, bytes) in &sample.files {
        if deal.is_mine() {
            let mut files = sample.files.clone();
            files.remove(name);
            let origin = format!("{name} missing");
            deal.check(sample, &origin, || expect_sane_or_unreadable(sample, &files, name));
        }
        if deal.is_mine() {
            let mut files = sample.files.clone();
            let double = name.replace("-000000000", "-000000090");
            files.insert(double.clone(), bytes.clone());
            let origin = format!("{name} again as {double}");
            deal.check(sample, &origin, || expect_sane(sample, &files, Loss::GivenUp)?.go_on());
        }
    }
}

/// Each file in the place of each other one, and both exchanged.
fn exchange_files(sample: &Sample, deal: &mut Deal<'_>) {
    for (name, bytes) in &sample.files {
        for (other, other_bytes) in sample.files.iter().filter(|(other, _)| *other != name) {
            if deal.is_mine() {
                let mut files = sample.files.clone();
                files.insert(name.clone(), other_bytes.clone());
                let origin = format!("{name} is {other}");
                deal.check(sample, &origin, || expect_sane_or_unreadable(sample, &files, name));
            }
            if name < other && deal.is_mine() {
                let mut files = sample.files.clone();
                files.insert(name.clone(), other_bytes.clone());
                files.insert(other.clone(), bytes.clone());
                // What the loss of either may cost: of a manifest most, then of a segment or dictionary.
                let rank = |name: &str| match loss_of_file(name) {
                    _ if name.starts_with("MANIFEST") => 2,
                    Loss::Any => 1,
                    _ => 0,
                };
                let worst = if rank(name) >= rank(other) { name } else { other };
                let origin = format!("{name} and {other} exchanged");
                deal.check(sample, &origin, || expect_sane_or_unreadable(sample, &files, worst));
            }
        }
    }
}

/// Where the records of a segment lie: offset and length.
fn records_of(sample: &Sample, name: &str) -> Vec<(usize, usize)> {
    let memory = Memory::holding(Some(&sample.files));
    let file = memory.disk().open_read(&Path::new(DIR).join(name)).expect("open a segment of a sample");
    let identity = SegmentIdentity::decode(&sample.files[name][..SEGMENT_HEADER_BYTES])
        .expect("a segment of a sample is whole");
    let (rows, end) = match read_footer(&file, &identity) {
        Ok((summary, rows)) => (rows, summary.records_end),
        Err(_) => {
            let scan = scan_records(&file, &identity, 0, &DictionaryTable::new()).expect("scan a segment");
            (scan.rows, scan.summary.records_end)
        }
    };
    let starts: Vec<usize> = rows.iter().map(|row| row.offset as usize).chain([end as usize]).collect();
    starts.windows(2).map(|at| (at[0], at[1] - at[0])).collect()
}

/// Each record written over each other one's place: the bytes are whole, the place is wrong.
fn exchange_records(sample: &Sample, deal: &mut Deal<'_>) {
    let segments = sample.files.keys().filter(|name| name.starts_with("seg-"));
    let places: Vec<(&String, usize, usize)> = segments
        .flat_map(|name| records_of(sample, name).into_iter().map(move |(at, len)| (name, at, len)))
        .collect();
    for (nth, from) in places.iter().enumerate() {
        for to in places.iter().filter(|to| *to != from) {
            // Of the many pairs of a large sample, some with each record.
            if (places.len() > 60 && fastrand::usize(..places.len()) > 20) || !deal.is_mine() {
                continue;
            }
            let record = &sample.files[from.0][from.1..from.1 + from.2];
            let mut files = sample.files.clone();
            let file = files.get_mut(to.0).expect("it is one of the sample's");
            let len = record.len().min(file.len() - to.1);
            file[to.1..to.1 + len].copy_from_slice(&record[..len]);
            // A long one covers the short ones that follow, and maybe the footer.
            let covered = places
                .iter()
                .filter(|place| place.0 == to.0 && place.1 < to.1 + len && place.1 + place.2 > to.1);
            let loss = Loss::Entries(covered.count());
            let origin =
                format!("record {nth} at {} of {} over that at {} of {}", from.1, from.0, to.1, to.0);
            deal.check(sample, &origin, || expect_sane(sample, &files, loss)?.end());
        }
    }
}

/// `CURRENT` and manifests of a newer version are refused, and nothing is touched; any other file of a newer version
/// does not fit and is damage.
fn make_newer(sample: &Sample, deal: &mut Deal<'_>) {
    for (name, bytes) in &sample.files {
        // The block at the start of the file, with its checksum, and with the next version.
        let block = match name {
            _ if name.starts_with("MANIFEST") => 16,
            _ if name.starts_with("seg-") => SEGMENT_HEADER_BYTES,
            _ if name == "CURRENT" => bytes.len(),
            _ => continue,
        };
        if !deal.is_mine() {
            continue;
        }
        let mut newer = bytes.clone();
        newer[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        let check = crc32c::crc32c(&newer[..block - 4]);
        newer[block - 4..block].copy_from_slice(&check.to_le_bytes());
        let mut files = sample.files.clone();
        files.insert(name.clone(), newer);
        deal.check(sample, &format!("{name} of a newer version"), || {
            if name.starts_with("seg-") {
                return expect_sane(sample, &files, Loss::Any)?.go_on();
            }
            let memory = Memory::holding(Some(&files));
            match sample.open(&memory) {
                Err(error) if error.kind() == ErrorKind::NewerFormat => {}
                Err(error) => return Err(Fault::failed("refuse a newer version", error)),
                Ok(_) => return Err(Fault::failed("refuse a newer version", "it was opened")),
            }
            let same = memory.files() == files;
            same.then_some(()).ok_or_else(|| Fault::failed("refuse a newer version", "a file was touched"))
        });
    }
}

/// On the real file system: a symbolic link to the file itself, a FIFO, a directory, a file that nobody may read in
/// the place of each file. The store opens or says why not; it never hangs, and never writes through a link.
fn plant(sample: &Sample, deal: &mut Deal<'_>) {
    for name in sample.files.keys() {
        for kind in ["link", "fifo", "directory", "forbidden"] {
            if deal.is_mine() {
                deal.check(sample, &format!("{name}: a {kind}"), || expect_planted_sane(sample, name, kind));
            }
        }
    }
}

fn expect_planted_sane(sample: &Sample, name: &str, kind: &str) -> Result<(), Fault> {
    let scratch = tempfile::tempdir().expect("create a temporary directory");
    let (store, outside) = (scratch.path().join("store"), scratch.path().join("outside"));
    lay_out(&sample.files, &store);
    let path = store.join(name);
    if kind == "forbidden" {
        run_command("chmod", &["000", path.to_str().expect("a plain path")])?;
    } else {
        OsDisk.rename(&path, &outside).expect("move the file out of the store");
        match kind {
            "link" => std::os::unix::fs::symlink(&outside, &path).expect("plant a link"),
            "fifo" => run_command("mkfifo", &[path.to_str().expect("a plain path")])?,
            _ => OsDisk.create_dir(&path).expect("plant a directory"),
        }
    }
    let opened = open_planted(sample, &store);
    if kind == "link" {
        let kept = crate::saved::files_in(scratch.path());
        if kept["outside"] != sample.files[name] {
            return Err(Fault::failed("leave a planted link alone", "it was written through"));
        }
    }
    opened
}

fn run_command(program: &str, args: &[&str]) -> Result<(), Fault> {
    let status = Command::new(program).args(args).status();
    let done = status.map_err(|error| Fault::failed(program, error))?.success();
    done.then_some(()).ok_or_else(|| Fault::failed(program, "it failed"))
}

fn open_planted(sample: &Sample, store: &Path) -> Result<(), Fault> {
    let began = Instant::now();
    let opened = loop {
        // A child of the kill suite may hold a copy of the lock for a moment.
        match sample.open_on(store) {
            Err(error) if error.is_locked() && began.elapsed() < Duration::from_secs(10) => {
                std::thread::yield_now();
            }
            opened => break opened,
        }
    };
    let cold = match opened {
        Ok(cold) => cold,
        // Words enough to act on: which file, and what the system said.
        Err(error) if error.to_string().contains(store.to_str().expect("a plain path")) => return Ok(()),
        Err(error) => return Err(Fault::failed("name the planted file", error)),
    };
    for (key, versions) in &sample.history.keys {
        let Ok(Some(value)) = cold.get(key) else { continue };
        let last = versions.last().and_then(|version| version.state.as_ref());
        if last.is_none_or(|present| present.value != value || present.is_expired(sample.now_ms)) {
            return Err(Fault::new(FaultKind::Wrong, key, format!("read {} bytes", value.len())));
        }
    }
    let life = sample.life;
    if life == Life::Killed { cold.close() } else { Ok(()) }.map_err(|error| Fault::failed("close", error))
}
