//! The bytes on disk: golden vectors written by hand from `docs/FORMAT.md`.

use larder::internals::serialization::FormatError;
use larder::internals::serialization::chunk::{PackedSlot, check_chunk, decode_chunk, encode_chunk};
use larder::internals::serialization::dictionary::{decode_dictionary, dictionary_id, encode_dictionary};
use larder::internals::serialization::edit::{
    BLOCK_BYTES, ChoiceEntry, DictionaryEntry, Edit, ManifestState, ParametersEntry, SegmentEntry,
    SnapshotEntry, SyncedTail, check_manifest_header, decode_edits, encode_edit, manifest_header,
};
use larder::internals::serialization::footer::{FooterRow, TRAILER_BYTES, VerifiedTrailer, encode_footer};
use larder::internals::serialization::record::{
    Place, RECORD_HEADER_BYTES_MAX, RECORD_HEADER_BYTES_MIN, RecordMeta, UnverifiedRecord, append_record,
    payload_sum,
};
use larder::internals::serialization::segment::{
    LogKind, SEGMENT_HEADER_BYTES, SegmentIdentity, SegmentSummary,
};
use larder::internals::serialization::snapshot::{
    CHUNKS, SNAPSHOT_HEADER_BYTES, SnapshotHeader, decode_header, decode_slot_table, encode_header,
    encode_slot_table,
};

use crate::stores::{open, read_image, scratch};

/// CRC-32C bit by bit, so that no table of the library's is trusted.
pub fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 },
        )
    })
}

/// Fields one after the other, each of a fixed width, little-endian: bincode's layout with fixed-width integers.
#[derive(Default)]
pub struct Fields(Vec<u8>);

