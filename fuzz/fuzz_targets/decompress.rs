//! Any bytes to any decoder, with and without a dictionary: refused, or exactly as long as was asked for. And whatever
//! is compressed comes back.
#![no_main]

use std::sync::LazyLock;

use larder::internals::compression::{CodecId, FRAME_ROOM, decompress};
use larder::internals::dictionary::{Dictionary, train_dictionary};
use libfuzzer_sys::fuzz_target;

static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| {
    let sample = |n: u32| format!("{{\"number\":{n},\"name\":\"record {n}\",\"tags\":[\"cache\",\"disk\",\"{}\"]}}", n % 7);
    let samples: Vec<String> = (0..2000).map(sample).collect();
    let bytes = train_dictionary(&samples, 4096).expect("the samples are alike");
    Dictionary::new(1, bytes, 3).expect("a trained dictionary is one")
});

fuzz_target!(|data: &[u8]| {
    let Some(([codec, low, high], stored)) = data.split_first_chunk::<3>() else { return };
    let raw_len = usize::from(u16::from_le_bytes([*low, *high]));
    let mut framed = vec![0; FRAME_ROOM];
    framed.extend_from_slice(stored);
    let mut out = Vec::new();
    for dictionary in [None, Some(&*DICTIONARY)] {
        let Some(codec) = CodecId::from_u8(codec % 4) else { continue };
        match decompress(codec, dictionary, &mut framed.clone(), raw_len, &mut out) {
            Ok(()) => assert_eq!(out.len(), raw_len),
            Err(_) => assert!(out.is_empty(), "what was refused is not handed out"),
        }
        assert!(out.capacity() < 1 << 20, "a frame decides what is allocated");
    }
});
