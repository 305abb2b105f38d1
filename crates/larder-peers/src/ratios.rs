//! How far zstd makes the values smaller: what of a store's size is its format, and what its data.

use std::fmt::Write;

use crate::Result;
use crate::contents::{Contents, ContentsKind, Size};

/// The level that RocksDB and sled have when they are not told otherwise.
const LEVEL: i32 = 3;
/// Bytes that a block has at least; 0 is each value by itself. Values are whole.
const UNITS: [(&str, usize); 4] =
    [("each value", 0), ("4 KiB blocks", 4 << 10), ("16 KiB blocks", 16 << 10), ("64 KiB blocks", 64 << 10)];

/// A table of the ratios for the first `entries`, in the order of their keys, as a sorted store has them.
///
/// # Errors
/// If the records cannot be read, or zstd fails.
pub fn markdown(entries: u64, size: Size) -> Result<String> {
    let mut table = format!("| zstd {LEVEL} | bytes a value |");
    for (name, _) in UNITS {
        // A `String` takes whatever is written to it.
        let _ = write!(table, " {name} |");
    }
    table.push_str(&format!("\n|---|{}\n", "---:|".repeat(UNITS.len() + 1)));
    for (name, kind) in [("text", ContentsKind::Text), ("records", ContentsKind::Records)] {
        let contents = Contents::new(kind, size)?;
        let values = values_by_key(&contents, entries);
        let bytes: usize = values.iter().map(Vec::len).sum();
        let _ = write!(table, "| {name} | {} |", bytes / values.len().max(1));
        for (_, block_bytes) in UNITS {
            let _ = write!(table, " {:.2} |", bytes as f64 / compressed_bytes(&values, block_bytes)? as f64);
        }
        table.push('\n');
    }
    Ok(table)
}

fn values_by_key(contents: &Contents, entries: u64) -> Vec<Vec<u8>> {
    let mut entries: Vec<(Vec<u8>, Vec<u8>)> = (0..entries)
        .map(|id| {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            contents.key(id, &mut key);
            contents.value(id, 0, &mut value);
            (key, value)
        })
        .collect();
    entries.sort_unstable();
    entries.into_iter().map(|(_, value)| value).collect()
}

fn compressed_bytes(values: &[Vec<u8>], block_bytes: usize) -> Result<usize> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let mut block = Vec::new();
    let mut bytes = 0;
    for (at, value) in values.iter().enumerate() {
        block.extend_from_slice(value);
        if block.len() >= block_bytes || at + 1 == values.len() {
            bytes += compressor.compress(&block)?.len();
            block.clear();
        }
    }
    Ok(bytes)
}
