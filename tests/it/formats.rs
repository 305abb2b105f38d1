//! The bytes on disk: golden vectors written by hand from `docs/FORMAT.md`, round trips of whatever can be encoded, and
//! damage, which never panics a decoder and never passes for content. And a store of this version, kept as it was made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use larder::internals::serialization::dictionary::{decode_dictionary, dictionary_id, encode_dictionary};
use larder::internals::serialization::edit::{
    BLOCK_BYTES, ChoiceEntry, DictionaryEntry, Edit, ManifestState, ParametersEntry, SegmentEntry,
    SnapshotEntry, SyncedTail, check_manifest_header, decode_edits, encode_edit, manifest_header,
};
use larder::internals::serialization::footer::{FooterRow, TRAILER_BYTES, VerifiedTrailer, encode_footer};
use larder::internals::serialization::record::{
    Place, RECORD_HEADER_BYTES, RecordMeta, UnverifiedRecord, append_record, payload_sum,
};
use larder::internals::serialization::segment::{
    LogKind, SEGMENT_HEADER_BYTES, SegmentIdentity, SegmentSummary,
};
use larder::internals::serialization::snapshot::{
    CHUNKS, PACKED_SLOT_BYTES, SNAPSHOT_HEADER_BYTES, SnapshotHeader, decode_chunk, decode_header,
    decode_slot_table, encode_chunk, encode_header, encode_slot_table,
};
use larder::internals::serialization::{FORMAT_VERSION, FormatError};
use larder::{ColdTier, Compression, ManualClock, OsDisk, Ttl};
use proptest::prelude::*;
use proptest::strategy::Union;

use crate::stores::{
    Model, START_MS, compact, config, expect_absent, expect_exactly, is_dictionary, is_segment, is_snapshot,
    json, key, open, open_on, read_image, rebuild, root, scratch, tune, write_image,
};

/// CRC-32C bit by bit, so that no table of the library's is trusted.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 },
        )
    })
}

