//! Classes of records by raw size: each is compressed by parameters of its own.
//!
//! What pays depends on the size more than on anything else: a dictionary on how much of a value is its beginning, an
//! attempt at all on how long it takes. JSON cut to size, zstd 3, with a 64 KiB dictionary against alone: up to 256
//! bytes zstd alone saves little (ratio 1.0 to 1.7), and the dictionary gains 150 to 200 %; up to 2 KiB it gains 160 to
//! 220 %, at 4 KiB 109 %, at 16 KiB, where zstd changes its own parameters (`clevels.h`), still 45 %, at 64 KiB 16 %.
//! `benches/tuning.rs` prints it by size.

/// Number of classes.
pub const CLASSES: usize = 4;

/// Largest raw length (key + value, in bytes) of each class but the last, which has no limit.
pub const CLASS_BYTES_MAX: [usize; CLASSES - 1] = [256, 2 << 10, 16 << 10];

/// The class of a record of this raw length. Costs three comparisons.
pub fn class_of(raw_len: usize) -> usize {
    CLASS_BYTES_MAX.iter().filter(|bytes_max| raw_len > **bytes_max).count()
}

/// Largest raw length in a class, in bytes; `None` for the last.
pub fn class_bytes_max(class: usize) -> Option<usize> {
    CLASS_BYTES_MAX.get(class).copied()
}
