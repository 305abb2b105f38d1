//! Codecs, dictionaries and the choice between them: what is stored comes back, damage never passes for a value, and
//! the analyzer finds what the data calls for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use larder::internals::compression::{
    CodecId, CompressionParameters, DecodeError, Encoded, FRAME_ROOM, compress, decompress, saves_enough,
};
use larder::internals::dictionary::{Dictionary, DictionaryTable, train_dictionary};
use larder::internals::efficiency_analyzer::{
    Analysis, AnalysisError, CHANGE_MARGIN, DictionarySource, MeasuredCandidate, MemoryEfficiencyAnalyzer,
    Present, Sample, Situation, Weights, choose, entropy_bits,
};
use larder::{Codec, Compression, OsDisk};
use proptest::prelude::*;

use crate::stores::{config, key, open_on, scratch};

const CODECS: [Codec; 6] =
    [Codec::None, Codec::Lz4, Codec::Zstd(-7), Codec::Zstd(1), Codec::Zstd(3), Codec::Zstd(19)];

/// Key and value of 3000 real JSON records, spread over the whole set.
static RECORDS: LazyLock<Vec<(Vec<u8>, Vec<u8>)>> = LazyLock::new(|| {
    let packed: &[u8] = include_bytes!("../../data/mdn-compat.jsonl.zst");
    let text = String::from_utf8(zstd::decode_all(packed).expect("zstd")).expect("UTF-8");
    let record = |line: &str| {
        let line = line.strip_prefix("{\"key\":\"").expect("key").strip_suffix('}').expect("end");
        let (key, value) = line.split_once("\",\"value\":").expect("value");
        (key.as_bytes().to_vec(), value.as_bytes().to_vec())
    };
    let mut records: Vec<_> = text.lines().map(record).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut records);
    records.truncate(3000);
    records
});

fn raw((key, value): &(Vec<u8>, Vec<u8>)) -> Vec<u8> {
    [&key[..], value].concat()
}

fn trained(max_bytes: usize) -> Vec<u8> {
    let samples: Vec<Vec<u8>> = RECORDS[..750].iter().map(raw).collect();
    train_dictionary(&samples, max_bytes).expect("enough to learn from")
}

fn dictionary(slot: u8, level: i8) -> Dictionary {
    Dictionary::new(slot, trained(16 << 10), level).expect("a trained dictionary is valid")
}

fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}

fn encode(codec: Codec, dictionary: Option<&Dictionary>, key: &[u8], value: &[u8]) -> Encoded {
    let parameters =
        CompressionParameters { codec, dictionary: dictionary.map_or(0, Dictionary::slot), gate: false };
    compress(key, value, parameters, dictionary, FRAME_ROOM)
}

/// Decodes into a fresh buffer; on failure the buffer must be empty.
fn decode(
    encoded: &Encoded,
    dictionary: Option<&Dictionary>,
    raw_len: usize,
) -> Result<Vec<u8>, DecodeError> {
    let mut framed = encoded.stored.clone();
    let mut out = vec![7; 3];
    let dictionary = dictionary.filter(|_| encoded.dictionary != 0);
    match decompress(encoded.codec, dictionary, &mut framed, raw_len, &mut out) {
        Ok(()) => Ok(out),
        Err(error) => {
            assert!(out.is_empty(), "half a value was left behind");
            Err(error)
        }
    }
}

#[test]
fn every_codec_gives_back_what_it_stored_at_every_size() {
    let text = RECORDS.iter().map(raw).collect::<Vec<_>>().concat();
    for size in [0, 1, 7, 8, 63, 255, 256, 257, 4096, 65_534, 65_535, 65_536, 200_000, 1_200_000, 2_500_000] {
        for bytes in [text[..size].to_vec(), vec![0; size], random_bytes(size, 5)] {
            let (key, value) = bytes.split_at(size.min(20));
            for codec in CODECS {
                if codec == Codec::Zstd(19) && size > 70_000 {
                    continue;
                }
                let encoded = encode(codec, None, key, value);
                assert_eq!(decode(&encoded, None, size).expect("sound"), bytes, "{codec} at {size}");
                assert!(encoded.stored.len() <= FRAME_ROOM + size, "{codec} at {size} grew");
            }
        }
    }
}