/// Fields one after the other, each of a fixed width, little-endian: bincode's layout with fixed-width integers.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn put(mut self, value: impl Into<u128>, bytes: usize) -> Self {
        self.0.extend_from_slice(&value.into().to_le_bytes()[..bytes]);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Closes a block: magic and version in front, the checksum behind.
    fn block(self, magic: &[u8; 8]) -> Vec<u8> {
        let mut bytes = Self::default().raw(magic).put(1u32, 4).raw(&self.0).0;
        let check = crc(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const NONCE: u64 = 0x1122_3344_5566_7788;
const PLACE: Place = Place { nonce: NONCE, base_sequence: 1000, offset: 64 };
const STORED: [u8; 3] = [0xaa, 0xbb, 0xcc];
const DICTIONARY_ID: u64 = 0x0102_0304_0506_0708;

fn golden_meta() -> RecordMeta {
    RecordMeta {
        sequence: 1005,
        expires_at_ms: 1_760_000_001_234,
        key_len: 2,
        raw_len: 5,
        stored_len: 3,
        codec: 2,
        dictionary: 7,
        tombstone: false,
        first: true,
        outlasts: false,
    }
}

fn golden_record() -> Vec<u8> {
    hex("496190ff 05000000 d2c42cc89901 0100 07 03000010 05000010 aabbcc")
}

fn golden_identity() -> SegmentIdentity {
    SegmentIdentity {
        store_id: 0xA1A2_A3A4_A5A6_A7A8,
        segment_id: 42,
        nonce: NONCE,
        base_sequence: 1000,
        log: LogKind::Survivors,
        group: 3,
    }
}

fn golden_rows() -> Vec<FooterRow> {
    let row = |hash, sequence, expires_at_ms, offset, [tombstone, first, outlasts]: [bool; 3]| FooterRow {
        hash,
        sequence,
        expires_at_ms,
        offset,
        tombstone,
        first,
        outlasts,
    };
    vec![
        row(0x0123_4567_89AB_CDEF, 1005, 1_760_000_001_234, 64, [false, true, false]),
        row(0xFEDC_BA98_7654_3210, 1001, 0, 96, [true, false, false]),
        row(0x1111_1111_1111_1111, 1009, 1_760_000_002_000, 128, [false, false, true]),
    ]
}

/// What the golden rows add up to; `file_bytes` is set by the encoder.
fn golden_summary() -> SegmentSummary {
    SegmentSummary {
        records_end: 160,
        file_bytes: 0,
        records: 3,
        tombstones: 1,
        unexpiring: 1,
        expiry_min_ms: 1_760_000_001_234,
        expiry_max_ms: 1_760_000_002_000,
        sequence_min: 1001,
        sequence_max: 1009,
        shadow_max: 1009,
        exposing_max: 1001,
        raw_bytes: 500,
        payload_bytes: 120,
        dictionaries: [1 << 7, 0, 0, 1 << 63],
    }
}

fn golden_footer() -> Vec<u8> {
    hex("0204040a10000000e903000000000000d2c42cc899010000efcdab89674523011032547698badcfe1111111111111111
         020a20080010f15f4c41524446545231010000002a000000000000008877665544332211a0000000000000007c010000
         00000000030000000100000001000000d2c42cc899010000d0c72cc899010000e903000000000000f103000000000000
         f103000000000000e903000000000000f401000000000000780000000000000080000000000000000000000000000000
         00000000000000000000000000000080380000003b4b42a481e03f23")
}

#[test]
fn a_record_is_laid_out_as_documented_field_by_field() {
    let (meta, sum) = (golden_meta(), payload_sum(DICTIONARY_ID, &STORED));
    assert_eq!(sum, crc(&Fields::default().put(DICTIONARY_ID, 8).raw(&STORED).0));
    let header = Fields::default()
        .put(1005u64 - 1000, 4)
        .put(1_760_000_001_234u64, 6)
        .put(2u8 - 1, 2)
        .put(7u8, 1)
        .put(3u32 | 1 << 28, 4)
        .put(5u32 | 2 << 27, 4)
        .0;
    let check = crc(&Fields::default().put(NONCE, 8).put(64u8, 8).raw(&header).put(sum, 4).0);
    let record = Fields::default().put(check, 4).raw(&header).raw(&STORED).0;
    assert_eq!(record.len(), RECORD_HEADER_BYTES + STORED.len());
    assert_eq!(record, golden_record(), "computed independently");

    let mut out = vec![9; 8];
    append_record(&mut out, &meta, &STORED, sum, Place { offset: 64, ..PLACE });
    assert_eq!(out[..8], [9; 8]);
    assert_eq!(out[8..], record, "28 bytes need no padding");
    let parsed = UnverifiedRecord::parse(&record, 1000).unwrap();
    assert_eq!((parsed.stored_len(), parsed.dictionary()), (3, 7));
    assert_eq!(parsed.verify(sum, NONCE, 64).unwrap(), meta);
    // Another place, another segment, another content, another dictionary: none of them passes.
    assert_eq!(parsed.verify(sum, NONCE, 68), Err(FormatError::Checksum));
    assert_eq!(parsed.verify(sum, NONCE + 1, 64), Err(FormatError::Checksum));
    assert_eq!(parsed.verify(sum ^ 1, NONCE, 64), Err(FormatError::Checksum));
    assert_eq!(parsed.verify(payload_sum(DICTIONARY_ID + 1, &STORED), NONCE, 64), Err(FormatError::Checksum));

    // A tombstone: bit 27; padding with zeros up to a multiple of four.
    let tombstone = RecordMeta {
        raw_len: 2,
        stored_len: 2,
        codec: 0,
        dictionary: 0,
        expires_at_ms: 0,
        tombstone: true,
        first: false,
        outlasts: false,
        ..meta
    };
    let mut out = Vec::new();
    append_record(&mut out, &tombstone, b"k1", payload_sum(0, b"k1"), PLACE);
    assert_eq!(out.len(), 28);
    assert_eq!(
        out[4..],
        Fields::default()
            .put(5u8, 4)
            .put(0u8, 6)
            .put(1u8, 2)
            .put(0u8, 1)
            .put(2u32 | 1 << 27, 4)
            .put(2u8, 4)
            .raw(b"k1\0")
            .0
    );
}

#[test]
fn a_segment_header_is_laid_out_as_documented() {
    let identity = golden_identity();
    let bytes = Fields::default()
        .put(identity.store_id, 8)
        .put(42u8, 8)
        .put(NONCE, 8)
        .put(1000u32, 8)
        .put(1u8, 1)
        .put(3u8, 1)
        .put(0u8, 14)
        .block(b"LARDSEG1");
    assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES);
    let golden =
        "4c41524453454731 01000000 a8a7a6a5a4a3a2a1 2a00000000000000 8877665544332211 e803000000000000
                  01 03 0000000000000000000000000000 ddb9afb3";
    assert_eq!(bytes, hex(golden));
    assert_eq!(identity.encode(), bytes);
    assert_eq!(SegmentIdentity::decode(&bytes).unwrap(), identity);
}

#[test]
fn a_footer_is_laid_out_as_documented() {
    let (rows, mut summary) = (golden_rows(), golden_summary());
    let footer = encode_footer(42, NONCE, 160, &rows, &mut summary);
    assert_eq!(summary.file_bytes, 160 + footer.len() as u64);
    let golden = golden_footer();
    assert_eq!(footer, golden);
    let (packed, trailer) = golden.split_at(golden.len() - TRAILER_BYTES);
    // The checksums of the golden bytes, by hand.
    assert_eq!(crc(packed).to_le_bytes(), trailer[156..160]);
    assert_eq!(crc(&trailer[..160]).to_le_bytes(), trailer[160..]);
    let read = VerifiedTrailer::decode(trailer, 42, NONCE, summary.file_bytes).unwrap();
    assert_eq!(read.summary, summary);
    assert_eq!(read.rows_at(), (160, packed.len()));
    assert_eq!(read.decode_rows(packed).unwrap(), rows);
    // Of another segment, another nonce, another length: refused.
    assert!(VerifiedTrailer::decode(trailer, 43, NONCE, summary.file_bytes).is_err());
    assert!(VerifiedTrailer::decode(trailer, 42, NONCE + 1, summary.file_bytes).is_err());
    assert!(VerifiedTrailer::decode(trailer, 42, NONCE, summary.file_bytes + 4).is_err());
    assert!(VerifiedTrailer::decode(trailer, 42, NONCE, 0).is_err());
}

fn summary_fields(fields: Fields, summary: &SegmentSummary) -> Fields {
    let fields = fields
        .put(summary.records_end, 8)
        .put(summary.file_bytes, 8)
        .put(summary.records, 4)
        .put(summary.tombstones, 4)
        .put(summary.unexpiring, 4)
        .put(summary.expiry_min_ms, 8)
        .put(summary.expiry_max_ms, 8)
        .put(summary.sequence_min, 8)
        .put(summary.sequence_max, 8)
        .put(summary.shadow_max, 8)
        .put(summary.exposing_max, 8)
        .put(summary.raw_bytes, 8)
        .put(summary.payload_bytes, 8);
    summary.dictionaries.iter().fold(fields, |fields, word| fields.put(*word, 8))
}

fn entry_fields(fields: Fields, entry: &SegmentEntry) -> Fields {
    let identity = &entry.identity;
    let fields = fields
        .put(identity.store_id, 8)
        .put(identity.segment_id, 8)
        .put(identity.nonce, 8)
        .put(identity.base_sequence, 8)
        .put(u8::from(identity.log == LogKind::Survivors), 1)
        .put(identity.group, 1)
        .put(entry.slot, 4)
        .put(entry.added_by, 8);
    match &entry.sealed {
        None => fields.put(0u8, 1),
        Some(summary) => summary_fields(fields.put(1u8, 1), summary),
    }
}

fn golden_entry(segment_id: u64, is_sealed: bool) -> SegmentEntry {
    SegmentEntry {
        identity: SegmentIdentity { segment_id, ..golden_identity() },
        slot: 77,
        added_by: 12,
        sealed: is_sealed.then(golden_summary),
    }
}

const fn choice(codec: u8, level: i8, dictionary: u8, gate: u8) -> ChoiceEntry {
    ChoiceEntry { codec, level, dictionary, gate }
}

const PARAMETERS: ParametersEntry = ParametersEntry {
    common: choice(2, -5, 9, 0),
    classes: [choice(2, -5, 9, 0), choice(2, 12, 9, 1), choice(1, 0, 0, 0), choice(0, 0, 0, 0)],
    expected_ratio: 6.25,
    since_file_id: 31,
};
const SNAPSHOT: SnapshotEntry = SnapshotEntry { id: 50, covers: 900, covers_edit: 11, file_bytes: 20_000 };
const TAIL: SyncedTail = SyncedTail { segment_id: 42, records_end: 4096, shadow_max: 1009 };

fn parameter_fields(fields: Fields) -> Fields {
    // Common, then the classes: codec, level, dictionary, gate.
    let choices = "02fb0900 02fb0900 020c0901 01000000 00000000";
    fields.raw(&hex(choices)).put(6.25f32.to_bits(), 4).put(31u8, 8)
}

fn snapshot_fields(fields: Fields) -> Fields {
    fields.put(50u8, 8).put(900u32, 8).put(11u8, 8).put(20_000u32, 8)
}

fn golden_state() -> ManifestState {
    let dictionary = DictionaryEntry { slot: 9, id: DICTIONARY_ID, bytes: 16_384 };
    ManifestState {
        edit: 33,
        segments: [(41, golden_entry(41, true)), (42, golden_entry(42, false))].into(),
        dictionaries: [(9, dictionary)].into(),
        snapshots: vec![SNAPSHOT],
        watermark: 800,
        next_file_id: 51,
        next_sequence: 1010,
        tails: vec![TAIL],
        damaged: true,
        ..ManifestState::new(1, 2, 1_760_000_001_234, PARAMETERS)
    }
}

/// Every kind of edit with the bytes of its payload, by hand.
fn golden_edits() -> Vec<(Edit, Vec<u8>)> {
    let tag = |number: u8| Fields::default().put(number, 1);
    let tail = |fields: Fields| fields.put(42u8, 8).put(4096u32, 8).put(1009u32, 8);
    let state = golden_state();
    let fields = tag(0).put(1u8, 8).put(2u8, 8).put(33u8, 8).put(2u8, 8);
    let fields = entry_fields(fields.put(41u8, 8), &golden_entry(41, true));
    let fields = entry_fields(fields.put(42u8, 8), &golden_entry(42, false));
    let fields = fields.put(1u8, 8).put(9u8, 1).put(9u8, 1).put(DICTIONARY_ID, 8).put(16_384u32, 4);
    let fields = snapshot_fields(fields.put(1u8, 8));
    let fields = fields.put(800u32, 8).put(51u8, 8).put(1010u32, 8).put(1_760_000_001_234u64, 8);
    let whole_state = tail(parameter_fields(fields).put(1u8, 8)).put(1u8, 1).0;
    vec![
        (Edit::State(Box::new(state)), whole_state),
        (Edit::AddSegment(golden_entry(42, false)), entry_fields(tag(1), &golden_entry(42, false)).0),
        (
            Edit::SealSegment { segment_id: 42, summary: golden_summary() },
            summary_fields(tag(2).put(42u8, 8), &golden_summary()).0,
        ),
        (
            Edit::Replace { add: vec![golden_entry(43, true)], drop: vec![40, 41], watermark: 800 },
            entry_fields(tag(3).put(1u8, 8), &golden_entry(43, true))
                .put(2u8, 8)
                .put(40u8, 8)
                .put(41u8, 8)
                .put(800u32, 8)
                .0,
        ),
        (
            Edit::AddDictionary(DictionaryEntry { slot: 9, id: DICTIONARY_ID, bytes: 16_384 }),
            tag(4).put(9u8, 1).put(DICTIONARY_ID, 8).put(16_384u32, 4).0,
        ),
        (Edit::DropDictionary(9), tag(5).put(9u8, 1).0),
        (
            Edit::AddSnapshot { snapshot: SNAPSHOT, keep: vec![44] },
            snapshot_fields(tag(6)).put(1u8, 8).put(44u8, 8).0,
        ),
        (Edit::SetParameters(PARAMETERS), parameter_fields(tag(7)).0),
        (
            Edit::SaveClock { clock_ms: 1_760_000_001_234, next_sequence: 77, tails: vec![TAIL] },
            tail(tag(8).put(1_760_000_001_234u64, 8).put(77u8, 8).put(1u8, 8)).0,
        ),
        (Edit::DropSnapshots(vec![50, 44]), tag(9).put(2u8, 8).put(50u8, 8).put(44u8, 8).0),
    ]
}

#[test]
fn every_edit_is_laid_out_as_documented_and_written_twice() {
    let mut file = manifest_header();
    assert_eq!(file[..16], hex("4c4152444d414e31 01000000 7fe14198"));
    assert!(file.len() == BLOCK_BYTES && file[16..].iter().all(|byte| *byte == 0));
    check_manifest_header(&file).unwrap();
    let edits = golden_edits();
    for (number, (edit, payload)) in (33u64..).zip(&edits) {
        let numbers = || Fields::default().put(number, 8).put(number - 1, 8);
        let check = crc(&numbers().raw(payload).0);
        let lengths = Fields::default().put(payload.len() as u32, 4).put(check, 4);
        let mut copy = lengths.raw(&numbers().0).raw(payload).0;
        copy.resize(copy.len().next_multiple_of(BLOCK_BYTES), 0);
        let bytes = encode_edit(number, number - 1, edit);
        assert_eq!(bytes, [&copy[..], &copy[..]].concat(), "{edit:?}");
        file.extend_from_slice(&bytes);
    }
    // Once wholly literal: the clock of edit 9.
    let literal = "31000000 88b813c2 0900000000000000 0800000000000000
                   08 d2c42cc899010000 4d00000000000000 0100000000000000
                   2a00000000000000 0010000000000000 f103000000000000";
    assert_eq!(encode_edit(9, 8, &edits[8].0)[..73], hex(literal));

    let log = decode_edits(&file);
    assert_eq!(log.end, file.len());
    assert_eq!((log.repaired, log.broken), (0, false));
    let expected: Vec<_> = (33u64..).zip(edits.into_iter().map(|(edit, _)| edit)).collect();
    assert_eq!(log.edits, expected);
}

#[test]
fn the_pointer_to_the_manifest_is_laid_out_as_documented() {
    let dir = scratch();
    open(dir.path()).close().unwrap();
    let current = read_image(dir.path())["CURRENT"].clone();
    assert_eq!(current, Fields::default().put(1u8, 8).block(b"LARDCUR1"));
    let seven = Fields::default().put(7u8, 8).block(b"LARDCUR1");
    assert_eq!(seven, hex("4c41524443555231 01000000 0700000000000000 342f48bf"));
}

fn golden_snapshot_header() -> SnapshotHeader {
    let mut chunk_bytes = [68; CHUNKS];
    chunk_bytes[255] = 300;
    SnapshotHeader {
        store_id: 1,
        snapshot_id: 50,
        covers: 900,
        covers_edit: 11,
        entries: 12,
        chunk_bytes,
        slot_table_bytes: 48,
    }
}

/// Slots of a few partitions, some empty, one with more than a varint's byte holds.
fn golden_partitions() -> Vec<Vec<[u8; PACKED_SLOT_BYTES]>> {
    let slots = |count: usize, seed: u8| (0..count).map(|at| [seed ^ at as u8; PACKED_SLOT_BYTES]).collect();
    vec![slots(2, 5), Vec::new(), slots(130, 9), slots(1, 77)]
}

#[test]
fn a_snapshot_is_laid_out_as_documented() {
    let header = golden_snapshot_header();
    let fields = Fields::default().put(1u8, 8).put(50u8, 8).put(900u32, 8).put(11u8, 8).put(12u8, 8);
    let fields = header.chunk_bytes.iter().fold(fields, |fields, len| fields.put(*len, 4));
    let bytes = fields.put(48u8, 4).block(b"LARDSNP1");
    assert_eq!(bytes.len(), SNAPSHOT_HEADER_BYTES);
    assert_eq!(encode_header(&header), bytes);
    assert_eq!(decode_header(&bytes).unwrap(), header);

    let partitions = golden_partitions();
    let mut chunk = vec![2];
    chunk.extend(partitions[0].concat());
    chunk.extend([0, 0x82, 0x01]);
    chunk.extend(partitions[2].concat());
    chunk.push(1);
    chunk.extend(partitions[3].concat());
    let check = crc(&chunk).to_le_bytes();
    chunk.extend(check);
    assert_eq!(encode_chunk(&partitions), chunk);
    assert_eq!(decode_chunk(&chunk, 4).unwrap(), partitions);
    assert!(decode_chunk(&chunk, 3).is_err() && decode_chunk(&chunk, 5).is_err());

    let slots = [(0u32, 41u64), (77, 42)];
    let table = Fields::default().put(2u8, 8).put(0u8, 4).put(41u8, 8).put(77u8, 4).put(42u8, 8);
    let table = table.block(b"LARDSLT1");
    assert_eq!(encode_slot_table(&slots), table);
    assert_eq!(decode_slot_table(&table).unwrap(), slots);
}

#[test]
fn a_dictionary_file_is_laid_out_as_documented() {
    let content = b"a dictionary's content".to_vec();
    let id = dictionary_id(&content);
    assert_eq!(dictionary_id(b""), 0x2D06_8005_38D3_94C2, "xxh3-64 of nothing, from its specification");
    let block = Fields::default()
        .put(7u8, 1)
        .put(id, 8)
        .put(content.len() as u64, 8)
        .raw(&content)
        .block(b"LARDDIC1");
    assert_eq!(block.len(), 33 + content.len());
    let file = [&block[..], &block[..]].concat();
    assert_eq!(encode_dictionary(7, &content), file);
    assert_eq!(decode_dictionary(&file, id, content.len()).unwrap(), (content.clone(), false));
    assert!(decode_dictionary(&file, id + 1, content.len()).is_err(), "another dictionary");
}

/// Every way to cut the bytes, and to flip one of their bits or bytes.
fn damaged(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let cuts = (0..bytes.len()).map(|len| bytes[..len].to_vec());
    let masks = [1, 2, 4, 8, 16, 32, 64, 128, 255];
    let flips = (0..bytes.len()).flat_map(move |at| {
        masks.map(|mask| {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= mask;
            flipped
        })
    });
    cuts.chain(flips)
}

#[test]
fn no_damage_of_a_record_passes_for_a_record() {
    let record = golden_record();
    let mut refused = 0;
    for bytes in damaged(&record) {
        let read = UnverifiedRecord::parse(&bytes, 1000).and_then(|parsed| {
            let stored = bytes
                .get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + parsed.stored_len())
                .ok_or(FormatError::Short)?;
            parsed.verify(payload_sum(DICTIONARY_ID, stored), NONCE, 64)
        });
        assert!(read.is_err(), "{read:?} from {bytes:02x?}");
        refused += 1;
    }
    assert_eq!(refused, record.len() * 10);
}

#[test]
fn no_damage_of_a_segment_header_passes_for_one() {
    for bytes in damaged(&golden_identity().encode()) {
        assert!(SegmentIdentity::decode(&bytes).is_err(), "{bytes:02x?}");
    }
}

#[test]
fn no_damage_of_a_footer_passes_for_one() {
    let golden = golden_footer();
    let file_bytes = 160 + golden.len() as u64;
    for bytes in damaged(&golden) {
        // As the store reads it: the trailer from the end, then the rows that it names.
        let read = (|| {
            let at = bytes.len().checked_sub(TRAILER_BYTES).ok_or(FormatError::Short)?;
            let trailer = VerifiedTrailer::decode(&bytes[at..], 42, NONCE, 160 + bytes.len() as u64)?;
            let (offset, len) = trailer.rows_at();
            let from = (offset as usize).checked_sub(160).ok_or(FormatError::Short)?;
            trailer.decode_rows(bytes.get(from..from + len).ok_or(FormatError::Short)?)
        })();
        assert!(read.is_err(), "{read:?}");
    }
    // A trailer that holds may still be given rows that are damaged.
    let (rows, trailer) = golden.split_at(golden.len() - TRAILER_BYTES);
    let trailer = VerifiedTrailer::decode(trailer, 42, NONCE, file_bytes).unwrap();
    for bytes in damaged(rows) {
        assert!(trailer.decode_rows(&bytes).is_err());
    }
}

#[test]
fn a_damaged_copy_of_an_edit_is_read_from_the_other_and_a_cut_log_yields_its_beginning() {
    let edits: Vec<(u64, Edit)> =
        (1u64..).zip(golden_edits().into_iter().map(|(edit, _)| edit)).take(4).collect();
    let mut file = manifest_header();
    let encode = |(number, edit): &(u64, Edit)| encode_edit(*number, *number - 1, edit);
    for edit in &edits {
        file.extend(encode(edit));
    }
    // Every byte that is not padding, and some that are.
    for at in (BLOCK_BYTES..file.len()).filter(|at| at % BLOCK_BYTES < 600 || at % 97 == 0) {
        for mask in [1, 128, 255] {
            let mut damaged = file.clone();
            damaged[at] ^= mask;
            let log = decode_edits(&damaged);
            assert_eq!(log.edits, edits, "a flip at {at}");
            assert!(!log.broken, "a flip at {at}");
        }
    }
    for at in 0..16 {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(check_manifest_header(&damaged).is_err(), "a flip at {at}");
        assert!(check_manifest_header(&file[..at]).is_err());
    }
    for len in (0..file.len()).filter(|len| len % BLOCK_BYTES < 600 || len % 97 == 0) {
        let log = decode_edits(&file[..len]);
        assert!(!log.broken, "a cut at {len} is a torn end");
        assert_eq!(log.edits, edits[..log.edits.len()], "a cut at {len}");
        // An edit counts as soon as its first copy is whole.
        let whole = edits.iter().scan(BLOCK_BYTES, |at, edit| {
            let (bytes, start) = (encode(edit), *at);
            *at += bytes.len();
            let payload = u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
            Some(start + 24 + payload)
        });
        assert_eq!(log.edits.len(), whole.filter(|end| *end <= len).count(), "a cut at {len}");
    }
    // Both copies of one in the middle: what follows is not taken. It was durable, the next one says: damage.
    let lose_second = |mut file: Vec<u8>| {
        let second = BLOCK_BYTES + encode(&edits[0]).len();
        for at in [second, second + BLOCK_BYTES] {
            file[at + 30] ^= 1;
        }
        decode_edits(&file)
    };
    let log = lose_second(file);
    assert!(log.broken);
    assert_eq!(log.edits, edits[..1]);
    // Never synced, it is what a power cut may take while it keeps a later one: no damage, and not taken either.
    let mut unsynced = manifest_header();
    for (number, edit) in &edits {
        unsynced.extend(encode_edit(*number, 1, edit));
    }
    assert_eq!(decode_edits(&unsynced).edits, edits);
    let log = lose_second(unsynced);
    assert!(!log.broken);
    assert_eq!(log.edits, edits[..1]);
}

#[test]
fn no_damage_of_a_snapshot_passes_for_one() {
    for bytes in damaged(&encode_header(&golden_snapshot_header())) {
        assert!(decode_header(&bytes).is_err());
    }
    for bytes in damaged(&encode_chunk(&golden_partitions())) {
        assert!(decode_chunk(&bytes, 4).is_err());
    }
    for bytes in damaged(&encode_slot_table(&[(0, 41), (77, 42)])) {
        assert!(decode_slot_table(&bytes).is_err());
    }
    // A count that promises more than there is must not be believed, checksum or not.
    for count in
        [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], &[0xff; 11], &[0x80], &[3]]
    {
        let mut chunk = count.to_vec();
        let check = crc(&chunk).to_le_bytes();
        chunk.extend(check);
        assert!(decode_chunk(&chunk, 1).is_err(), "{count:02x?}");
    }
}

