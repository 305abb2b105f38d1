//! Codecs and dictionaries: how the bytes of one entry become the bytes stored for it, and back.
//!
//! What is compressed is key ++ value in one buffer (`raw`): keys look like each other and like their values, so a
//! dictionary pays for them too. A value that would save less than an eighth is stored as it is, because every later
//! read would pay for decoding it. Nothing here does I/O, and nothing here trusts a stored byte: damaged bytes are a
//! [`DecodeError`], never a panic and never more memory than `raw_len`.
//!
//! Owners: the contexts and scratch buffers belong to the thread that uses them (thread-local, so neither a lock nor
//! an allocation stands in the way of a `put` or a `get`); prepared dictionaries belong to the
//! [`DictionaryTable`](super::dictionary::DictionaryTable).
//!
//! What every zstd frame would repeat is left out of the stored bytes: magic, frame header and block header, where they
//! follow from the record's lengths (stripped here, put back before decoding: `zstd_frame`), and the dictionary id (the
//! trained dictionary's own is zeroed; the record header names the slot instead). On values of a hundred compressed bytes
//! that is an eighth.

mod zstd_frame;

use std::cell::RefCell;
use std::ops::Range;

use lz4_flex::block::CompressTable;
use zstd::zstd_safe::{self, CCtx, DCtx};

use self::zstd_frame::{MAGIC, PREFIX_BYTES_MAX, Prefix, only_block};
use super::dictionary::Dictionary;
use super::gate::looks_random;
use crate::config::Codec;

/// Bytes of scratch room that [`decompress`] needs in front of the stored bytes: what was left out of a zstd frame goes
/// there.
pub const FRAME_ROOM: usize = PREFIX_BYTES_MAX;

/// Larger scratch buffers are given back after use, so that one large value does not cost every thread its size for
/// ever.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// A compression context larger than this is given back after a large value. Levels 1 to 9 stay below it for values
/// up to 512 KiB (5.6 MiB at level 9, 0.3 MiB for values up to 16 KiB).
const CONTEXT_BYTES_KEPT: usize = 8 << 20;

/// An LZ4 block cannot expand further than this: a match grows by 255 bytes for each byte of its length.
const LZ4_EXPANSION_MAX: usize = 255;

/// Inputs shorter than this fit lz4_flex's table of 16-bit positions.
const LZ4_SMALL_TABLE: usize = u16::MAX as usize;

/// Values must save one part in this many, or they are stored as they are.
const SAVING_DIVISOR: usize = 8;

/// The codec of one stored record, as its header names it. The level is not stored: no decoder needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CodecId {
    /// Key ++ value as they are.
    None = 0,
    /// LZ4 block format, no size prefix.
    Lz4 = 1,
    /// The only block of a zstd frame.
    Zstd = 2,
    /// A zstd frame without its magic: what has several blocks, over 128 KiB, or one of a single byte's run.
    ZstdFrame = 3,
}

impl CodecId {
    /// The codec with this number on disk, or `None` if this version knows none.
    pub fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            3 => Some(Self::ZstdFrame),
            _ => None,
        }
    }
}

/// How new values of one class are stored: codec, level, dictionary and gate. Small enough for one atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionParameters {
    /// Codec and level.
    pub codec: Codec,
    /// Slot of the dictionary (1 to 255); 0 = none.
    pub dictionary: u8,
    /// Each value is looked at before it is compressed, and stored as it is if it looks random: where values that
    /// shrink and values that do not are mixed.
    pub gate: bool,
}

impl CompressionParameters {
    /// This codec, without a dictionary and without a gate.
    pub fn plain(codec: Codec) -> Self {
        Self { codec, dictionary: 0, gate: false }
    }

    /// The parameters as one number: codec in bits 0..8, level (two's complement) in 8..16, dictionary in 16..24,
    /// gate in bit 24.
    pub fn to_bits(self) -> u32 {
        let (codec, level) = match self.codec {
            Codec::None => (CodecId::None, 0),
            Codec::Lz4 => (CodecId::Lz4, 0),
            Codec::Zstd(level) => (CodecId::Zstd, level),
        };
        u32::from_le_bytes([codec as u8, level.to_le_bytes()[0], self.dictionary, u8::from(self.gate)])
    }