#[test]
fn a_dictionary_round_trips_at_every_level_and_shrinks_json_threefold() {
    for level in [-1, 1, 3, 6, 9, 19] {
        let dictionary = dictionary(9, level);
        let (mut raw_bytes, mut stored_bytes) = (0, 0);
        for record in &RECORDS[750..1000] {
            let encoded = encode(Codec::Zstd(level), Some(&dictionary), &record.0, &record.1);
            assert_eq!((encoded.codec, encoded.dictionary), (CodecId::Zstd, 9));
            let bytes = raw(record);
            assert_eq!(decode(&encoded, Some(&dictionary), bytes.len()).expect("sound"), bytes);
            raw_bytes += bytes.len();
            stored_bytes += encoded.stored.len() - FRAME_ROOM;
        }
        assert!(stored_bytes * 3 < raw_bytes, "level {level}: {raw_bytes} to {stored_bytes}");
    }
}

#[test]
fn stored_bytes_are_allocated_once_behind_the_headroom_and_carry_no_frame_around_a_block() {
    let dictionary = dictionary(1, 3);
    let (key, value) = &RECORDS[800];
    for (codec, dictionary) in
        CODECS.map(|codec| (codec, None)).into_iter().chain([(Codec::Zstd(3), Some(&dictionary))])
    {
        let parameters =
            CompressionParameters { codec, dictionary: dictionary.map_or(0, Dictionary::slot), gate: false };
        let encoded = compress(key, value, parameters, dictionary, 40);
        assert_eq!(encoded.stored.capacity(), encoded.stored.len());
        assert_eq!(encoded.stored[..40], [0; 40]);
        if encoded.codec == CodecId::Zstd {
            // RFC 8878: a single segment whose length follows in two bytes, less 256; one block, the last, compressed.
            let (raw, block) = (raw(&RECORDS[800]), &encoded.stored[40..]);
            let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0b0110_0000];
            frame.extend_from_slice(&(raw.len() as u16 - 256).to_le_bytes());
            frame.extend_from_slice(&((block.len() as u32) << 3 | 0b101).to_le_bytes()[..3]);
            frame.extend_from_slice(block);
            assert_eq!(zstd::zstd_safe::get_dict_id_from_frame(&frame), None);
            let bytes = dictionary.map_or(Vec::new(), |_| trained(16 << 10));
            let mut decompressor = zstd::bulk::Decompressor::with_dictionary(&bytes).expect("a context");
            assert_eq!(decompressor.decompress(&frame, raw.len()).expect("a frame"), raw);
        }
    }
}

#[test]
fn what_zstd_stores_is_the_bare_block_where_there_is_but_one() {
    // Where the frame's header changes its length, and where a second block begins.
    for size in [9, 255, 256, 257, 65_791, 65_792, 131_071, 131_072, 131_073, 400_000] {
        let text: Vec<u8> = RECORDS.iter().flat_map(raw).cycle().take(size).collect();
        for codec in [Codec::Zstd(-1), Codec::Zstd(3), Codec::Zstd(9)] {
            let encoded = encode(codec, None, &text[..3], &text[3..]);
            let expected = if size <= 131_072 { CodecId::Zstd } else { CodecId::ZstdFrame };
            assert!(
                encoded.codec == expected || (size < 300 && encoded.codec == CodecId::None),
                "{codec} at {size}: {:?}",
                encoded.codec
            );
            assert_eq!(decode(&encoded, None, size).expect("sound"), text, "{codec} at {size}");
        }
    }
}

#[test]
fn values_that_save_under_an_eighth_are_stored_as_they_are() {
    assert!(saves_enough(7, 8) && saves_enough(875, 1000) && saves_enough(0, 1));
    assert!(!saves_enough(876, 1000) && !saves_enough(8, 8) && !saves_enough(0, 0) && !saves_enough(9, 8));
    let dictionary = dictionary(1, 1);
    let value = random_bytes(1000, 3);
    for codec in CODECS {
        let encoded = encode(codec, Some(&dictionary), b"key", &value);
        assert_eq!((encoded.codec, encoded.dictionary), (CodecId::None, 0), "{codec}");
        assert_eq!(encoded.stored[FRAME_ROOM..], [b"key", &value[..]].concat());
    }
}