#[test]
fn a_dictionary_survives_damage_of_either_copy_and_no_damage_changes_it() {
    let content: Vec<u8> = (0..60).collect();
    let id = dictionary_id(&content);
    let file = encode_dictionary(7, &content);
    for bytes in damaged(&file) {
        match decode_dictionary(&bytes, id, content.len()) {
            Ok((read, damaged)) => assert!(read == content && damaged),
            Err(_) => assert!(bytes.len() < file.len() / 2, "one copy was whole"),
        }
    }
    let mut both = file.clone();
    both[40] ^= 1;
    both[file.len() / 2 + 41] ^= 1;
    assert!(decode_dictionary(&both, id, content.len()).is_err());
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let newer = |mut block: Vec<u8>| {
        block[8] = 2;
        let end = block.len() - 4;
        let check = crc(&block[..end]).to_le_bytes();
        block[end..].copy_from_slice(&check);
        block
    };
    assert_eq!(FORMAT_VERSION, 1);
    assert_eq!(SegmentIdentity::decode(&newer(golden_identity().encode())), Err(FormatError::Newer(2)));
    let header = newer(manifest_header()[..16].to_vec());
    assert_eq!(check_manifest_header(&header), Err(FormatError::Newer(2)));
    assert_eq!(decode_header(&newer(encode_header(&golden_snapshot_header()))), Err(FormatError::Newer(2)));
    let trailer = golden_footer().split_off(56);
    assert_eq!(trailer.len(), TRAILER_BYTES);
    assert_eq!(VerifiedTrailer::decode(&newer(trailer), 42, NONCE, 380).err(), Some(FormatError::Newer(2)));
}