    /// The parameters that [`to_bits`](Self::to_bits) gave. A number it cannot have given reads as "no compression":
    /// every record names its own codec, so nothing worse can come of it.
    pub fn from_bits(bits: u32) -> Self {
        let [codec, level, dictionary, gate] = bits.to_le_bytes();
        let codec = match CodecId::from_u8(codec) {
            Some(CodecId::Zstd) => Codec::Zstd(i8::from_le_bytes([level])),
            Some(CodecId::Lz4) => Codec::Lz4,
            Some(CodecId::None | CodecId::ZstdFrame) | None => Codec::None,
        };
        Self { codec, dictionary, gate: gate == 1 }
    }
}

/// Why stored bytes could not be decoded, or a dictionary not be prepared. To a caller of the cache this is a counted
/// miss; the text is for the log.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// zstd refused the frame; its own words.
    #[error("zstd frame: {0}")]
    Zstd(&'static str),
    /// The LZ4 block is malformed.
    #[error("lz4 block: {0}")]
    Lz4(#[from] lz4_flex::block::DecompressError),
    /// The bytes decode, but not to the length the record states.
    #[error("decoded to {found} bytes instead of {expected}")]
    Length {
        /// What the record states.
        expected: usize,
        /// What came out.
        found: usize,
    },
    /// The buffer is shorter than [`FRAME_ROOM`].
    #[error("no room for the frame's header")]
    NoRoom,
    /// zstd refuses these bytes as a dictionary, or the slot is 0.
    #[error("dictionary of {bytes} bytes in slot {slot} cannot be prepared")]
    Dictionary {
        /// Slot it was meant for.
        slot: u8,
        /// Its length.
        bytes: usize,
    },
}

/// How stored bytes are to be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// [`CodecId::None`] also for a value that would not shrink.
    pub codec: CodecId,
    /// Slot of the dictionary it was compressed with; 0 = none.
    pub dictionary: u8,
}

impl Encoding {
    const AS_IS: Self = Self { codec: CodecId::None, dictionary: 0 };
}

/// One value, ready to be written.
#[derive(Debug)]
pub struct Encoded {
    /// How `stored` is to be decoded.
    pub codec: CodecId,
    /// Slot of the dictionary it was compressed with; 0 = none.
    pub dictionary: u8,
    /// The headroom asked for (zeros), then the bytes to store.
    pub stored: Vec<u8>,
}

/// What a thread keeps for compressing.
struct Encoder {
    zstd: CCtx<'static>,
    lz4_small: CompressTable,
    lz4_large: CompressTable,
    /// key ++ value.
    raw: Vec<u8>,
    /// Compressed bytes; its length is only ever grown, so that it is zero-filled once and not once a value.
    compressed: Vec<u8>,
}

impl Encoder {
    fn new() -> Self {
        Self {
            zstd: CCtx::create(),
            lz4_small: CompressTable::small(),
            lz4_large: CompressTable::large(),
            raw: Vec::new(),
            compressed: Vec::new(),
        }
    }

    /// Compresses `self.raw` into `self.compressed`; how, and the range that is to be stored. None if the codec failed.
    fn run(&mut self, codec: Codec, dictionary: Option<&Dictionary>) -> Option<(CodecId, Range<usize>)> {
        let bound = match codec {
            Codec::None => return None,
            Codec::Lz4 => lz4_flex::block::get_maximum_output_size(self.raw.len()),
            Codec::Zstd(_) => zstd_safe::compress_bound(self.raw.len()),
        };
        if self.compressed.len() < bound {
            self.compressed.resize(bound, 0);
        }
        let target = &mut self.compressed[..];
        match (codec, dictionary) {
            (Codec::None, _) => None,
            (Codec::Lz4, _) => {
                // The small table is faster; given more, lz4_flex would replace it by a large one for good.
                let small = self.raw.len() < LZ4_SMALL_TABLE;
                let table = if small { &mut self.lz4_small } else { &mut self.lz4_large };
                let end = lz4_flex::block::compress_into_with_table(&self.raw, target, table).ok()?;
                Some((CodecId::Lz4, 0..end))
            }
            (Codec::Zstd(level), Some(dictionary)) => {
                let digest = dictionary.compressing(level);
                let end = self.zstd.compress_using_cdict(target, &self.raw, digest).ok()?;
                stored_part(&target[..end], self.raw.len())
            }
            (Codec::Zstd(level), None) => {
                let end = self.zstd.compress(target, &self.raw, i32::from(level)).ok()?;
                stored_part(&target[..end], self.raw.len())
            }
        }
    }

