//! Round trips of whatever can be encoded, and damage: it never panics a decoder and never passes for content.

use larder::internals::serialization::chunk::{PackedSlot, check_chunk, decode_chunk, encode_chunk};
use larder::internals::serialization::dictionary::{decode_dictionary, dictionary_id, encode_dictionary};
use larder::internals::serialization::edit::{
    BLOCK_BYTES, DictionaryEntry, Edit, ManifestState, ParametersEntry, SegmentEntry, SnapshotEntry,
    SyncedTail, check_manifest_header, decode_edits, encode_edit, manifest_header,
};
use larder::internals::serialization::footer::{FooterRow, TRAILER_BYTES, VerifiedTrailer, encode_footer};
use larder::internals::serialization::parity::{Parity, witnesses, xor};
use larder::internals::serialization::record::{
    Place, RecordMeta, UnverifiedRecord, append_record, payload_sum,
};
use larder::internals::serialization::segment::{LogKind, SegmentIdentity, SegmentSummary};
use larder::internals::serialization::snapshot::{
    decode_header, decode_slot_table, encode_header, encode_slot_table,
};
use larder::internals::serialization::{FORMAT_VERSION, FormatError};
use proptest::prelude::*;
use proptest::strategy::Union;

use crate::formats::{
    DICTIONARY_ID, NONCE, PLACE, choice, crc, golden_edits, golden_footer, golden_identity, golden_meta,
    golden_partitions, golden_record, golden_snapshot_header, golden_summary, trailer_fields,
};

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
            let stored = bytes.get(parsed.stored_range()).ok_or(FormatError::Short)?;
            parsed.verify(payload_sum(DICTIONARY_ID, stored), NONCE, 64)
        });
        assert!(read.is_err(), "{read:?} from {bytes:02x?}");
        refused += 1;
    }
    assert_eq!(refused, record.len() * 10);
}

/// Two checksums, one within the other: the same flaw in what each is of must not cancel out.
#[test]
fn the_same_damage_in_header_and_stored_bytes_does_not_pass() {
    let golden = golden_record();
    let header_len = golden.len() - 3;
    let stored: Vec<u8> = (1..=40).collect();
    for stored_len in [3, 40] {
        let meta = RecordMeta { stored_len, raw_len: 60, ..golden_meta() };
        let mut record = Vec::new();
        let stored = &stored[..stored_len as usize];
        append_record(&mut record, &meta, stored, payload_sum(DICTIONARY_ID, stored), PLACE);
        record.truncate(header_len + stored.len());
        for (in_header, in_stored) in
            (4..header_len).flat_map(|h| (header_len..record.len()).map(move |s| (h, s)))
        {
            for mask in 1..=255u8 {
                let mut bytes = record.clone();
                bytes[in_header] ^= mask;
                bytes[in_stored] ^= mask;
                let read = UnverifiedRecord::parse(&bytes, 1000).and_then(|parsed| {
                    let stored = bytes.get(parsed.stored_range()).ok_or(FormatError::Short)?;
                    parsed.verify(payload_sum(DICTIONARY_ID, stored), NONCE, 64)
                });
                assert!(read.is_err(), "{mask:02x} at {in_header} and {in_stored}: {read:?}");
            }
        }
    }
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
            let trailer = VerifiedTrailer::decode(&bytes[at..], NONCE, 160 + bytes.len() as u64)?;
            let (offset, len) = trailer.rows_at();
            let from = (offset as usize).checked_sub(160).ok_or(FormatError::Short)?;
            trailer.decode_rows(bytes.get(from..from + len).ok_or(FormatError::Short)?)
        })();
        assert!(read.is_err(), "{read:?}");
    }
    // A trailer that holds may still be given rows that are damaged.
    let (rows, trailer) = golden.split_at(golden.len() - TRAILER_BYTES);
    let trailer = VerifiedTrailer::decode(trailer, NONCE, file_bytes).unwrap();
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
        assert!(check_chunk(&bytes).is_err());
    }
    for bytes in damaged(&encode_slot_table(&[(0, 41), (77, 42)])) {
        assert!(decode_slot_table(&bytes).is_err());
    }
    // A count that promises more than there is must not be believed, checksum or not.
    for count in
        [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], &[0xff; 11], &[0x80], &[3]]
    {
        let chunk = [&[0, 18, 24, 3][..], count].concat();
        assert!(decode_chunk(&chunk, 1).is_err(), "{count:02x?}");
    }
    for header in [[17, 0, 0, 0], [0, 19, 0, 0], [0, 0, 25, 0], [0, 0, 0, 4], [255; 4]] {
        assert!(decode_chunk(&[&header[..], &[0; 1 << 17]].concat(), 1).is_err(), "{header:?}");
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
fn another_version_is_told_apart_from_damage() {
    let of_version = |mut block: Vec<u8>, version: u8| {
        block[8] = version;
        let end = block.len() - 4;
        let check = crc(&block[..end]).to_le_bytes();
        block[end..].copy_from_slice(&check);
        block
    };
    assert_eq!(FORMAT_VERSION, 4);
    for (version, refused) in [(3, FormatError::Older(3)), (5, FormatError::Newer(5))] {
        let of_version = |block| of_version(block, version);
        assert_eq!(SegmentIdentity::decode(&of_version(golden_identity().encode())), Err(refused));
        let header = of_version(manifest_header()[..16].to_vec());
        assert_eq!(check_manifest_header(&header), Err(refused));
        assert_eq!(decode_header(&of_version(encode_header(&golden_snapshot_header()))), Err(refused));
        let trailer = golden_footer().split_off(53);
        assert_eq!(trailer.len(), TRAILER_BYTES);
        assert_eq!(VerifiedTrailer::decode(&of_version(trailer), NONCE, 301).err(), Some(refused));
    }
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
            // The last byte is not kept.
            let hash = hash & !0xff;
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
        proptest::option::of(any_snapshot()),
        any_parameters(),
        any_tails(),
        any::<bool>(),
    );
    parts.prop_map(|(n, entries, dictionaries, snapshot, parameters, tails, damaged)| ManifestState {
        edit: n[0],
        segments: entries.into_iter().map(|entry| (entry.identity.segment_id, entry)).collect(),
        dictionaries: dictionaries.into_iter().map(|entry| (entry.slot, entry)).collect(),
        snapshot,
        watermark: n[1],
        next_file_id: n[2],
        next_sequence: n[3],
        tails,
        damaged,
        ..ManifestState::new(n[4], n[5], n[6], parameters)
    })
}