fn any_rows() -> impl Strategy<Value = Vec<FooterRow>> {
    let row =
        (any::<u64>(), any::<u64>(), proptest::option::of(any::<u64>()), 1u32..5000, any::<[bool; 3]>());
    (0u32..1000, proptest::collection::vec(row, 1..400)).prop_map(|(start, rows)| {
        let mut unit = start + 16;
        let place = |(hash, sequence, expires_at_ms, step, [tombstone, first, outlasts]): (
            u64,
            u64,
            Option<u64>,
            u32,
            [bool; 3],
        )| {
            let offset = unit * 4;
            unit += step;
            // The step from the lowest to the highest expiry, plus one, has to fit 64 bits.
            let expires_at_ms = expires_at_ms.map_or(0, |at| at / 2);
            FooterRow { hash, sequence, expires_at_ms, offset, tombstone, first, outlasts }
        };
        rows.into_iter().map(place).collect()
    })
}

fn any_summary() -> impl Strategy<Value = SegmentSummary> {
    (any::<[u64; 10]>(), any::<[u32; 3]>(), any::<[u64; 4]>()).prop_map(|(n, c, dictionaries)| {
        SegmentSummary {
            records_end: n[0],
            file_bytes: n[1],
            records: c[0],
            tombstones: c[1],
            unexpiring: c[2],
            expiry_min_ms: n[2],
            expiry_max_ms: n[3],
            sequence_min: n[4],
            sequence_max: n[5],
            shadow_max: n[6],
            raw_bytes: n[7],
            payload_bytes: n[8],
            exposing_max: n[9],
            dictionaries,
        }
    })
}

