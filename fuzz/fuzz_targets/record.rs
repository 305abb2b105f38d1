//! A record with any header and any stored bytes, its check made right: it is refused, or decodes to what it claims.
#![no_main]

use larder::internals::core::segment::decode_record;
use larder::internals::dictionary::DictionaryTable;
use larder::internals::serialization::record::{UnverifiedRecord, payload_sum};
use libfuzzer_sys::fuzz_target;

const NONCE: u64 = 7;
const OFFSET: u64 = 64;

fuzz_target!(|data: &[u8]| {
    // As it comes; and with the right check.
    let _ = UnverifiedRecord::parse(data, 0);
    // Its stored length made to fit as well.
    let (Some(flags), mut bytes) = (data.get(8), data.to_vec()) else { return };
    let (expires, is_long) = (flags & 1 << 3 != 0, flags & 1 << 4 != 0);
    let header_len = if is_long { 20 } else { 15 } + if expires { 6 } else { 0 };
    let Some(stored_len) = data.len().checked_sub(header_len) else { return };
    if is_long {
        bytes[12..16].copy_from_slice(&(stored_len as u32).to_le_bytes());
    } else {
        bytes[11..13].copy_from_slice(&(stored_len as u16).to_le_bytes());
    }
    let sum = payload_sum(0, &bytes[header_len..]);
    let seed = [&NONCE.to_le_bytes()[..], &OFFSET.to_le_bytes(), &sum.to_le_bytes()].concat();
    let check = crc32c::crc32c_append(crc32c::crc32c(&seed), &bytes[4..header_len]);
    bytes[..4].copy_from_slice(&check.to_le_bytes());
    let Ok(record) = UnverifiedRecord::parse(&bytes, 3) else { return };
    assert!(record.verify(sum, NONCE, OFFSET + 4).is_err(), "a record passes where it was not written");
    let meta = record.verify(sum, NONCE, OFFSET).expect("its check is right");
    // A claim that only costs memory says nothing about the decoder.
    if meta.raw_len > 1 << 20 {
        return;
    }
    let mut raw = Vec::new();
    if decode_record(&meta, &mut bytes, &DictionaryTable::new(), &mut raw).is_ok() {
        assert_eq!(raw.len(), meta.raw_len as usize);
        assert!(meta.key_len as usize <= raw.len());
    }
});
