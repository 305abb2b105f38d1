//! The file that explains the last tuning: written after the choice is in force, read whenever somebody asks.
//!
//! Nothing depends on it: a store that has lost it works as before, and the next tuning writes it anew.

use std::path::Path;
use std::time::Duration;

use super::names;
use super::recovery::is_damage;
use crate::cache::tier::cold::compression::CodecId;
use crate::cache::tier::cold::report::{Candidate, ClassReport, CompressionChoice, TuningReport};
use crate::cache::tier::cold::serialization::tuning::{
    CandidateEntry, ClassEntry, TuningEntry, WayEntry, decode_tuning, encode_tuning,
};
use crate::config::{Codec, Weights};
use crate::error::{Error, Result};
use crate::io::{Disk, read_all};

/// More than a report can take: its tables are bounded by the candidates there are.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The file's bytes.
pub fn encode_report(report: &TuningReport) -> Vec<u8> {
    encode_tuning(&entry_of(report))
}

/// The explanation of the last tuning; `None` if there is none or it is damaged, which is only worth a warning.
///
/// # Errors
/// What the operating system refused.
pub fn read_report<D: Disk>(disk: &D, dir: &Path) -> Result<Option<TuningReport>> {
    let path = dir.join(names::TUNING);
    let bytes = match disk.open_read(&path).and_then(|file| read_all(&file, FILE_BYTES_MAX)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is_damage(&error) => {
            tracing::warn!(path = %path.display(), %error, "the last tuning cannot be explained");
            return Ok(None);
        }
        Err(error) => return Err(Error::io("read", &path, error)),
    };
    match decode_tuning(&bytes) {
        Ok(entry) => Ok(Some(report_of(&entry))),
        Err(problem) => {
            tracing::warn!(path = %path.display(), %problem, "the last tuning cannot be explained");
            Ok(None)
        }
    }
}

fn entry_of(report: &TuningReport) -> TuningEntry {
    TuningEntry {
        at_ms: report.at_ms,
        weights: match report.weights {
            Weights::Speed => 0,
            Weights::Balanced => 1,
            Weights::Space => 2,
        },
        read_share: report.read_share,
        sampled_entries: report.sampled_entries,
        sampled_bytes: report.sampled_bytes,
        common: class_entry(&report.common),
        classes: report.classes.iter().map(class_entry).collect(),
        expected_ratio: report.expected_ratio,
        changed: report.changed,
        duration_ns: u64::try_from(report.duration.as_nanos()).unwrap_or(u64::MAX),
    }
}

fn report_of(entry: &TuningEntry) -> TuningReport {
    TuningReport {
        at_ms: entry.at_ms,
        weights: match entry.weights {
            0 => Weights::Speed,
            2 => Weights::Space,
            _ => Weights::Balanced,
        },
        read_share: entry.read_share,
        sampled_entries: entry.sampled_entries,
        sampled_bytes: entry.sampled_bytes,
        common: Box::new(class_report(&entry.common)),
        classes: entry.classes.iter().map(class_report).collect(),
        expected_ratio: entry.expected_ratio,
        changed: entry.changed,
        duration: Duration::from_nanos(entry.duration_ns),
    }
}

fn class_entry(report: &ClassReport) -> ClassEntry {
    let candidate = |candidate: &Candidate| CandidateEntry {
        way: way(candidate.choice),
        newly_trained: candidate.newly_trained,
        ratio: candidate.ratio,
        compress_ns: candidate.compress_ns,
        decompress_ns: candidate.decompress_ns,
        cost_ns: candidate.cost_ns,
    };
    ClassEntry {
        raw_bytes_max: report.raw_bytes_max,
        entries: report.entries,
        raw_bytes: report.raw_bytes,
        sampled_entries: report.sampled_entries,
        sampled_bytes: report.sampled_bytes,
        entropy_bits: report.entropy_bits,
        candidates: report.candidates.iter().map(candidate).collect(),
        chosen_at: report.chosen_at,
        chosen: way(report.chosen),
        previous: way(report.previous),
        changed: report.changed,
        is_own: report.is_own,
        gate: report.gate,
        reason: report.reason.clone(),
    }
}

fn class_report(entry: &ClassEntry) -> ClassReport {
    let candidate = |candidate: &CandidateEntry| Candidate {
        choice: choice(candidate.way),
        newly_trained: candidate.newly_trained,
        ratio: candidate.ratio,
        compress_ns: candidate.compress_ns,
        decompress_ns: candidate.decompress_ns,
        cost_ns: candidate.cost_ns,
    };
    ClassReport {
        raw_bytes_max: entry.raw_bytes_max,
        entries: entry.entries,
        raw_bytes: entry.raw_bytes,
        sampled_entries: entry.sampled_entries,
        sampled_bytes: entry.sampled_bytes,
        entropy_bits: entry.entropy_bits,
        candidates: entry.candidates.iter().map(candidate).collect(),
        chosen_at: entry.chosen_at,
        chosen: choice(entry.chosen),
        previous: choice(entry.previous),
        changed: entry.changed,
        is_own: entry.is_own,
        gate: entry.gate,
        reason: entry.reason.clone(),
    }
}

fn way(choice: CompressionChoice) -> WayEntry {
    let (codec, level) = match choice.codec {
        Codec::None => (CodecId::None, 0),
        Codec::Lz4 => (CodecId::Lz4, 0),
        Codec::Zstd(level) => (CodecId::Zstd, level),
    };
    WayEntry { codec: codec as u8, level, dictionary_bytes: choice.dictionary_bytes }
}

fn choice(way: WayEntry) -> CompressionChoice {
    let codec = match CodecId::from_u8(way.codec) {
        Some(CodecId::Zstd) => Codec::Zstd(way.level),
        Some(CodecId::Lz4) => Codec::Lz4,
        Some(CodecId::None | CodecId::ZstdFrame) | None => Codec::None,
    };
    CompressionChoice { codec, dictionary_bytes: way.dictionary_bytes }
}
