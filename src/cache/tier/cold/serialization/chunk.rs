//! A chunk of a snapshot: the slots of some partitions of the index, each field as narrow as the chunk allows.
//!
//! Slots of a partition are in the order of their tags, so the tags' first bits are said by counts instead: how many slots
//! there are with each value of them (Elias 1974, Fano 1971). All other fields are as wide as the largest in the chunk.
//! All slots of a chunk take the same whole number of bytes, 9 or 10 of the 12 that they take in memory.

use super::{FormatError, Result};

/// Bits of a slot's fields in memory, the widest that they can be here.
pub const TAG_BITS: u32 = 46;
const SLOT_BITS: u32 = 18;
const OFFSET_BITS: u32 = 24;
const HITS_BITS: u32 = 3;
const SIZE_BITS: u32 = 5;
/// Counts are of up to so many first bits of a tag.
const GROUP_BITS_MAX: u32 = 16;

/// A slot of the index: `tag 46 | slot 18` and `offset/4 24 | hits 3 | size 5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedSlot {
    /// Tag and slab slot.
    pub word: u64,
    /// Offset, hits and size class.
    pub place: u32,
}

impl PackedSlot {
    fn tag(self) -> u64 {
        self.word >> SLOT_BITS
    }

    fn slot(self) -> u64 {
        self.word & low_bits(SLOT_BITS)
    }

    fn offset(self) -> u64 {
        u64::from(self.place >> (HITS_BITS + SIZE_BITS))
    }

    fn hits(self) -> u64 {
        u64::from(self.place >> SIZE_BITS) & low_bits(HITS_BITS)
    }
}

fn low_bits(width: u32) -> u64 {
    (1 << width) - 1
}

/// How the slots of a chunk are laid out.
#[derive(Clone, Copy, Debug, Default)]
struct Layout {
    group_bits: u32,
    slot_bits: u32,
    offset_bits: u32,
    hits_bits: u32,
}

impl Layout {
    /// The one that takes fewest bytes.
    fn of(partitions: &[Vec<PackedSlot>]) -> Self {
        let (mut slot, mut offset, mut hits, mut slots) = (0, 0, 0, 0);
        for packed in partitions.iter().flatten() {
            slot |= packed.slot();
            offset |= packed.offset();
            hits |= packed.hits();
            slots += 1;
        }
        let width = |all: u64| u64::BITS - all.leading_zeros();
        let plain = Self {
            group_bits: 0,
            slot_bits: width(slot),
            offset_bits: width(offset),
            hits_bits: width(hits),
        };
        let layouts = (0..=GROUP_BITS_MAX).map(|group_bits| Self { group_bits, ..plain });
        // A count takes a byte as long as it is small.
        let cost = |layout: &Self| slots * layout.slot_bytes() + (partitions.len() << layout.group_bits);
        layouts.min_by_key(cost).unwrap_or(plain)
    }

    fn low_tag_bits(self) -> u32 {
        TAG_BITS - self.group_bits
    }

    /// Bytes of a slot.
    fn slot_bytes(self) -> usize {
        let bits = self.low_tag_bits() + self.slot_bits + self.offset_bits + self.hits_bits + SIZE_BITS;
        bits.div_ceil(8) as usize
    }

    fn put(self, packed: PackedSlot, out: &mut Vec<u8>) {
        let mut bits = u128::from(packed.tag() & low_bits(self.low_tag_bits()));
        for (field, width) in [
            (packed.slot(), self.slot_bits),
            (packed.offset(), self.offset_bits),
            (packed.hits(), self.hits_bits),
        ] {
            bits = bits << width | u128::from(field);
        }
        bits = bits << SIZE_BITS | u128::from(u64::from(packed.place) & low_bits(SIZE_BITS));
        out.extend_from_slice(&bits.to_le_bytes()[..self.slot_bytes()]);
    }

    /// The slot whose bits are the lowest of these, of a group whose tags begin with `group`.
    fn slot_of(self, bits: u128, group: u64) -> PackedSlot {
        // But for the tag, a slot is in the first word: no wide shift for each field.
        let word = bits as u64;
        let hits_at = SIZE_BITS;
        let offset_at = hits_at + self.hits_bits;
        let slot_at = offset_at + self.offset_bits;
        let size = word & low_bits(SIZE_BITS);
        let hits = word >> hits_at & low_bits(self.hits_bits);
        let offset = word >> offset_at & low_bits(self.offset_bits);
        let slot = word >> slot_at & low_bits(self.slot_bits);
        let tag = group | (bits >> (slot_at + self.slot_bits)) as u64 & low_bits(self.low_tag_bits());
        let place = offset << (HITS_BITS + SIZE_BITS) | hits << SIZE_BITS | size;
        PackedSlot { word: tag << SLOT_BITS | slot, place: place as u32 }
    }