#[test]
fn no_damage_panics_or_leaves_part_of_a_value_and_the_thread_decodes_on() {
    let dictionary = dictionary(1, 3);
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd(3)] {
        for dictionary in [None, Some(&dictionary)] {
            let (key, value) = &RECORDS[900];
            let sound = encode(codec, dictionary, key, value);
            let bytes = raw(&RECORDS[900]);
            for place in FRAME_ROOM..sound.stored.len() {
                let mut damaged = Encoded { stored: sound.stored.clone(), ..sound };
                damaged.stored[place] ^= 1 << (place % 8);
                if let Ok(out) = decode(&damaged, dictionary, bytes.len()) {
                    assert_eq!(out.len(), bytes.len());
                }
                damaged.stored.clone_from(&sound.stored);
                damaged.stored.truncate(place);
                assert!(decode(&damaged, dictionary, bytes.len()).is_err(), "{codec} cut at {place}");
            }
            assert_eq!(decode(&sound, dictionary, bytes.len()).expect("sound"), bytes);
        }
    }
}

#[test]
fn a_record_with_a_false_length_is_refused() {
    let (key, value) = &RECORDS[901];
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd(1)] {
        let encoded = encode(codec, None, key, value);
        let raw_len = key.len() + value.len();
        for false_len in [0, 1, raw_len - 1, raw_len + 1, raw_len * 2] {
            assert!(decode(&encoded, None, false_len).is_err(), "{codec} as {false_len} of {raw_len}");
        }
    }
}

#[test]
fn a_bomb_gets_no_more_memory_than_the_record_claims() {
    for codec in [Codec::Lz4, Codec::Zstd(1)] {
        let mut bomb = encode(codec, None, b"", &vec![0; 32 << 20]);
        assert!(bomb.stored.len() < 200_000);
        let mut out = Vec::new();
        let result = decompress(bomb.codec, None, &mut bomb.stored, 1000, &mut out);
        assert!(result.is_err() && out.is_empty() && out.capacity() <= 1000, "{codec}: {}", out.capacity());
    }
}

#[test]
fn an_lz4_record_that_claims_more_than_lz4_can_expand_is_refused_before_allocating() {
    let mut out = Vec::new();
    assert!(decompress(CodecId::Lz4, None, &mut [0; 100], 64 << 20, &mut out).is_err());
    assert_eq!(out.capacity(), 0);
}

#[test]
fn a_buffer_without_room_for_the_frame_is_an_error() {
    for codec in [CodecId::None, CodecId::Lz4, CodecId::Zstd, CodecId::ZstdFrame] {
        let result = decompress(codec, None, &mut [0; FRAME_ROOM - 1], 0, &mut Vec::new());
        assert!(matches!(result, Err(DecodeError::NoRoom)));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_decode_to_the_stated_length_or_to_an_error(
        mut framed in proptest::collection::vec(any::<u8>(), 0..400),
        number in 0_u8..4,
        raw_len in 0_usize..5000,
    ) {
        let codec = CodecId::from_u8(number).expect("known");
        let mut out = Vec::new();
        match decompress(codec, None, &mut framed, raw_len, &mut out) {
            Ok(()) => prop_assert_eq!(out.len(), raw_len),
            Err(_) => prop_assert!(out.is_empty()),
        }
    }

    #[test]
    fn arbitrary_entries_round_trip(
        key in proptest::collection::vec(any::<u8>(), 0..50),
        value in proptest::collection::vec(0_u8..4, 0..3000),
        codec in proptest::sample::select(CODECS.to_vec()),
    ) {
        let encoded = encode(codec, None, &key, &value);
        let bytes = [&key[..], &value].concat();
        prop_assert_eq!(decode(&encoded, None, bytes.len()).expect("sound"), bytes);
    }
}

#[test]
fn codec_numbers_on_disk_are_frozen() {
    let numbers = [CodecId::None, CodecId::Lz4, CodecId::Zstd, CodecId::ZstdFrame].map(|codec| codec as u8);
    assert_eq!(numbers, [0, 1, 2, 3]);
    for number in 0..=u8::MAX {
        assert_eq!(CodecId::from_u8(number).map(|codec| codec as u8), (number < 4).then_some(number));
    }
}

#[test]
fn parameters_survive_the_atomic_and_unknown_bits_mean_no_compression() {
    for level in i8::MIN..=i8::MAX {
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd(level)] {
            for (dictionary, gate) in [(0, false), (1, true), (255, false), (255, true)] {
                let parameters = CompressionParameters { codec, dictionary, gate };
                assert_eq!(CompressionParameters::from_bits(parameters.to_bits()), parameters);
            }
        }
    }
    assert_eq!(CompressionParameters::from_bits(u32::MAX).codec, Codec::None);
}