    /// Gives back what a large value left behind.
    fn shrink(&mut self) {
        for scratch in [&mut self.raw, &mut self.compressed] {
            if scratch.capacity() > SCRATCH_BYTES_KEPT {
                *scratch = Vec::new();
            }
        }
        if self.zstd.sizeof() > CONTEXT_BYTES_KEPT {
            self.zstd = CCtx::create();
        }
    }
}

/// What of a zstd frame is stored.
fn stored_part(frame: &[u8], raw_len: usize) -> Option<(CodecId, Range<usize>)> {
    match only_block(frame, raw_len) {
        Some(block) => Some((CodecId::Zstd, block)),
        None => frame.starts_with(&MAGIC).then_some((CodecId::ZstdFrame, MAGIC.len()..frame.len())),
    }
}

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
    // Single-pass decoding keeps no window, so this stays at its initial size (about 100 KiB) whatever is decoded.
    static DECODER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Compresses key ++ value as `parameters` say, with `headroom` zero bytes in front; [`compress_into`] says the rest.
pub fn compress(
    key: &[u8],
    value: &[u8],
    parameters: CompressionParameters,
    dictionary: Option<&Dictionary>,
    headroom: usize,
) -> Encoded {
    let mut stored = vec![0; headroom];
    let Encoding { codec, dictionary } = compress_into(key, value, parameters, dictionary, &mut stored);
    Encoded { codec, dictionary, stored }
}

/// Compresses key ++ value as `parameters` say, and appends to `stored` the bytes to store.
///
/// `dictionary` must be the one in slot `parameters.dictionary` (none if that is 0); without it a zstd value is
/// compressed alone, and the result says so. Only zstd uses it. A value that the gate stops, or that saves less than an
/// eighth, is stored as it is.
///
/// Cost: at most one allocation, none if `stored` has the room; for a 940-byte JSON value 1.4 to 2.5 us at zstd 1 and 3
/// with a dictionary (quiet and busy machine), 4 to 6 us without. Scratch memory: about twice the raw length while it
/// runs, at most 2 MiB a thread afterwards.
pub fn compress_into(
    key: &[u8],
    value: &[u8],
    parameters: CompressionParameters,
    dictionary: Option<&Dictionary>,
    stored: &mut Vec<u8>,
) -> Encoding {
    if parameters.codec == Codec::None || (parameters.gate && looks_random(key, value)) {
        return store_as_is(key, value, stored);
    }
    ENCODER.with_borrow_mut(|encoder| {
        encoder.raw.clear();
        encoder.raw.reserve(key.len() + value.len());
        encoder.raw.extend_from_slice(key);
        encoder.raw.extend_from_slice(value);
        let raw_len = encoder.raw.len();
        // A codec that fails (only for want of memory) costs space, never the value.
        let encoding = match encoder.run(parameters.codec, dictionary) {
            Some((codec, range)) if saves_enough(range.len(), raw_len) => {
                stored.extend_from_slice(&encoder.compressed[range]);
                let dictionary = dictionary.filter(|_| codec != CodecId::Lz4).map_or(0, Dictionary::slot);
                Encoding { codec, dictionary }
            }
            _ => store_as_is(key, value, stored),
        };
        if raw_len > SCRATCH_BYTES_KEPT / 2 {
            encoder.shrink();
        }
        encoding
    })
}