    fn decode(header: [u8; 4]) -> Result<Self> {
        let [group_bits, slot_bits, offset_bits, hits_bits] = header.map(u32::from);
        let fits = group_bits <= GROUP_BITS_MAX
            && slot_bits <= SLOT_BITS
            && offset_bits <= OFFSET_BITS
            && hits_bits <= HITS_BITS;
        match fits {
            true => Ok(Self { group_bits, slot_bits, offset_bits, hits_bits }),
            false => Err(FormatError::Invalid("chunk layout")),
        }
    }
}

/// The bytes of a chunk, of partitions whose slots are in the order of their tags.
pub fn encode_chunk(partitions: &[Vec<PackedSlot>]) -> Vec<u8> {
    let layout = Layout::of(partitions);
    let mut out = vec![
        layout.group_bits as u8,
        layout.slot_bits as u8,
        layout.offset_bits as u8,
        layout.hits_bits as u8,
    ];
    for slots in partitions {
        let mut rest = &slots[..];
        for group in 0..1u64 << layout.group_bits {
            let count = rest.partition_point(|packed| packed.tag() >> layout.low_tag_bits() <= group);
            put_varint(count as u64, &mut out);
            rest = &rest[count..];
        }
        for packed in slots {
            layout.put(*packed, &mut out);
        }
    }
    let check = crc32c::crc32c(&out);
    out.extend_from_slice(&check.to_le_bytes());
    out
}

/// The part of a chunk that its checksum speaks for, if it holds.
///
/// # Errors
/// When it is damaged.
pub fn check_chunk(bytes: &[u8]) -> Result<&[u8]> {
    let (slots, check) = bytes.split_last_chunk::<4>().ok_or(FormatError::Short)?;
    match crc32c::crc32c(slots) == u32::from_le_bytes(*check) {
        true => Ok(slots),
        false => Err(FormatError::Checksum),
    }
}

/// The slots of each of a chunk's `partitions` partitions, from what [`check_chunk`] has passed.
///
/// # Errors
/// When it holds anything else.
pub fn decode_chunk(bytes: &[u8], partitions: usize) -> Result<Vec<PartitionSlots<'_>>> {
    let (header, mut rest) = bytes.split_first_chunk::<4>().ok_or(FormatError::Short)?;
    let layout = Layout::decode(*header)?;
    let mut out = Vec::with_capacity(partitions);
    for _ in 0..partitions {
        let mut counts = Vec::new();
        let mut left = 0usize;
        for _ in 0..1u32 << layout.group_bits {
            let count = usize::try_from(take_varint(&mut rest)?).map_err(|_| FormatError::Short)?;
            left = left.checked_add(count).ok_or(FormatError::Short)?;
            counts.push(count);
        }
        let len = left.checked_mul(layout.slot_bytes());
        let (slots, after) = len.and_then(|len| rest.split_at_checked(len)).ok_or(FormatError::Short)?;
        out.push(PartitionSlots { layout, counts, group: 0, left, rest: slots });
        rest = after;
    }
    match rest {
        [] => Ok(out),
        _ => Err(FormatError::Invalid("chunk length")),
    }
}

/// The slots of a partition, in the order of their tags if it was so written.
#[derive(Clone, Debug)]
pub struct PartitionSlots<'a> {
    layout: Layout,
    /// Slots of each group that are still to come.
    counts: Vec<usize>,
    group: usize,
    left: usize,
    rest: &'a [u8],
}

impl PartitionSlots<'_> {
    /// The first of the slots that are still to come, of this group.
    fn first(&self, rest: &[u8], group: usize) -> PackedSlot {
        let bits = match rest.first_chunk::<16>() {
            Some(bytes) => u128::from_le_bytes(*bytes),
            None => {
                let mut bytes = [0; 16];
                bytes[..rest.len()].copy_from_slice(rest);
                u128::from_le_bytes(bytes)
            }
        };
        self.layout.slot_of(bits, (group as u64) << self.layout.low_tag_bits())
    }
}

impl Iterator for PartitionSlots<'_> {
    type Item = PackedSlot;

    fn next(&mut self) -> Option<PackedSlot> {
        self.left = self.left.checked_sub(1)?;
        while self.counts[self.group] == 0 {
            self.group += 1;
        }
        self.counts[self.group] -= 1;
        let slot = self.first(self.rest, self.group);
        self.rest = &self.rest[self.layout.slot_bytes()..];
        Some(slot)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }

    /// All of them in one go, as a start reads them.
    fn fold<B, F: FnMut(B, PackedSlot) -> B>(self, init: B, mut with: F) -> B {
        let (mut folded, mut rest) = (init, self.rest);
        let slot_bytes = self.layout.slot_bytes();
        for (group, count) in self.counts.iter().enumerate().skip(self.group) {
            for _ in 0..*count {
                folded = with(folded, self.first(rest, group));
                rest = &rest[slot_bytes..];
            }
        }
        folded
    }
}

impl ExactSizeIterator for PartitionSlots<'_> {}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(FormatError::Short)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(FormatError::Invalid("varint"))
}