#[test]
fn training_is_deterministic_zeroes_the_id_and_wants_enough_data() {
    let bytes = trained(16 << 10);
    assert_eq!(bytes, trained(16 << 10));
    assert_eq!(bytes[4..8], [0; 4]);
    assert!(bytes.len() <= 16 << 10);
    let few: Vec<Vec<u8>> = RECORDS[..20].iter().map(raw).collect();
    assert_eq!(train_dictionary(&few, 16 << 10), None);
    assert_eq!(train_dictionary(&few[..3], 256), None);
    assert_eq!(train_dictionary::<Vec<u8>>(&[], 16 << 10), None);
    assert_eq!(train_dictionary(&vec![Vec::<u8>::new(); 100], 16 << 10), None);
    assert_eq!(train_dictionary(&few, 0), None);
}

#[test]
fn a_damaged_dictionary_or_slot_zero_is_refused_not_prepared() {
    let bytes = trained(16 << 10);
    let mut damaged = bytes.clone();
    damaged[8..200].fill(0xFF);
    assert!(matches!(Dictionary::new(1, damaged, 1), Err(DecodeError::Dictionary { slot: 1, .. })));
    assert!(matches!(Dictionary::new(0, bytes, 1), Err(DecodeError::Dictionary { slot: 0, .. })));
}

#[test]
fn values_stored_at_another_level_stay_readable() {
    let mut dictionary = dictionary(3, 1);
    let id = dictionary.id();
    let bytes = raw(&RECORDS[1000]);
    let encoded = encode(Codec::Zstd(1), Some(&dictionary), &RECORDS[1000].0, &RECORDS[1000].1);
    dictionary.set_levels(&[9, 3]);
    assert_eq!((dictionary.levels().collect::<Vec<_>>(), dictionary.id()), (vec![9, 3], id));
    // Nothing in force uses it: it keeps what it has.
    dictionary.set_levels(&[]);
    assert_eq!(dictionary.levels().count(), 2);
    assert_eq!(decode(&encoded, Some(&dictionary), bytes.len()).expect("sound"), bytes);
}

#[test]
fn the_table_hands_out_each_slot_once_and_never_slot_zero() {
    let table = DictionaryTable::new();
    assert!(table.read(0).is_none());
    assert_eq!((table.free_slot(), table.count(), table.total_bytes()), (Some(1), 0, 0));
    for expected in 1..=255 {
        let slot = table.free_slot().expect("room");
        assert_eq!(slot, expected);
        assert!(
            table.install(Dictionary::new(slot, b"common beginning".to_vec(), 1).expect("raw")).is_none()
        );
    }
    assert_eq!((table.free_slot(), table.count(), table.total_bytes()), (None, 255, 255 * 16));
    assert_eq!(table.remove(77).map(|dictionary| dictionary.slot()), Some(77));
    assert!(table.remove(77).is_none() && table.read(77).is_none() && !table.set_levels(77, &[3]));
    assert_eq!(table.free_slot(), Some(77));
    assert_eq!(table.slots().len(), 254);
}