fn any_entry() -> impl Strategy<Value = SegmentEntry> {
    (any::<[u64; 5]>(), any::<bool>(), any::<u8>(), any::<u32>(), proptest::option::of(any_summary()))
        .prop_map(|(n, is_fresh, group, slot, sealed)| SegmentEntry {
            identity: SegmentIdentity {
                store_id: n[0],
                segment_id: n[1],
                nonce: n[2],
                base_sequence: n[3],
                log: if is_fresh { LogKind::Fresh } else { LogKind::Survivors },
                group,
            },
            slot,
            added_by: n[4],
            sealed,
        })
}

fn any_parameters() -> impl Strategy<Value = ParametersEntry> {
    let any_choice = || {
        any::<(u8, i8, u8, u8)>()
            .prop_map(|(codec, level, dictionary, gate)| choice(codec, level, dictionary, gate))
    };
    let classes = [any_choice(), any_choice(), any_choice(), any_choice()];
    (any_choice(), classes, -1e6f32..1e6, any::<u64>()).prop_map(
        |(common, classes, expected_ratio, since_file_id)| ParametersEntry {
            common,
            classes,
            expected_ratio,
            since_file_id,
        },
    )
}

fn any_snapshot() -> impl Strategy<Value = SnapshotEntry> {
    any::<[u64; 4]>().prop_map(|[id, covers, covers_edit, file_bytes]| SnapshotEntry {
        id,
        covers,
        covers_edit,
        file_bytes,
    })
}

