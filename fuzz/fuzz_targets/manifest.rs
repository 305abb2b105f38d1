//! A log of edits with any content, framed right or as it comes: read without a panic, and applied.
#![no_main]

use larder::internals::serialization::edit::{
    BLOCK_BYTES, Edit, decode_edits, encode_edit, manifest_header,
};
use libfuzzer_sys::fuzz_target;

fn framed(number: u64, payload: &[u8], out: &mut Vec<u8>) {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &0u64.to_le_bytes());
    let at = out.len();
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c_append(sum, payload).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&0u64.to_le_bytes());
    out.extend_from_slice(payload);
    out.resize(at + (out.len() - at).next_multiple_of(BLOCK_BYTES), 0);
}

fuzz_target!(|data: &[u8]| {
    let _ = decode_edits(data);
    // Payloads one after the other, each led by its length.
    let (mut file, mut rest, mut number) = (manifest_header(), data, 0);
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(after.len());
        framed(number, &after[..len], &mut file);
        (rest, number) = (&after[len..], number + 1);
    }
    let log = decode_edits(&file);
    let mut edits = log.edits.into_iter();
    let Some((_, Edit::State(state))) = edits.next() else { return };
    let mut state = *state;
    for (number, edit) in edits {
        // An edit comes back from its own bytes. A ratio that is no number equals nothing, itself among it.
        let mut file = manifest_header();
        file.extend_from_slice(&encode_edit(number, 0, &edit));
        let again = decode_edits(&file).edits;
        assert_eq!(format!("{again:?}"), format!("{:?}", [(number, &edit)]));
        state.apply(number, &edit);
    }
});