#[test]
fn readers_go_on_while_the_level_changes() {
    let table = DictionaryTable::new();
    assert!(table.install(dictionary(1, 1)).is_none());
    std::thread::scope(|scope| {
        for part in RECORDS[1000..1600].chunks(200) {
            let table = &table;
            scope.spawn(move || {
                for record in part {
                    let encoded = encode(Codec::Zstd(1), table.read(1).as_ref(), &record.0, &record.1);
                    let bytes = raw(record);
                    assert_eq!(decode(&encoded, table.read(1).as_ref(), bytes.len()).expect("sound"), bytes);
                }
            });
        }
        for level in [3, 6, 9, 1, 3] {
            assert!(table.set_levels(1, &[level]));
        }
    });
}

// The analyzer.

fn json_samples(range: std::ops::Range<usize>) -> Vec<Sample> {
    RECORDS[range].iter().map(|record| Sample { raw: raw(record), key_len: record.0.len() }).collect()
}

fn random_samples(count: u64, len: usize) -> Vec<Sample> {
    (0..count).map(|seed| Sample { raw: random_bytes(len, seed), key_len: 8 }).collect()
}

static EMPTY_TABLE: LazyLock<DictionaryTable> = LazyLock::new(DictionaryTable::new);

/// A store of 12,000 entries of every class that has been tuned to zstd 1 without a dictionary.
fn situation() -> Situation<'static> {
    situation_with(CompressionParameters::plain(Codec::Zstd(1)), &EMPTY_TABLE)
}

fn situation_with(parameters: CompressionParameters, dictionaries: &DictionaryTable) -> Situation<'_> {
    Situation {
        read_share: 0.5,
        class_entries: [0, 12_000, 0, 0],
        common: parameters,
        classes: [parameters; 4],
        dictionaries,
        settled: true,
    }
}

/// Only zstd 1 alone.
const PRESENT: Present = Present { codec: Codec::Zstd(1), dictionary: DictionarySource::None };

fn analyze(samples: &[Sample], situation: Situation<'_>) -> Analysis {
    let mut last = -1.0;
    let mut progress = |fraction: f32| {
        assert!(fraction >= last && fraction <= 1.0, "{fraction} after {last}");
        last = fraction;
    };
    let analyzer = MemoryEfficiencyAnalyzer::new(Weights::Balanced, 42);
    let analysis = analyzer.analyze(samples, situation, &mut progress, &|| false).expect("analysis");
    assert_eq!(last, 1.0);
    assert!(analysis.common.candidates.is_sorted_by_key(|measured| measured.candidate.cost_ns));
    analysis
}

#[test]
fn json_records_get_a_dictionary_with_which_zstd_3_reaches_6_7_with_it_counted_twice() {
    let analysis = analyze(&json_samples(0..1000), situation());
    let common = &analysis.common;
    let chosen = &common.candidates[common.chosen_at.expect("measured")];
    assert!(common.changed && analysis.enough_samples);
    assert!(matches!(chosen.dictionary, DictionarySource::Trained(_)), "{}", common.reason);
    let raw_bytes = common.sampled_bytes as f64 / 1000.0;
    let counted_twice = |measured: &MeasuredCandidate| {
        let share = 2.0 * f64::from(measured.candidate.choice.dictionary_bytes) / 12_000.0;
        raw_bytes / (raw_bytes / measured.candidate.ratio + share)
    };
    let at_3 = common.candidates.iter().filter(|it| it.candidate.choice.codec == Codec::Zstd(3));
    let best_at_3 = at_3.map(counted_twice).fold(0.0, f64::max);
    assert!(best_at_3 >= 6.7, "{best_at_3}: {:?}", common.candidates);
    // On a busy machine the clock may prefer zstd 1, or the small dictionary.
    let ratio = counted_twice(chosen);
    assert!(ratio >= 6.0, "{ratio}: {}", common.reason);
    assert!((4.0..6.0).contains(&common.entropy_bits));
}

