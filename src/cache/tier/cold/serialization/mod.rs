//! The bytes on disk, and nothing else: encoders and decoders of every structure in `docs/FORMAT.md`.
//!
//! No I/O and no state here. Decoders take bytes nobody has vouched for and never panic; what they return has passed
//! its checksum.

mod bits;
pub mod chunk;
pub mod dictionary;
pub mod edit;
pub mod footer;
pub mod parity;
pub mod record;
pub mod segment;
pub mod snapshot;
pub mod tuning;

use wincode::config::Configuration;

/// Version of every structure; written in each file, refused when it is another one. Versions 1 to 3 were never released.
pub const FORMAT_VERSION: u32 = 4;

/// Why bytes were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the structure needs.
    #[error("too short")]
    Short,
    /// The magic number is another one.
    #[error("not a file of this kind")]
    Magic,
    /// Written by a newer version.
    #[error("format version {0} is newer than this program's {FORMAT_VERSION}")]
    Newer(u32),
    /// Written by an older version, before the first release.
    #[error("format version {0} is older than this program's {FORMAT_VERSION}")]
    Older(u32),
    /// The checksum differs.
    #[error("checksum mismatch")]
    Checksum,
    /// A field holds a value that was never written.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// Result of decoding.
pub type Result<T, E = FormatError> = std::result::Result<T, E>;

/// Bincode's fixed-width little-endian layout. Collections may take a gibibyte in memory, not wincode's default of 4
/// MiB: a manifest names up to a quarter of a million segments. A checksum has vouched for every length before it is
/// believed.
pub(crate) type Layout = Configuration<true, { 1 << 30 }>;

const LAYOUT: Layout = Configuration::default().with_preallocation_size_limit::<{ 1 << 30 }>();

/// Encodes a structure.
pub(crate) fn encode<T>(value: &T) -> Vec<u8>
where
    T: wincode::SchemaWrite<Layout, Src = T>,
{
    wincode::config::serialize(value, LAYOUT).expect("plain structures of bounded size always encode")
}

/// Encodes a structure of a known size into place, without an allocation.
pub(crate) fn encode_into<T>(value: &T, place: &mut [u8])
where
    T: wincode::SchemaWrite<Layout, Src = T>,
{
    let cursor = wincode::io::Cursor::new(place);
    wincode::config::serialize_into(cursor, value, LAYOUT).expect("the place has the structure's size");
}

/// Decodes a structure; all bytes have to be used up.
pub(crate) fn decode<'de, T>(bytes: &'de [u8]) -> Result<T>
where
    T: wincode::SchemaRead<'de, Layout, Dst = T>,
{
    wincode::config::deserialize_exact(bytes, LAYOUT).map_err(|_| FormatError::Invalid("structure"))
}

/// A structure that carries its own checksum: `magic, version, body, crc32c of all before`.
pub(crate) fn seal_block(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend_from_slice(magic);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(body);
    let check = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes
}

/// The body of a block made by [`seal_block`]. Another version is told apart from damage only if the checksum holds.
pub(crate) fn open_block<'a>(magic: &[u8; 8], bytes: &'a [u8]) -> Result<&'a [u8]> {
    let (head, check) = bytes.split_last_chunk::<4>().ok_or(FormatError::Short)?;
    let (found, rest) = head.split_first_chunk::<8>().ok_or(FormatError::Short)?;
    let (version, body) = rest.split_first_chunk::<4>().ok_or(FormatError::Short)?;
    if found != magic {
        return Err(FormatError::Magic);
    }
    if crc32c::crc32c(head) != u32::from_le_bytes(*check) {
        return Err(FormatError::Checksum);
    }
    match u32::from_le_bytes(*version) {
        FORMAT_VERSION => Ok(body),
        newer if newer > FORMAT_VERSION => Err(FormatError::Newer(newer)),
        older => Err(FormatError::Older(older)),
    }
}

/// Bytes that [`seal_block`] adds around a body.
pub(crate) const BLOCK_OVERHEAD: usize = 16;