fn any_tails() -> impl Strategy<Value = Vec<SyncedTail>> {
    let tail = any::<[u64; 3]>().prop_map(|[segment_id, records_end, shadow_max]| SyncedTail {
        segment_id,
        records_end,
        shadow_max,
    });
    proptest::collection::vec(tail, 0..4)
}

fn any_dictionary() -> impl Strategy<Value = DictionaryEntry> {
    any::<(u8, u64, u32)>().prop_map(|(slot, id, bytes)| DictionaryEntry { slot, id, bytes })
}

fn any_state() -> impl Strategy<Value = ManifestState> {
    let parts = (
        any::<[u64; 7]>(),
        proptest::collection::vec(any_entry(), 0..30),
        proptest::collection::vec(any_dictionary(), 0..5),
        proptest::collection::vec(any_snapshot(), 0..3),
        any_parameters(),
        any_tails(),
        any::<bool>(),
    );
    parts.prop_map(|(n, entries, dictionaries, snapshots, parameters, tails, damaged)| ManifestState {
        edit: n[0],
        segments: entries.into_iter().map(|entry| (entry.identity.segment_id, entry)).collect(),
        dictionaries: dictionaries.into_iter().map(|entry| (entry.slot, entry)).collect(),
        snapshots,
        watermark: n[1],
        next_file_id: n[2],
        next_sequence: n[3],
        tails,
        damaged,
        ..ManifestState::new(n[4], n[5], n[6], parameters)
    })
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let numbers = || proptest::collection::vec(any::<u64>(), 0..5);
    Union::new([
        any_state().prop_map(|state| Edit::State(Box::new(state))).boxed(),
        any_entry().prop_map(Edit::AddSegment).boxed(),
        (any::<u64>(), any_summary())
            .prop_map(|(segment_id, summary)| Edit::SealSegment { segment_id, summary })
            .boxed(),
        (proptest::collection::vec(any_entry(), 0..40), numbers(), any::<u64>())
            .prop_map(|(add, drop, watermark)| Edit::Replace { add, drop, watermark })
            .boxed(),
        any_dictionary().prop_map(Edit::AddDictionary).boxed(),
        any::<u8>().prop_map(Edit::DropDictionary).boxed(),
        (any_snapshot(), numbers()).prop_map(|(snapshot, keep)| Edit::AddSnapshot { snapshot, keep }).boxed(),
        any_parameters().prop_map(Edit::SetParameters).boxed(),
        (any::<u64>(), any::<u64>(), any_tails())
            .prop_map(|(clock_ms, next_sequence, tails)| Edit::SaveClock { clock_ms, next_sequence, tails })
            .boxed(),
        numbers().prop_map(Edit::DropSnapshots).boxed(),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_come_back_from_a_footer(rows in any_rows(), gap in 0u64..100) {
        let last = rows.last().map_or(64, |row| u64::from(row.offset) + 28);
        let mut summary = SegmentSummary { records_end: last, records: rows.len() as u32, ..golden_summary() };
        let footer = encode_footer(42, NONCE, last + 4 * gap, &rows, &mut summary);
        let (packed, trailer) = footer.split_at(footer.len() - TRAILER_BYTES);
        let read = VerifiedTrailer::decode(trailer, 42, NONCE, last + 4 * gap + footer.len() as u64).unwrap();
        prop_assert_eq!(read.summary, summary);
        prop_assert_eq!(read.rows_at(), (last + 4 * gap, packed.len()));
        prop_assert_eq!(read.decode_rows(packed).unwrap(), rows);
    }

    #[test]
    fn any_record_comes_back_from_where_it_was_written_and_from_nowhere_else(
        delta in any::<u32>(), base in 0u64..1 << 60, expires_at_ms in 0u64..1 << 48, key_len in 1u32..=65_536,
        value_len in 0u32..2000, codec in 0u8..32, dictionary in any::<u8>(), flags in any::<[bool; 3]>(),
        nonce in any::<u64>(), offset in any::<u32>(), content in proptest::collection::vec(any::<u8>(), 1..64),
    ) {
        let raw_len = key_len.max(content.len() as u32) + value_len;
        let meta = RecordMeta {
            sequence: base + u64::from(delta), expires_at_ms, key_len, raw_len, stored_len: content.len() as u32,
            codec, dictionary, tombstone: flags[0], first: flags[1], outlasts: flags[2],
        };
        let sum = payload_sum(nonce ^ 7, &content);
        let place = Place { nonce, base_sequence: base, offset: offset.into() };
        let mut out = Vec::new();
        append_record(&mut out, &meta, &content, sum, place);
        prop_assert_eq!(out.len(), meta.record_bytes());
        prop_assert_eq!(&out[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + content.len()], &content[..]);
        let parsed = UnverifiedRecord::parse(&out, base).unwrap();
        prop_assert_eq!(parsed.verify(sum, nonce, offset.into()).unwrap(), meta);
        prop_assert!(parsed.verify(sum, nonce, u64::from(offset) + 4).is_err());
        prop_assert!(parsed.verify(sum, nonce.wrapping_add(1), offset.into()).is_err());
    }

    #[test]
    fn any_edits_come_back_from_a_manifest(
        edits in proptest::collection::vec(any_edit(), 1..8), first in 0u64..1 << 60, synced in any::<u64>(),
    ) {
        let mut file = manifest_header();
        for (number, edit) in (first..).zip(&edits) {
            file.extend(encode_edit(number, synced, edit));
        }
        let log = decode_edits(&file);
        prop_assert_eq!((log.end, log.repaired, log.broken), (file.len(), 0, false));
        prop_assert_eq!(log.edits, (first..).zip(edits).collect::<Vec<_>>());
    }

    #[test]
    fn any_slots_come_back_from_a_chunk(
        partitions in proptest::collection::vec(proptest::collection::vec(any::<[u8; PACKED_SLOT_BYTES]>(), 0..200), 1..16),
    ) {
        prop_assert_eq!(decode_chunk(&encode_chunk(&partitions), partitions.len()).unwrap(), partitions);
    }

    #[test]
    fn no_bytes_at_all_panic_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(SegmentIdentity::decode(&bytes).is_err());
        prop_assert!(VerifiedTrailer::decode(&bytes, 1, 2, bytes.len() as u64).is_err());
        prop_assert!(decode_header(&bytes).is_err());
        prop_assert!(decode_slot_table(&bytes).is_err());
        prop_assert!(decode_chunk(&bytes, 64).is_err());
        prop_assert!(decode_dictionary(&bytes, 1, bytes.len() / 2).is_err());
        prop_assert!(check_manifest_header(&bytes).is_err());
        prop_assert!(decode_edits(&bytes).edits.is_empty());
        let _ = UnverifiedRecord::parse(&bytes, 5);
    }

    #[test]
    fn rows_whose_checksum_holds_but_whose_content_is_nonsense_do_not_panic(
        bytes in proptest::collection::vec(any::<u8>(), 1..400), records in 0u32..200,
    ) {
        let body = Fields::default().put(42u8, 8).put(NONCE, 8);
        let file_bytes = 160 + (bytes.len() + TRAILER_BYTES) as u64;
        let summary = SegmentSummary { records, file_bytes, ..golden_summary() };
        let trailer = summary_fields(body, &summary).put(bytes.len() as u32, 4).put(crc(&bytes), 4).block(b"LARDFTR1");
        let read = VerifiedTrailer::decode(&trailer, 42, NONCE, file_bytes).unwrap();
        if let Ok(rows) = read.decode_rows(&bytes) {
            prop_assert_eq!(rows.len(), records as usize);
        }
    }
}

/// The real records, as the demo reads them.
fn real_records() -> Vec<(Vec<u8>, Vec<u8>)> {
    let packed = crate::stores::read_file(&root().join("data"), "mdn-compat.jsonl.zst");
    let text = String::from_utf8(zstd::decode_all(&packed[..]).unwrap()).unwrap();
    let record = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["key"].as_str().unwrap().as_bytes().to_vec(), line["value"].to_string().into_bytes())
    };
    text.lines().map(record).collect()
}

