//! `load` of a directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::{number, place, run, run_json, text};

fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("a/b")).expect("directories");
    fs::write(root.join("top.txt"), "top").expect("a file");
    fs::write(root.join("a/mid"), [0xff, 0x00]).expect("a file");
    fs::write(root.join("a/b/deep name.txt"), "deep").expect("a file");
    fs::write(root.join("a/empty"), "").expect("a file");
    symlink("top.txt", root.join("link")).expect("a link");
    // A circle, which whoever follows links walks for ever.
    symlink("..", root.join("a/up")).expect("a link");
}

#[test]
fn every_file_below_is_an_entry_and_links_are_not_followed() {
    let (dir, store) = place();
    let (root, store) = (dir.path().join("tree"), text(&store));
    make_tree(&root);
    let loaded = run_json(&["load", store, text(&root), "--ttl", "1h"], 0);
    assert_eq!((number(&loaded, "records"), number(&loaded, "entries")), (4.0, 4.0));
    assert_eq!((number(&loaded, "skipped"), number(&loaded, "passed_over")), (0.0, 2.0));
    assert_eq!(run(&["get", store, "top.txt"], 0).stdout, b"top");
    assert_eq!(run(&["get", store, "a/mid"], 0).stdout, [0xff, 0x00]);
    assert_eq!(run(&["get", store, "a/b/deep name.txt"], 0).stdout, b"deep");
    assert_eq!(number(&run_json(&["get", store, "a/empty"], 0), "size"), 0.0);
    assert!(number(&run_json(&["get", store, "top.txt"], 0), "ttl_seconds") > 3000.0);
    run(&["get", store, "link"], 1);
}

#[test]
fn files_above_the_limit_are_told_and_counted() {
    let (dir, store) = place();
    let root = dir.path().join("tree");
    make_tree(&root);
    let large = fs::File::options().create_new(true).write(true).open(root.join("large"));
    large.and_then(|file| file.set_len((64 << 20) + 1)).expect("a sparse file");
    let output = run(&["load", text(&store), text(&root), "--json"], 0);
    let loaded = crate::parse(&output);
    assert_eq!((number(&loaded, "records"), number(&loaded, "skipped")), (4.0, 1.0));
    assert_eq!(loaded["skipped_files"][0]["file"], "large");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("large") && told.contains("64 MiB") && told.contains("skipped"), "{told}");
}

#[test]
fn an_unreadable_file_stops_the_load_unless_skipped() {
    let (dir, store) = place();
    let root = dir.path().join("tree");
    make_tree(&root);
    let closed = root.join("closed");
    fs::write(&closed, "secret").expect("a file");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("permissions");
    if fs::read(&closed).is_ok() {
        // Nothing is unreadable to root.
        return;
    }
    let output = run(&["load", text(&store), text(&root), "--json"], 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--skip-bad"));
    let loaded = run_json(&["load", text(&store), text(&root), "--skip-bad"], 0);
    assert_eq!((number(&loaded, "records"), number(&loaded, "skipped")), (4.0, 1.0));
}

#[test]
fn a_store_is_not_loaded_into_itself() {
    let (dir, _) = place();
    let root = dir.path().join("tree");
    make_tree(&root);
    let inside = root.join("cache");
    for _ in 0..2 {
        let loaded = run_json(&["load", text(&inside), text(&root)], 0);
        assert_eq!((number(&loaded, "records"), number(&loaded, "entries")), (4.0, 4.0));
    }
    let itself = run_json(&["load", text(&inside), text(&inside)], 1);
    assert!(crate::message(&itself).contains("the store itself"), "{itself}");
}
