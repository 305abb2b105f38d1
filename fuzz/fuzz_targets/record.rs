//! A record with any header and any stored bytes, its check made right: it is refused, or decodes to what it claims.
#![no_main]

use larder::internals::core::segment::decode_record;
use larder::internals::dictionary::DictionaryTable;
use larder::internals::serialization::record::{RECORD_HEADER_BYTES, UnverifiedRecord, payload_sum};
use libfuzzer_sys::fuzz_target;

const NONCE: u64 = 7;
const OFFSET: u64 = 64;

fuzz_target!(|data: &[u8]| {
    // As it comes; and with the right check.
    let _ = UnverifiedRecord::parse(data, 0);
    if data.len() <= RECORD_HEADER_BYTES {
        return;
    }
    let mut bytes = data.to_vec();
    let stored_len = (data.len() - RECORD_HEADER_BYTES) as u32;
    let flags = u32::from_le_bytes([bytes[17], bytes[18], bytes[19], bytes[20]]) & !((1 << 27) - 1);
    bytes[17..21].copy_from_slice(&(stored_len | flags).to_le_bytes());
    let sum = payload_sum(0, &bytes[RECORD_HEADER_BYTES..]);
    let seed = [NONCE.to_le_bytes(), OFFSET.to_le_bytes()].concat();
    let check = crc32c::crc32c_append(crc32c::crc32c(&seed), &bytes[4..RECORD_HEADER_BYTES]);
    let check = crc32c::crc32c_append(check, &sum.to_le_bytes());
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
