//! `larder repair`: a damaged store saved into a fresh one, beside it or in its place.

use std::fs;

use super::{largest_segment, message, number, place, run, run_json, said, text, write_records};

fn manifest(store: &std::path::Path) -> std::path::PathBuf {
    let files =
        fs::read_dir(store).expect("the store can be listed").map(|entry| entry.expect("an entry").path());
    let is_manifest = |path: &std::path::PathBuf| text(path).contains("MANIFEST-");
    files.into_iter().find(is_manifest).expect("a manifest")
}

#[test]
fn a_store_whose_manifest_is_gone_is_saved_into_a_copy() {
    let (dir, store) = place();
    let input = write_records(&dir, 500);
    run(&["load", text(&store), "--from", text(&input)], 0);
    fs::remove_file(manifest(&store)).expect("the manifest can be removed");
    assert!(message(&run_json(&["get", text(&store), "key-1"], 1)).contains("no readable manifest"));
    run(&["verify", text(&store)], 3);

    let copy = dir.path().join("copy");
    let repaired = run_json(&["repair", text(&store), "--to", text(&copy)], 0);
    assert_eq!(number(&repaired, "saved"), 500.0, "{repaired}");
    assert_eq!(number(&repaired, "doubtful_saved"), 500.0, "{repaired}");
    assert_eq!(number(&run_json(&["verify", text(&copy)], 0), "live_entries"), 500.0);
    assert!(message(&run_json(&["repair", text(&store), "--to", text(&copy)], 1)).contains("not empty"));
}

#[test]
fn a_repair_in_place_keeps_the_damaged_files_beside_it() {
    let (dir, store) = place();
    let input = write_records(&dir, 500);
    run(&["load", text(&store), "--from", text(&input)], 0);
    let segment = largest_segment(&store);
    let mut bytes = fs::read(&segment).expect("the segment can be read");
    bytes[200] ^= 1;
    fs::write(&segment, &bytes).expect("the segment can be damaged");
    run(&["verify", text(&store)], 3);
    run(&["repair", text(&store), "--in-place"], 2);
    run(&["repair", text(&store)], 2);

    let said = said(&run(&["repair", text(&store), "--in-place", "--yes"], 0));
    assert!(said.contains("saved 499 entries") && said.contains("1 damaged"), "{said}");
    assert_eq!(number(&run_json(&["verify", text(&store)], 0), "live_entries"), 499.0);
    let kept = dir.path().join("store.damaged-1").join(segment.file_name().expect("a name"));
    assert_eq!(fs::read(kept).expect("the damaged segment is kept"), bytes);
}