impl Fields {
    pub fn put(mut self, value: impl Into<u128>, bytes: usize) -> Self {
        self.0.extend_from_slice(&value.into().to_le_bytes()[..bytes]);
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Closes a block: magic and version in front, the checksum behind.
    pub fn block(self, magic: &[u8; 8]) -> Vec<u8> {
        let mut bytes = Self::default().raw(magic).put(4u32, 4).raw(&self.0).0;
        let check = crc(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

pub const NONCE: u64 = 0x1122_3344_5566_7788;
pub const PLACE: Place = Place { nonce: NONCE, base_sequence: 1000, offset: 64 };
pub const STORED: [u8; 3] = [0xaa, 0xbb, 0xcc];
pub const DICTIONARY_ID: u64 = 0x0102_0304_0506_0708;

pub fn golden_meta() -> RecordMeta {
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

pub fn golden_record() -> Vec<u8> {
    hex("9c39bcf5 05000000 4a 07 01 0300 0500 d2c42cc89901 aabbcc")
}

pub fn golden_identity() -> SegmentIdentity {
    SegmentIdentity {
        store_id: 0xA1A2_A3A4_A5A6_A7A8,
        segment_id: 42,
        nonce: NONCE,
        base_sequence: 1000,
        log: LogKind::Survivors,
        group: 3,
    }
}

pub fn golden_rows() -> Vec<FooterRow> {
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
        row(0x0123_4567_89AB_CD00, 1005, 1_760_000_001_234, 64, [false, true, false]),
        row(0xFEDC_BA98_7654_3200, 1001, 0, 96, [true, false, false]),
        row(0x1111_1111_1111_1100, 1009, 1_760_000_002_000, 128, [false, false, true]),
    ]
}

/// What the golden rows add up to; `file_bytes` is set by the encoder.
pub fn golden_summary() -> SegmentSummary {
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

pub fn golden_footer() -> Vec<u8> {
    hex("0204040a10000000e903000000000000d2c42cc899010000cdab896745230132547698badcfe11111111111111020a20
         080010f15f4c41524446545231040000008877665544332211a000000000000000f40100000000000078000000000000
         00800000000000000000000000000000000000000000000000000000000000008035000000769d3536b98371e6")
}

#[test]
fn a_record_is_laid_out_as_documented_field_by_field() {
    let (meta, sum) = (golden_meta(), payload_sum(DICTIONARY_ID, &STORED));
    assert_eq!(sum, crc(&Fields::default().put(DICTIONARY_ID, 8).raw(&STORED).0));
    let header = Fields::default()
        .put(1005u64 - 1000, 4)
        // First, expires; the codec's number is 2.
        .put(1u8 << 1 | 1 << 3 | 2 << 5, 1)
        .put(7u8, 1)
        .put(2u8 - 1, 1)
        .put(3u8, 2)
        .put(5u8, 2)
        .put(1_760_000_001_234u64, 6)
        .0;
    let check = crc(&Fields::default().put(NONCE, 8).put(64u8, 8).put(sum, 4).raw(&header).0);
    let record = Fields::default().put(check, 4).raw(&header).raw(&STORED).0;
    assert_eq!(record.len(), RECORD_HEADER_BYTES_MIN + 6 + STORED.len());
    assert_eq!(record, golden_record(), "computed independently");

    let mut out = vec![9; 8];
    append_record(&mut out, &meta, &STORED, sum, Place { offset: 64, ..PLACE });
    assert_eq!(out[..8], [9; 8]);
    assert_eq!(out[8..], record, "24 bytes need no padding");
    let parsed = UnverifiedRecord::parse(&record, 1000).unwrap();
    assert_eq!((parsed.stored_range(), parsed.dictionary()), (21..24, 7));
    assert_eq!(parsed.verify(sum, NONCE, 64).unwrap(), meta);
    // Another place, another segment, another content, another dictionary: none of them passes.
    assert_eq!(parsed.verify(sum, NONCE, 68), Err(FormatError::Checksum));
    assert_eq!(parsed.verify(sum, NONCE + 1, 64), Err(FormatError::Checksum));
    assert_eq!(parsed.verify(sum ^ 1, NONCE, 64), Err(FormatError::Checksum));
    assert_eq!(parsed.verify(payload_sum(DICTIONARY_ID + 1, &STORED), NONCE, 64), Err(FormatError::Checksum));

    // A tombstone, which never expires; padding with zeros up to a multiple of four.
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
    assert_eq!(out.len(), 20);
    let expected = Fields::default().put(5u8, 4).put(1u8, 1).put(0u8, 1).put(1u8, 1).put(2u8, 2).put(2u8, 2);
    assert_eq!(out[4..], expected.raw(b"k1\0\0\0").0);
}

#[test]
fn long_keys_and_values_have_long_lengths_and_what_is_in_another_shape_than_it_needs_is_refused() {
    for (key_len, raw_len, is_long) in
        [(1, 3, false), (256, 65_535, false), (257, 257, true), (1, 65_536, true), (65_536, 65_536, true)]
    {
        for expires_at_ms in [0, 1, (1 << 48) - 1] {
            let meta = RecordMeta { key_len, raw_len, expires_at_ms, outlasts: true, ..golden_meta() };
            let expiry = if expires_at_ms == 0 { 0 } else { 6 };
            let header = RECORD_HEADER_BYTES_MIN + if is_long { 5 } else { 0 } + expiry;
            assert_eq!(meta.header_bytes(), header, "{meta:?}");
            let flags = 0b110 | u8::from(expires_at_ms != 0) << 3 | u8::from(is_long) << 4 | 2 << 5;
            let fields = Fields::default().put(5u8, 4).put(flags, 1).put(7u8, 1);
            let fields = match is_long {
                true => fields.put(key_len - 1, 2).put(3u8, 4).put(raw_len, 4),
                false => fields.put(key_len - 1, 1).put(3u8, 2).put(raw_len, 2),
            };
            let mut out = Vec::new();
            append_record(&mut out, &meta, &STORED, 9, PLACE);
            assert_eq!(out[4..header], fields.put(expires_at_ms, expiry).0, "{meta:?}");
            let parsed = UnverifiedRecord::parse(&out, 1000).unwrap();
            assert_eq!(parsed.verify(9, NONCE, 64).unwrap(), meta);
            assert_eq!((parsed.stored_range(), parsed.record_bytes()), (header..header + 3, out.len()));
        }
    }
    assert_eq!(RECORD_HEADER_BYTES_MAX, 26);
    // Long lengths that are short; an expiry that is none.
    let bytes = |flags: u8| Fields::default().put(0u8, 8).put(flags, 1).put(0u8, 1);
    let long = bytes(1 << 4).put(1u8, 2).put(3u8, 4).put(5u8, 4).raw(&STORED).0;
    let never = bytes(1 << 3).put(1u8, 1).put(3u8, 2).put(5u8, 2).put(0u8, 6).raw(&STORED).0;
    for bytes in [long, never] {
        let refused = UnverifiedRecord::parse(&bytes, 0).unwrap_err();
        assert_eq!(refused, FormatError::Invalid("record header's shape"));
    }
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
        .put(0u8, 2)
        .block(b"LARDSEG1");
    assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES);
    let golden =
        "4c41524453454731 04000000 a8a7a6a5a4a3a2a1 2a00000000000000 8877665544332211 e803000000000000
                  01 03 0000 ee34d452";
    assert_eq!(bytes, hex(golden));
    assert_eq!(identity.encode(), bytes);
    assert_eq!(SegmentIdentity::decode(&bytes).unwrap(), identity);
}

#[test]
fn a_footer_is_laid_out_as_documented() {
    let (rows, mut summary) = (golden_rows(), golden_summary());
    let footer = encode_footer(NONCE, 160, &rows, &mut summary);
    assert_eq!(summary.file_bytes, 160 + footer.len() as u64);
    let golden = golden_footer();
    assert_eq!(footer, golden);
    let (packed, trailer) = golden.split_at(golden.len() - TRAILER_BYTES);
    // The checksums of the golden bytes, by hand.
    assert_eq!(crc(packed).to_le_bytes(), trailer[80..84]);
    assert_eq!(crc(&trailer[..84]).to_le_bytes(), trailer[84..]);
    let read = VerifiedTrailer::decode(trailer, NONCE, summary.file_bytes).unwrap();
    assert_eq!(read.rows_at(), (160, packed.len()));
    assert_eq!(read.decode_rows(packed).unwrap(), (summary, rows));
    // Of another segment, of a file that is too short: refused.
    assert!(VerifiedTrailer::decode(trailer, NONCE + 1, summary.file_bytes).is_err());
    assert!(VerifiedTrailer::decode(trailer, NONCE, summary.file_bytes - 4).is_err());
    assert!(VerifiedTrailer::decode(trailer, NONCE, 0).is_err());
}

/// Of a trailer, what the golden segment and its summary tell.
pub fn trailer_fields(summary: &SegmentSummary) -> Fields {
    let fields = Fields::default()
        .put(NONCE, 8)
        .put(summary.records_end, 8)
        .put(summary.raw_bytes, 8)
        .put(summary.payload_bytes, 8);
    summary.dictionaries.iter().fold(fields, |fields, word| fields.put(*word, 8))
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

pub fn golden_entry(segment_id: u64, is_sealed: bool) -> SegmentEntry {
    SegmentEntry {
        identity: SegmentIdentity { segment_id, ..golden_identity() },
        slot: 77,
        added_by: 12,
        sealed: is_sealed.then(golden_summary),
    }
}

pub const fn choice(codec: u8, level: i8, dictionary: u8, gate: u8) -> ChoiceEntry {
    ChoiceEntry { codec, level, dictionary, gate }
}

pub const PARAMETERS: ParametersEntry = ParametersEntry {
    common: choice(2, -5, 9, 0),
    classes: [choice(2, -5, 9, 0), choice(2, 12, 9, 1), choice(1, 0, 0, 0), choice(0, 0, 0, 0)],
    expected_ratio: 6.25,
    since_file_id: 31,
};
pub const SNAPSHOT: SnapshotEntry =
    SnapshotEntry { id: 50, covers: 900, covers_edit: 11, file_bytes: 20_000 };
pub const TAIL: SyncedTail = SyncedTail { segment_id: 42, records_end: 4096, shadow_max: 1009 };

fn parameter_fields(fields: Fields) -> Fields {
    // Common, then the classes: codec, level, dictionary, gate.
    let choices = "02fb0900 02fb0900 020c0901 01000000 00000000";
    fields.raw(&hex(choices)).put(6.25f32.to_bits(), 4).put(31u8, 8)
}

fn snapshot_fields(fields: Fields) -> Fields {
    fields.put(50u8, 8).put(900u32, 8).put(11u8, 8).put(20_000u32, 8)
}

pub fn golden_state() -> ManifestState {
    let dictionary = DictionaryEntry { slot: 9, id: DICTIONARY_ID, bytes: 16_384 };
    ManifestState {
        edit: 33,
        segments: [(41, golden_entry(41, true)), (42, golden_entry(42, false))].into(),
        dictionaries: [(9, dictionary)].into(),
        snapshot: Some(SNAPSHOT),
        watermark: 800,
        next_file_id: 51,
        next_sequence: 1010,
        tails: vec![TAIL],
        damaged: true,
        ..ManifestState::new(1, 2, 1_760_000_001_234, PARAMETERS)
    }
}

/// Every kind of edit with the bytes of its payload, by hand.
pub fn golden_edits() -> Vec<(Edit, Vec<u8>)> {
    let tag = |number: u8| Fields::default().put(number, 1);
    let tail = |fields: Fields| fields.put(42u8, 8).put(4096u32, 8).put(1009u32, 8);
    let state = golden_state();
    let fields = tag(0).put(1u8, 8).put(2u8, 8).put(33u8, 8).put(2u8, 8);
    let fields = entry_fields(fields.put(41u8, 8), &golden_entry(41, true));
    let fields = entry_fields(fields.put(42u8, 8), &golden_entry(42, false));
    let fields = fields.put(1u8, 8).put(9u8, 1).put(9u8, 1).put(DICTIONARY_ID, 8).put(16_384u32, 4);
    let fields = snapshot_fields(fields.put(1u8, 1));
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
        (Edit::AddSnapshot(SNAPSHOT), snapshot_fields(tag(6)).0),
        (Edit::SetParameters(PARAMETERS), parameter_fields(tag(7)).0),
        (
            Edit::SaveClock { clock_ms: 1_760_000_001_234, next_sequence: 77, tails: vec![TAIL] },
            tail(tag(8).put(1_760_000_001_234u64, 8).put(77u8, 8).put(1u8, 8)).0,
        ),
        (Edit::DropSnapshot(50), tag(9).put(50u8, 8).0),
    ]
}

#[test]
fn every_edit_is_laid_out_as_documented_and_written_twice() {
    let mut file = manifest_header();
    assert_eq!(file[..16], hex("4c4152444d414e31 04000000 347a263e"));
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
    assert_eq!(seven, hex("4c41524443555231 04000000 0700000000000000 c4abfe4b"));
}

pub fn golden_snapshot_header() -> SnapshotHeader {
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
        parity_bytes: 8192,
        parity_check: 0xAABB_CCDD,
    }
}

/// Slots of a few partitions, one of them empty. The first bits of the tags are 0 to 3 of 64 and 60 of them.
pub fn golden_partitions() -> Vec<Vec<PackedSlot>> {
    let slot = |tag: u64, slab: u64, unit: u32, hits: u32, size: u32| PackedSlot {
        word: tag << 18 | slab,
        place: unit << 8 | hits << 5 | size,
    };
    let few = vec![slot(7, 3, 16, 0, 9), slot(1 << 45, 1, 0x3f_ffff, 2, 0)];
    let many = (0..300u64).map(|at| slot(at << 37 | at, at % 6, 100 + at as u32, 1, 31)).collect();
    vec![few, Vec::new(), many]
}

#[test]
fn a_snapshot_is_laid_out_as_documented() {
    let header = golden_snapshot_header();
    let fields = Fields::default().put(1u8, 8).put(50u8, 8).put(900u32, 8).put(11u8, 8).put(12u8, 8);
    let fields = header.chunk_bytes.iter().fold(fields, |fields, len| fields.put(*len, 4));
    let bytes = fields.put(48u8, 4).put(8192u32, 4).put(0xAABB_CCDDu32, 4).block(b"LARDSNP1");
    assert_eq!(bytes.len(), SNAPSHOT_HEADER_BYTES);
    assert_eq!(encode_header(&header), bytes);
    assert_eq!(decode_header(&bytes).unwrap(), header);
    assert_eq!(header.body_bytes(), 255 * 68 + 300 + 48);
    assert_eq!(header.file_bytes(), 2 * 1092 + header.body_bytes() + 8192);

    let slots = [(0u32, 41u64), (77, 42)];
    let table = Fields::default().put(2u8, 8).put(0u8, 4).put(41u8, 8).put(77u8, 4).put(42u8, 8);
    let table = table.block(b"LARDSLT1");
    assert_eq!(encode_slot_table(&slots), table);
    assert_eq!(decode_slot_table(&table).unwrap(), slots);
}

#[test]
fn a_chunk_is_laid_out_as_documented() {
    let partitions = golden_partitions();
    // Fields: slot 3 bits, offset 22, hits 2, size 5. With the first 6 bits of the tags in counts, 40 of them and the rest
    // are nine bytes; with 14 they would be eight, and the counts take more than that saves.
    let mut chunk = vec![6, 3, 22, 2];
    let counts = |slots: &[PackedSlot]| -> Vec<u8> {
        let group = |slot: &PackedSlot| slot.word >> (18 + 40);
        (0..64).map(|of| slots.iter().filter(|slot| group(slot) == of).count() as u8).collect()
    };
    for slots in &partitions {
        chunk.extend(counts(slots));
        for slot in slots {
            let low_tag = u128::from(slot.word >> 18 & ((1 << 40) - 1));
            let (slab, unit) = (u128::from(slot.word & 7), u128::from(slot.place >> 8));
            let (hits, size) = (u128::from(slot.place >> 5 & 3), u128::from(slot.place & 31));
            let bits = low_tag << 32 | slab << 29 | unit << 7 | hits << 5 | size;
            chunk.extend(&bits.to_le_bytes()[..9]);
        }
    }
    let check = crc(&chunk).to_le_bytes();
    chunk.extend(check);
    assert_eq!(chunk.len(), 4 + 3 * 64 + 302 * 9 + 4);
    assert_eq!(encode_chunk(&partitions), chunk);
    let bytes = check_chunk(&chunk).unwrap();
    assert_eq!(bytes, &chunk[..chunk.len() - 4]);
    let read: Vec<Vec<PackedSlot>> =
        decode_chunk(bytes, 3).unwrap().into_iter().map(Iterator::collect).collect();
    assert_eq!(read, partitions);
    assert!(decode_chunk(bytes, 2).is_err() && decode_chunk(bytes, 4).is_err());

    // Of nothing at all: no fields, no groups, a count a partition.
    let nothing = encode_chunk(&[Vec::new(), Vec::new()]);
    assert_eq!(nothing[..6], [0; 6]);
    assert_eq!(nothing.len(), 10);
    assert!(decode_chunk(check_chunk(&nothing).unwrap(), 2).unwrap().iter().all(|slots| slots.len() == 0));
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

#[test]
fn a_summary_names_the_dictionaries_that_its_records_need_and_no_others() {
    for slots in [&[][..], &[1], &[63], &[64], &[127, 128], &[1, 2, 63, 64, 65, 191, 192, 255]] {
        let mut summary = golden_summary();
        summary.dictionaries = [0; 4];
        for slot in slots {
            summary.dictionaries[usize::from(slot / 64)] |= 1 << (slot % 64);
        }
        assert_eq!(summary.dictionary_slots(), slots);
        let asked: Vec<u8> = (0..=255).filter(|slot| summary.uses_dictionary(*slot)).collect();
        assert_eq!(asked, slots);
    }
}