fn store_as_is(key: &[u8], value: &[u8], stored: &mut Vec<u8>) -> Encoding {
    stored.reserve(key.len() + value.len());
    stored.extend_from_slice(key);
    stored.extend_from_slice(value);
    Encoding::AS_IS
}

/// Whether `stored` bytes instead of `raw` save an eighth at least: the rule by which values are stored as they are.
pub fn saves_enough(stored: usize, raw: usize) -> bool {
    stored < raw && (raw - stored).saturating_mul(SAVING_DIVISOR) >= raw
}

/// Decodes one record's bytes into `out`, which then holds exactly `raw_len` bytes (key ++ value).
///
/// `framed` is [`FRAME_ROOM`] bytes that may be overwritten, then the stored bytes. `dictionary` must be the one the
/// record names, or none. `raw_len` is the record's claim: the caller must have limited it (64 MiB + 64 KiB), because
/// it is what is allocated; a frame that holds more fails, however much it would expand to.
///
/// Cost: at most one allocation, none if `out` has the room; for a 940-byte JSON value 0.5 to 0.7 us with a
/// dictionary, 1.8 us without.
///
/// # Errors
/// [`DecodeError`] for whatever does not decode to `raw_len` bytes; `out` is then empty. Any bytes may be given.
pub fn decompress(
    codec: CodecId,
    dictionary: Option<&Dictionary>,
    framed: &mut [u8],
    raw_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    out.clear();
    let Some((_, stored)) = framed.split_first_chunk::<FRAME_ROOM>() else {
        return Err(DecodeError::NoRoom);
    };
    let decoded = match codec {
        CodecId::None => decode_plain(stored, raw_len, out),
        CodecId::Lz4 => decode_lz4(stored, raw_len, out),
        CodecId::Zstd => match Prefix::new(raw_len, stored.len()) {
            Some(prefix) => decode_zstd(dictionary, with_prefix(framed, prefix.as_bytes()), raw_len, out),
            None => Err(DecodeError::Length { expected: raw_len, found: 0 }),
        },
        CodecId::ZstdFrame => decode_zstd(dictionary, with_prefix(framed, &MAGIC), raw_len, out),
    };
    let length = match out.len() {
        found if found == raw_len => Ok(()),
        found => Err(DecodeError::Length { expected: raw_len, found }),
    };
    let checked = decoded.and(length);
    if checked.is_err() {
        // Half a value must not pass for one.
        out.clear();
    }
    checked
}

/// The stored bytes with what was left out of them in front.
fn with_prefix<'a>(framed: &'a mut [u8], prefix: &[u8]) -> &'a [u8] {
    let start = FRAME_ROOM - prefix.len();
    framed[start..FRAME_ROOM].copy_from_slice(prefix);
    &framed[start..]
}

fn decode_plain(stored: &[u8], raw_len: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    if stored.len() != raw_len {
        return Err(DecodeError::Length { expected: raw_len, found: stored.len() });
    }
    out.reserve_exact(raw_len);
    out.extend_from_slice(stored);
    Ok(())
}

fn decode_lz4(stored: &[u8], raw_len: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    // A false length is refused before it is allocated.
    let reachable = stored.len().saturating_mul(LZ4_EXPANSION_MAX);
    if raw_len > reachable {
        return Err(DecodeError::Length { expected: raw_len, found: reachable });
    }
    out.reserve_exact(raw_len);
    // The safe decoder wants initialised memory.
    out.resize(raw_len, 0);
    let found = lz4_flex::block::decompress_into(stored, out)?;
    out.truncate(found);
    Ok(())
}

fn decode_zstd(
    dictionary: Option<&Dictionary>,
    frame: &[u8],
    raw_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    out.reserve_exact(raw_len);
    // Writes into the spare capacity (no zero-fill) and never past it: the allocation is the limit.
    let result = DECODER.with_borrow_mut(|decoder| match dictionary {
        Some(dictionary) => decoder.decompress_using_ddict(out, frame, dictionary.decompressing()),
        None => decoder.decompress(out, frame),
    });
    result.map(|_| ()).map_err(|code| DecodeError::Zstd(zstd_safe::get_error_name(code)))
}