#[test]
fn random_bytes_are_stored_as_they_are_whatever_their_size() {
    for (count, len) in [(400, 64), (400, 940), (40, 65_536)] {
        let analysis = analyze(&random_samples(count, len), situation());
        assert!(analysis.common.entropy_bits > 7.9 && analysis.trained.is_empty());
        if analysis.enough_samples {
            assert_eq!(analysis.common.chosen.codec, Codec::None, "{}", analysis.common.reason);
            assert!(analysis.classes.iter().all(|class| class.chosen.codec == Codec::None && !class.gate));
        }
    }
}

#[test]
fn the_present_dictionary_stays_while_it_fits() {
    let samples = json_samples(0..1000);
    let first = analyze(&samples, situation());
    let (DictionarySource::Trained(index), Codec::Zstd(level)) =
        (first.common.chosen.dictionary, first.common.chosen.codec)
    else {
        panic!("no dictionary: {}", first.common.reason);
    };
    let table = DictionaryTable::new();
    table.install(Dictionary::new(4, first.trained[index].clone(), level).expect("valid"));
    let parameters = CompressionParameters { codec: Codec::Zstd(level), dictionary: 4, gate: false };
    let second = analyze(&json_samples(1000..2000), situation_with(parameters, &table));
    // The level may change with the noise of the clock; the dictionary must not.
    assert_eq!(second.common.chosen.dictionary, DictionarySource::Current(4), "{}", second.common.reason);
    assert!(second.classes.iter().all(|class| !class.is_own), "one class is no reason for two choices");
}

#[test]
fn a_change_must_beat_the_present_choice_by_the_margin() {
    let analysis = analyze(&json_samples(0..200), situation());
    let mut candidates = analysis.common.candidates;
    let place = candidates.iter().position(|measured| measured.way() == PRESENT).expect("measured");
    for measured in &mut candidates {
        measured.candidate.cost_ns = 1000.0;
    }
    let rival = usize::from(place == 0);
    for (cost_ns, wins) in
        [(1000.0 * (1.0 - CHANGE_MARGIN) + 1.0, false), (1000.0 * (1.0 - CHANGE_MARGIN) - 1.0, true)]
    {
        candidates[rival].candidate.cost_ns = cost_ns;
        let decision = choose(&candidates, PRESENT, CHANGE_MARGIN, false);
        assert_eq!(decision.changed, wins, "{}", decision.reason);
        assert_eq!(decision.index, if wins { rival } else { place });
        assert!(decision.reason.contains("zstd 1"), "{}", decision.reason);
        // Nobody has chosen it, so nothing speaks for it.
        assert!(choose(&candidates, PRESENT, 0.0, false).changed);
    }
}

/// Costs depend on a clock, bytes do not: of levels that cost the same, a smaller one is chosen whichever the clock prefers;
/// of levels that store the same, too, the lowest.
#[test]
fn of_levels_that_cost_the_same_the_one_that_stores_least_is_chosen() {
    let analysis = analyze(&json_samples(0..200), situation());
    let mut candidates = analysis.common.candidates;
    let place = |level: i8| {
        let mut all = candidates.iter();
        all.position(|it| {
            it.dictionary == DictionarySource::None && it.candidate.choice.codec == Codec::Zstd(level)
        })
        .expect("measured")
    };
    let (low, high) = (place(1), place(3));
    for measured in &mut candidates {
        measured.candidate.cost_ns = 2000.0;
    }
    let elsewhere = Present { codec: Codec::Zstd(19), dictionary: DictionarySource::None };
    // Cost and ratio of zstd 1 and of zstd 3, and which is chosen.
    for (low_at, high_at, winner) in [
        ((1000.0, 3.0), (1015.0, 3.2), high),
        ((1015.0, 3.0), (1000.0, 3.2), high),
        ((1000.0, 3.0), (1030.0, 3.2), low),
        ((1000.0, 3.0), (1015.0, 3.05), low),
        ((1015.0, 3.0), (1000.0, 3.05), low),
    ] {
        for (at, (cost_ns, ratio)) in [(low, low_at), (high, high_at)] {
            candidates[at].candidate.cost_ns = cost_ns;
            candidates[at].candidate.ratio = ratio;
        }
        let decision = choose(&candidates, elsewhere, CHANGE_MARGIN, false);
        assert_eq!(decision.index, winner, "{low_at:?}, {high_at:?}: {}", decision.reason);
    }
}