/// In the order of their tags, evenly spread or close together.
fn any_slots() -> impl Strategy<Value = Vec<PackedSlot>> {
    let slots = proptest::collection::vec(any::<(u64, u32)>(), 0..400);
    (slots, 0u32..46).prop_map(|(slots, close)| {
        let packed = |(word, place): (u64, u32)| PackedSlot { word: word >> close, place };
        let mut slots: Vec<PackedSlot> = slots.into_iter().map(packed).collect();
        slots.sort_by_key(|slot| slot.word);
        slots
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
        any_snapshot().prop_map(Edit::AddSnapshot).boxed(),
        any_parameters().prop_map(Edit::SetParameters).boxed(),
        (any::<u64>(), any::<u64>(), any_tails())
            .prop_map(|(clock_ms, next_sequence, tails)| Edit::SaveClock { clock_ms, next_sequence, tails })
            .boxed(),
        any::<u64>().prop_map(Edit::DropSnapshot).boxed(),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn parity_closes_any_gap_that_is_no_longer_than_itself(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        parity_bytes in 1usize..80,
        at in any::<prop::sample::Index>(),
        len in any::<prop::sample::Index>(),
        pieces in 1usize..50,
    ) {
        let mut parity = Parity::new(parity_bytes);
        body.chunks(pieces).for_each(|piece| parity.add(piece));
        let all = [body, parity.finish()].concat();
        let at = at.index(all.len());
        let lost = at..at + 1 + len.index(parity_bytes.min(all.len() - at));
        let mut found = vec![0; lost.len()];
        let range = lost.start as u64..lost.end as u64;
        for (offset, range) in witnesses(range, parity_bytes as u64, all.len() as u64).unwrap() {
            let range = range.start as usize..range.end as usize;
            prop_assert!(range.end <= lost.start || range.start >= lost.end, "{:?} of itself", range);
            xor(&mut found[offset..], &all[range]);
        }
        prop_assert_eq!(&found, &all[lost.clone()]);
        let longer = 0..parity_bytes as u64 + 1;
        prop_assert!(witnesses(longer, parity_bytes as u64, u64::MAX).is_none());
    }

    #[test]
    fn any_rows_come_back_from_a_footer(rows in any_rows(), gap in 0u64..100) {
        let last = u64::from(rows.last().expect("some").offset) + 28;
        let mut summary = SegmentSummary { records_end: last, raw_bytes: 500, payload_bytes: 120, ..Default::default() };
        summary.dictionaries = golden_summary().dictionaries;
        // By hand, as the encoder's callers add them up.
        let sequences = || rows.iter().map(|row| row.sequence);
        let highest = |of: fn(&&FooterRow) -> bool| rows.iter().filter(of).map(|row| row.sequence).max().unwrap_or(0);
        let expiries = || rows.iter().map(|row| row.expires_at_ms).filter(|at_ms| *at_ms != 0);
        summary.records = rows.len() as u32;
        summary.tombstones = rows.iter().filter(|row| row.tombstone).count() as u32;
        summary.unexpiring = rows.iter().filter(|row| row.expires_at_ms == 0).count() as u32;
        (summary.expiry_min_ms, summary.expiry_max_ms) = (expiries().min().unwrap_or(0), expiries().max().unwrap_or(0));
        (summary.sequence_min, summary.sequence_max) = (sequences().min().unwrap(), sequences().max().unwrap());
        summary.shadow_max = highest(|row| row.tombstone || !row.first);
        summary.exposing_max = highest(|row| (row.tombstone || !row.first) && !row.outlasts);
        let footer = encode_footer(NONCE, last + 4 * gap, &rows, &mut summary);
        let (packed, trailer) = footer.split_at(footer.len() - TRAILER_BYTES);
        let read = VerifiedTrailer::decode(trailer, NONCE, last + 4 * gap + footer.len() as u64).unwrap();
        prop_assert_eq!(read.rows_at(), (last + 4 * gap, packed.len()));
        prop_assert_eq!(read.decode_rows(packed).unwrap(), (summary, rows));
    }

    #[test]
    fn any_record_comes_back_from_where_it_was_written_and_from_nowhere_else(
        delta in any::<u32>(), base in 0u64..1 << 60, expires_at_ms in 0u64..1 << 48, key_len in 1u32..=65_536,
        value_len in 0u32..2000, codec in 0u8..8, dictionary in any::<u8>(), flags in any::<[bool; 3]>(),
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
        prop_assert_eq!(&out[meta.stored_range()], &content[..]);
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
        partitions in proptest::collection::vec(any_slots(), 1..16),
        widths in any::<[u32; 2]>(),
    ) {
        // Of narrow fields and of wide ones.
        let narrow = |slot: PackedSlot| PackedSlot {
            word: slot.word & !0x3_ffff | (slot.word & 0x3_ffff) >> (widths[0] % 19),
            place: slot.place >> (widths[1] % 27),
        };
        let partitions: Vec<Vec<PackedSlot>> =
            partitions.into_iter().map(|slots| slots.into_iter().map(narrow).collect()).collect();
        let chunk = encode_chunk(&partitions);
        let read = decode_chunk(check_chunk(&chunk).unwrap(), partitions.len()).unwrap();
        prop_assert!(read.iter().map(ExactSizeIterator::len).eq(partitions.iter().map(Vec::len)));
        let read: Vec<Vec<PackedSlot>> = read.into_iter().map(Iterator::collect).collect();
        prop_assert_eq!(read, partitions);
    }

    #[test]
    fn no_bytes_at_all_panic_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(SegmentIdentity::decode(&bytes).is_err());
        prop_assert!(VerifiedTrailer::decode(&bytes, 2, bytes.len() as u64).is_err());
        prop_assert!(decode_header(&bytes).is_err());
        prop_assert!(decode_slot_table(&bytes).is_err());
        prop_assert!(check_chunk(&bytes).and_then(|slots| decode_chunk(slots, 64)).is_err());
        let _ = decode_chunk(&bytes, 64);
        prop_assert!(decode_dictionary(&bytes, 1, bytes.len() / 2).is_err());
        prop_assert!(check_manifest_header(&bytes).is_err());
        prop_assert!(decode_edits(&bytes).edits.is_empty());
        let _ = UnverifiedRecord::parse(&bytes, 5);
    }

    #[test]
    fn rows_whose_checksum_holds_but_whose_content_is_nonsense_do_not_panic(
        bytes in proptest::collection::vec(any::<u8>(), 1..400),
    ) {
        let file_bytes = 160 + (bytes.len() + TRAILER_BYTES) as u64;
        let trailer = trailer_fields(&golden_summary()).put(bytes.len() as u32, 4).put(crc(&bytes), 4).block(b"LARDFTR1");
        let read = VerifiedTrailer::decode(&trailer, NONCE, file_bytes).unwrap();
        if let Ok((_, rows)) = read.decode_rows(&bytes) {
            prop_assert!(!rows.is_empty() && rows.len() <= bytes.len() / 7);
        }
    }
}