#[test]
fn header_and_footer_row_of_the_real_records_take_at_most_forty_bytes() {
    let records = real_records();
    assert_eq!(records.len(), 20_968);
    let dir = scratch();
    let config =
        config(dir.path()).segment_bytes(1 << 20).compression(Compression::Fixed(larder::Codec::Lz4));
    let cold = open_on(config, OsDisk);
    let mut rng = fastrand::Rng::with_seed(4);
    for (key, value) in &records {
        // 1 s to 7 days, to the millisecond; one in eight for ever. Time goes on meanwhile.
        cold.clock().advance(rng.u64(..3));
        match rng.u32(..8) {
            0 => cold.insert(key, value).unwrap(),
            _ => {
                cold.insert_with_ttl(key, value, Duration::from_millis(rng.u64(1000..=604_800_000))).unwrap()
            }
        }
    }
    cold.close().unwrap();
    let inspection = larder::inspect(dir.path()).unwrap();
    let segments = &inspection.segments;
    let count: u64 = segments.iter().map(|segment| segment.records).sum();
    assert_eq!(count, 20_968);
    assert!(segments.len() >= 5 && segments.iter().all(|segment| segment.dead_records == 0));
    // Nothing is dead: behind the records, everything is footer (rows and trailer).
    let footer_bytes: u64 = segments
        .iter()
        .map(|segment| segment.file_bytes - SEGMENT_HEADER_BYTES as u64 - segment.live_bytes)
        .sum();
    let row = footer_bytes as f64 / count as f64;
    let record = RECORD_HEADER_BYTES as f64 + row;
    println!(
        "{row:.2} bytes a footer row (trailers counted), {record:.2} bytes with the header, {} segments",
        segments.len()
    );
    assert!(row > 8.0, "a hash alone takes eight");
    assert!(record <= 40.0, "{record:.2} bytes a record");
}

/// The store that every later version has to read.
fn fixture() -> PathBuf {
    root().join("tests").join("fixtures").join("v1")
}

const FIXTURE_NOW_MS: u64 = START_MS + 10_000;

/// What it holds: (key, value, expiry).
fn fixture_entries() -> BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)> {
    let mut entries: BTreeMap<_, _> = (0..36).map(|n| (key(n), (json(n, 1), None))).collect();
    entries.insert(key(5), (json(5, 2), None));
    entries.remove(&key(6));
    entries.insert(b"plain".to_vec(), (b"stored as it is".to_vec(), None));
    entries.insert(b"empty".to_vec(), (Vec::new(), None));
    entries.insert(b"long life".to_vec(), (json(901, 1), Some(FIXTURE_NOW_MS - 2000 + 3_000_000_000_000)));
    entries
        .insert(b"long life, rewritten".to_vec(), (json(902, 2), Some(FIXTURE_NOW_MS - 2000 + 86_400_000)));
    entries
}