#[test]
fn a_new_level_does_not_swap_the_dictionary_for_an_equal_one() {
    let table = DictionaryTable::new();
    table.install(dictionary(4, 1));
    let parameters = CompressionParameters { codec: Codec::Zstd(1), dictionary: 4, gate: false };
    let present = Present { codec: Codec::Zstd(1), dictionary: DictionarySource::Current(4) };
    let mut candidates =
        analyze(&json_samples(0..1000), situation_with(parameters, &table)).common.candidates;
    let place = |source: DictionarySource, level: i8| {
        let mut all = candidates.iter();
        all.position(|it| it.dictionary == source && it.candidate.choice.codec == Codec::Zstd(level))
            .expect("measured")
    };
    let (kept, new) = (place(DictionarySource::Current(4), 3), place(DictionarySource::Trained(0), 3));
    for measured in &mut candidates {
        measured.candidate.cost_ns = 2000.0;
    }
    candidates[kept].candidate.cost_ns = 1000.0;
    // Nor does it where nobody but a brief look has chosen the present one, but less firmly.
    for (cost_ns, margin, winner) in
        [(910.0, CHANGE_MARGIN, kept), (890.0, CHANGE_MARGIN, new), (960.0, 0.0, kept), (940.0, 0.0, new)]
    {
        candidates[new].candidate.cost_ns = cost_ns;
        let decision = choose(&candidates, present, margin, false);
        assert_eq!((decision.index, decision.changed), (winner, true), "{}", decision.reason);
    }
}

#[test]
fn too_few_entries_are_measured_but_change_nothing() {
    for count in [0, 1, 3, 7, 8, 50, 99] {
        let analysis = analyze(&json_samples(0..count), situation());
        assert!(!analysis.enough_samples && !analysis.common.changed);
        assert!(analysis.classes.iter().all(|class| !class.changed && class.chosen == PRESENT));
        assert_eq!(analysis.common.chosen, PRESENT);
        let reason = &analysis.common.reason;
        assert!(reason.contains(&format!("only {count} entries")), "{reason}");
    }
}

#[test]
fn equal_seeds_measure_equal_ratios_and_train_equal_dictionaries() {
    let samples = json_samples(0..300);
    let (one, other) = (analyze(&samples, situation()), analyze(&samples, situation()));
    assert_eq!(one.trained, other.trained);
    let ratios = |analysis: &Analysis| -> BTreeMap<String, u64> {
        let measured = analysis.common.candidates.iter().map(|measured| &measured.candidate);
        measured.map(|candidate| (candidate.choice.to_string(), candidate.ratio.to_bits())).collect()
    };
    let (one, other) = (ratios(&one), ratios(&other));
    // Which of the slow ones are left out depends on the clock; what both measured is the same.
    let both = one.keys().filter(|choice| other.contains_key(*choice));
    assert!(both.clone().count() >= 10, "{one:?} {other:?}");
    for choice in both {
        assert_eq!(one[choice], other[choice], "{choice}");
    }
}

#[test]
fn a_class_that_is_most_of_the_store_gets_no_dictionary_of_its_own_tried() {
    let samples = json_samples(0..1000);
    // Dictionaries of two sizes are trained on all; those of the others are a class's own.
    let own_tried = |class_entries: [u64; 4], class: usize| {
        let analysis = analyze(&samples, Situation { class_entries, ..situation() });
        let sources = analysis.classes[class].candidates.iter().map(|measured| measured.dictionary);
        let trained = sources.filter_map(|source| match source {
            DictionarySource::Trained(index) => Some(index),
            DictionarySource::None | DictionarySource::Current(_) => None,
        });
        trained.collect::<BTreeSet<usize>>().len() > 2
    };
    // Nearly all of the entries and of the bytes; half of the entries; most of the entries, but not of the bytes.
    for (large, tried) in [(100, false), (10_000, true), (1_500, true)] {
        assert_eq!(own_tried([0, 10_000, large, 0], 1), tried, "beside {large}");
    }
}

