//! A snapshot with any head, slots and table, checksums made right: refused, or an index that gives its slots back.
#![no_main]

mod parts;

use larder::internals::metadata_index::MetadataIndex;
use larder::internals::serialization::FormatError;
use larder::internals::serialization::chunk::{PackedSlot, check_chunk, decode_chunk};
use larder::internals::serialization::snapshot::{SNAPSHOT_HEADER_BYTES, decode_header, decode_slot_table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = (decode_header(data), check_chunk(data), decode_slot_table(data));
    if let Some(head) = data.get(..SNAPSHOT_HEADER_BYTES - 16) {
        // Any head of the right size is one, but for a parity of nothing.
        match decode_header(&parts::sealed(b"LARDSNP1", head)) {
            Ok(header) => assert!(header.file_bytes() > header.body_bytes()),
            Err(error) => assert_eq!(error, FormatError::Invalid("parity length")),
        }
    }
    let _ = decode_slot_table(&parts::sealed(b"LARDSLT1", data));
    let Ok(partitions) = decode_chunk(data, 4) else { return };
    let index = MetadataIndex::default();
    for (number, slots) in partitions.into_iter().enumerate() {
        let expected: Vec<PackedSlot> = slots.clone().collect();
        let Some(()) = index.load_partition(number as u16, slots, |_| true) else { return };
        assert!(index.packed_partition(number as u16) == expected, "the slots are not those that were loaded");
    }
});