fn fixture_absent() -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = (36..300).map(key).collect();
    keys.extend([key(6), b"expired".to_vec(), b"never there".to_vec()]);
    keys
}

/// Makes the fixture anew. Only for a change of the format before its first release; later versions get one of
/// their own, and keep this one.
#[test]
#[ignore = "writes tests/fixtures/v1"]
fn make_the_fixture() {
    let dir = scratch();
    let tuned = config(dir.path()).compression(Compression::Tuned);
    let cold = open_on(tuned.clone(), OsDisk);
    for n in 0..300 {
        cold.insert(&key(n), &json(n, 1)).unwrap();
    }
    let report = tune(&cold);
    assert!(report.changed && report.common.chosen.dictionary_bytes > 0, "{report:?}");
    for n in 36..300 {
        cold.remove(&key(n)).unwrap();
    }
    compact(&cold);
    rebuild(&cold);
    compact(&cold);
    cold.close().unwrap();
    // One segment of survivors stays; four more with everything that can be in one: what lasts, and three classes of
    // times to live.
    let cold = ColdTier::open_with(tuned, OsDisk, ManualClock::new(FIXTURE_NOW_MS - 2000)).unwrap();
    cold.insert(&key(5), &json(5, 2)).unwrap();
    cold.remove(&key(6)).unwrap();
    cold.insert(b"plain", b"stored as it is").unwrap();
    cold.insert(b"empty", b"").unwrap();
    cold.insert_with_ttl(b"expired", &json(900, 1), Duration::from_secs(1)).unwrap();
    cold.insert_with_ttl(b"long life", &json(901, 1), Duration::from_millis(3_000_000_000_000)).unwrap();
    cold.insert(b"long life, rewritten", &json(902, 1)).unwrap();
    cold.insert_with_ttl(b"long life, rewritten", &json(902, 2), Duration::from_secs(86_400)).unwrap();
    cold.clock().advance(2000);
    cold.close().unwrap();
    write_image(&fixture(), &read_image(dir.path()));
    let sizes: BTreeMap<_, _> =
        read_image(&fixture()).into_iter().map(|(name, bytes)| (name, bytes.len())).collect();
    println!("{sizes:?}");
}

#[test]
fn the_store_kept_of_version_1_opens_and_holds_exactly_what_was_put_in() {
    let image = read_image(&fixture());
    assert_eq!(image.keys().filter(|name| is_segment(name)).count(), 5, "{:?}", image.keys());
    assert!(image.keys().any(|name| is_snapshot(name)) && image.keys().any(|name| is_dictionary(name)));
    let dir = scratch();
    let store = dir.path().join("store");
    let entries = fixture_entries();
    let model: Model = entries.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
    let open_fixture = || {
        let config = config(&store).compression(Compression::Tuned);
        ColdTier::open_with(config, OsDisk, ManualClock::new(FIXTURE_NOW_MS)).unwrap()
    };
    let check = |cold: &ColdTier<OsDisk, ManualClock>, when: &str| {
        expect_exactly(cold, &model, when);
        expect_absent(cold, &fixture_absent(), when);
        for (key, (_, expires_at_ms)) in &entries {
            let left = expires_at_ms.map(|at| Ttl::Remaining(Duration::from_millis(at - FIXTURE_NOW_MS)));
            assert_eq!(cold.ttl(key).unwrap(), Some(left.unwrap_or(Ttl::Never)), "{when}: {key:?}");
        }
    };
    // From its snapshot, and from its footers alone.
    for is_snapshot_lost in [false, true] {
        let mut image = image.clone();
        if is_snapshot_lost {
            image.retain(|name, _| !is_snapshot(name));
        }
        write_image(&store, &image);
        let cold = open_fixture();
        let recovery = cold.stats().recovery;
        if is_snapshot_lost {
            // Deletions were dropped behind the snapshot: what is older than them may be given up, and is counted.
            assert_eq!(recovery.snapshot_entries, 0);
            expect_absent(&cold, &fixture_absent(), "without its snapshots");
            assert!(cold.len() == model.len() as u64 + 1 || recovery.given_up > 0, "{recovery:?}");
            continue;
        }
        assert!(recovery.snapshot_entries >= model.len() as u64, "{recovery:?}");
        assert_eq!((recovery.damaged, recovery.orphans_removed), (0, 0), "{recovery:?}");
        assert!(cold.compression().dictionary_bytes > 0, "it was tuned");
        check(&cold, "as it was kept");
        compact(&cold);
        check(&cold, "compacted");
        cold.close().unwrap();
        check(&open_fixture(), "reopened");
    }
}

#[test]
fn looking_at_the_kept_store_changes_no_byte_of_it() {
    let image = read_image(&fixture());
    let dir = scratch();
    let store = dir.path().join("store");
    write_image(&store, &image);
    let inspection = larder::inspect(&store).unwrap();
    // Values, and the expired one that no cleanup has met.
    assert_eq!(inspection.stats.entries, fixture_entries().len() as u64 + 1);
    assert_eq!(inspection.segments.len(), 5, "one of survivors, and one of fresh records for each group");
    assert!(inspection.compression.dictionary_bytes > 0 && inspection.snapshots >= 1);
    assert_eq!(inspection.warnings, Vec::<String>::new());
    let mut progress = Vec::new();
    let report = larder::verify(&store, &mut |share| progress.push(share)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.segments, report.live_entries), (5, inspection.stats.entries));
    assert_eq!(report.records, inspection.segments.iter().map(|segment| segment.records).sum::<u64>());
    assert!(progress.is_sorted() && progress.last() == Some(&1.0), "{progress:?}");
    assert!(read_image(&store) == image, "a file was changed");

    // Damage is told, and still nothing is changed.
    let segment = image.keys().find(|name| is_segment(name)).unwrap();
    let mut damaged = image.clone();
    damaged.get_mut(segment).unwrap()[120] ^= 1;
    write_image(&store, &damaged);
    let report = larder::verify(&store, &mut |_| {}).unwrap();
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert_eq!(report.damaged[0].file, *segment);
    assert!(report.damaged[0].offset <= 120, "{report:?}");
    assert!(read_image(&store) == damaged, "a file was changed");
}