#[test]
fn a_stopped_analysis_says_so() {
    let analyzer = MemoryEfficiencyAnalyzer::default();
    for allowed in [0, 1, 5] {
        let asked = std::cell::Cell::new(0);
        let should_stop = || asked.replace(asked.get() + 1) >= allowed;
        let result = analyzer.analyze(&json_samples(0..200), situation(), &mut |_| (), &should_stop);
        assert!(matches!(result, Err(AnalysisError::Stopped)));
    }
}

#[test]
fn odd_situations_give_finite_costs() {
    let samples = json_samples(0..120);
    for read_share in [f64::NAN, -3.0, 7.0, f64::INFINITY] {
        let analysis = analyze(&samples, Situation { read_share, class_entries: [0; 4], ..situation() });
        assert!(analysis.common.candidates.iter().all(|measured| measured.candidate.cost_ns.is_finite()));
    }
    let odd = [Sample { raw: b"abc".to_vec(), key_len: 99 }];
    assert!(!analyze(&odd, situation()).common.changed);
}

#[test]
fn entropy_is_zero_for_one_byte_value_one_for_two_and_eight_for_all() {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    assert_eq!(entropy_bits([].into_iter()), 0.0);
    assert_eq!(entropy_bits([&[5_u8; 100][..]].into_iter()), 0.0);
    assert!((entropy_bits([&[0_u8; 9][..], &[1; 9]].into_iter()) - 1.0).abs() < 1e-9);
    assert!((entropy_bits([&all[..], &all].into_iter()) - 8.0).abs() < 1e-9);
}

#[test]
fn a_dictionary_is_trained_from_eight_samples_on() {
    let samples: Vec<Vec<u8>> =
        (0..8).map(|n| RECORDS[n * 40..][..40].iter().flat_map(raw).collect()).collect();
    assert!(samples.iter().map(Vec::len).sum::<usize>() > 8 << 10);
    assert!(train_dictionary(&samples, 4 << 10).is_some());
    assert!(train_dictionary(&samples[..7], 4 << 10).is_none());
}

/// What is remembered of an expired value is its key alone, stored as it is: nothing of how the value was stored goes
/// with it. The task that moves it reads back what it has written, and would give up for ever.
#[test]
fn what_is_remembered_of_a_compressed_value_is_moved_and_found_again() {
    for codec in [Codec::Lz4, Codec::Zstd(3)] {
        let dir = scratch();
        let fixed = || config(dir.path()).compression(Compression::Fixed(codec));
        let cold = open_on(fixed(), OsDisk);
        // So many entries of a few bytes each that saving the index would cost more than it gives.
        for n in 0..2000 {
            cold.insert(&key(n), &[b'a'; 300]).unwrap();
        }
        for n in 0..400 {
            cold.insert_with_ttl(&key(n), &[b'b'; 300], Duration::from_secs(1)).unwrap();
        }
        cold.flush().unwrap();
        let stats = cold.stats();
        assert!(
            stats.stored_bytes_inserted < stats.raw_bytes_inserted / 2,
            "{codec}: nothing was compressed"
        );
        cold.clock().advance(1000);
        cold.run_due().unwrap();
        let (stats, segments) = (cold.stats(), cold.segments());
        assert_eq!((stats.entries, stats.shadows), (1600, 400), "{codec}: {segments:?}");
        let expiring = segments.iter().filter(|segment| segment.latest_expiry_ms.is_some());
        assert_eq!(expiring.count(), 0, "{codec}: what has expired was moved out");
        cold.flush().unwrap();
        cold.abandon();
        let cold = open_on(fixed(), OsDisk);
        for n in 0..2000 {
            let expected = (n >= 400).then_some(&[b'a'; 300][..]);
            assert_eq!(cold.get(&key(n)).unwrap().as_deref(), expected, "{codec}: {n}");
        }
    }
}
