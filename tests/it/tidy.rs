//! The rules of the house that no compiler checks: shared ownership, tests in production files, `unsafe`, headers,
//! lengths, lint exceptions, the direction of imports, and that the documentation names every magic number.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::stores::root;

/// A Rust file of the workspace.
struct Source {
    /// Relative to the project's directory.
    path: String,
    text: String,
    tokens: Vec<Token>,
}

/// An identifier or a sign of the code, with its line. Comments and literals are none.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Splits code into identifiers and signs; `::` is one sign. Comments, strings, characters and lifetimes are left out.
fn tokens(code: &str) -> Vec<Token> {
    let chars: Vec<char> = code.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut i, mut line, mut out) = (0, 1, Vec::new());
    while i < chars.len() {
        let start = i;
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= chars.len() {
                    break;
                }
            }
        } else if let Some(hashes) = raw_string(&chars[i..]) {
            // r"..", r#".."#, br#".."#: to the quote that as many hashes follow.
            while at(i) != '"' {
                i += 1;
            }
            i += 1;
            while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                i += 1;
            }
            i += 1 + hashes;
        } else if c == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == '\'' {
            // A character or a lifetime.
            if at(i + 1) == '\\' {
                i += 3;
                while at(i) != '\'' && i < chars.len() {
                    i += 1;
                }
                i += 1;
            } else if at(i + 2) == '\'' {
                i += 3;
            } else {
                i += 1;
                while is_word(at(i)) {
                    i += 1;
                }
            }
        } else if is_word(c) {
            while is_word(at(i)) {
                i += 1;
            }
            out.push(Token { text: chars[start..i].iter().collect(), line });
        } else if c == ':' && at(i + 1) == ':' {
            i += 2;
            out.push(Token { text: "::".into(), line });
        } else {
            i += 1;
            if !c.is_whitespace() {
                out.push(Token { text: c.to_string(), line });
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    out
}

/// The hashes of the raw string that starts here, if one does.
fn raw_string(chars: &[char]) -> Option<usize> {
    let rest = match chars {
        ['b' | 'c', 'r', rest @ ..] | ['r', rest @ ..] => rest,
        _ => return None,
    };
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    (rest.get(hashes) == Some(&'"')).then_some(hashes)
}

fn collect(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, out);
        } else if name.ends_with(".rs") {
            out.push(path);
        }
    }
}

/// Every Rust file of the workspace but this one, which has to name what it bans.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root(), &mut paths);
    let read = |path: PathBuf| {
        let text = String::from_utf8(crate::stores::read_file(
            path.parent().unwrap(),
            path.file_name().unwrap().to_str().unwrap(),
        ));
        let text = text.unwrap();
        let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        Source { path, tokens: tokens(&text), text }
    };
    let mut sources: Vec<Source> = paths.into_iter().map(read).collect();
    sources.retain(|source| source.path != "tests/it/tidy.rs");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 60, "{} files: are these all?", sources.len());
    assert!(sources.iter().any(|source| source.path.starts_with("crates/")));
    sources
}

const CREW: &str = "src/cache/tier/cold/crew.rs";

/// The places where `wanted` stands in the code, token by token.
fn places(source: &Source, wanted: &str) -> Vec<String> {
    let wanted = tokens(wanted);
    let is_here =
        |window: &&[Token]| window.iter().zip(&wanted).all(|(token, wanted)| token.text == wanted.text);
    let found = source.tokens.windows(wanted.len()).filter(is_here);
    found.map(|window| format!("{}:{}: {}", source.path, window[0].line, window[0].text)).collect()
}

fn expect_nowhere<'a>(sources: impl IntoIterator<Item = &'a Source>, banned: &[&str]) {
    let found: Vec<String> = sources
        .into_iter()
        .flat_map(|source| banned.iter().flat_map(|wanted| places(source, wanted)))
        .collect();
    assert!(found.is_empty(), "{banned:?} found:\n{}", found.join("\n"));
}

#[test]
fn the_reader_of_code_sees_code_and_nothing_else() {
    let code = r##"
        //! Arc in a header
        /* Arc /* nested */ Arc */
        fn f<'a>(x: &'a str) -> char { let s = "Arc \" Arc"; let r = r#"Arc " Arc"#; 'A' } // Arc
        let b = b"Arc"; let c = '\''; let d = '\u{41}'; use std::sync::Arc;
    "##;
    let found = tokens(code);
    let arcs: Vec<_> = found.iter().filter(|token| token.text == "Arc").collect();
    assert_eq!(arcs.len(), 1, "{found:?}");
    assert_eq!(arcs[0].line, 5);
    let source = Source { path: "x.rs".into(), text: String::new(), tokens: found };
    assert_eq!(places(&source, "std::sync::Arc"), ["x.rs:5: std"]);
    assert!(places(&source, "sync::Rc").is_empty());
}

#[test]
fn nothing_is_owned_together() {
    let sources = sources();
    let shared = ["Arc", "Rc", "Weak", "UnsafeCell", "ArcSwap", "triomphe", "arc_swap"];
    expect_nowhere(&sources, &shared);
    // A leak is shared ownership by another name.
    let leaks = [".leak(", "::leak", "mem::forget", "ManuallyDrop", "from_owner", "static mut"];
    expect_nowhere(&sources, &leaks);
    // One system call that no crate wraps. Opening LMDB is an unsafe function; that program is not part of the library.
    let exempt = [CREW, "src/io/sync_range.rs", "crates/larder-peers/src/peers/lmdb.rs"];
    let others = sources.iter().filter(|source| !exempt.contains(&&*source.path));
    expect_nowhere(others, &["into_raw", "from_raw", "into_non_null", "unsafe"]);
    let crew = sources.iter().find(|source| source.path == CREW).unwrap();
    assert!(
        !places(crew, "into_raw").is_empty() && !places(crew, "unsafe").is_empty(),
        "the check sees nothing"
    );
}

#[test]
fn production_files_hold_production_code() {
    let sources = sources();
    let production = |source: &&Source| {
        source.path.starts_with("src/")
            || (source.path.starts_with("crates/") && source.path.contains("/src/"))
    };
    let tests = ["#[test]", "#[cfg(test)]", "cfg(test", "mod tests", "#[bench]", "cfg!(test"];
    expect_nowhere(sources.iter().filter(production), &tests);
    expect_nowhere(sources.iter().filter(production), &["dbg!", "todo!", "unimplemented!"]);
    assert!(sources.iter().any(|source| !places(source, "#[test]").is_empty()), "the check sees nothing");
}

#[test]
fn nothing_is_left_undone_and_no_lint_is_silenced_without_a_reason() {
    let sources = sources();
    expect_nowhere(&sources, &["todo!", "unimplemented!", "dbg!"]);
    expect_nowhere(&sources, &["#[allow(", "#![allow(", ", allow("]);
    let mut unexplained = Vec::new();
    for source in &sources {
        for (at, token) in source.tokens.iter().enumerate() {
            let is_attribute = token.text == "expect" && at > 0 && source.tokens[at - 1].text == "[";
            let end = source.tokens[at..].iter().position(|token| token.text == "]").unwrap_or(0);
            if is_attribute && !source.tokens[at..at + end].iter().any(|token| token.text == "reason") {
                unexplained.push(format!("{}:{}", source.path, token.line));
            }
        }
    }
    assert!(unexplained.is_empty(), "expect without a reason: {unexplained:?}");
}

#[test]
fn every_file_says_what_it_is_and_none_is_too_long() {
    let sources = sources();
    let silent: Vec<_> =
        sources.iter().filter(|source| !source.text.starts_with("//!")).map(|s| &s.path).collect();
    assert!(silent.is_empty(), "no header: {silent:?}");
    let lines = |source: &&Source| source.text.lines().count();
    let long =
        sources.iter().filter(|source| source.path.starts_with("src/")).filter(|source| lines(source) > 700);
    let long: Vec<_> = long.map(|source| &source.path).collect();
    assert!(long.is_empty(), "over 700 lines: {long:?}");
}

/// The modules that a file names: every word of its `use` items, and what follows `cold::` or `super::` elsewhere.
fn named_modules(source: &Source) -> BTreeSet<&str> {
    let mut named = BTreeSet::new();
    let mut is_use = false;
    for (at, token) in source.tokens.iter().enumerate() {
        is_use = (is_use || token.text == "use") && token.text != ";";
        let is_path = at >= 2
            && source.tokens[at - 1].text == "::"
            && ["cold", "super", "tier", "cache"].contains(&&*source.tokens[at - 2].text);
        if is_use || is_path {
            named.insert(&*token.text);
        }
    }
    named
}

#[test]
fn imports_never_go_upward() {
    let sources = sources();
    let rules: [(&str, &[&str]); 5] = [
        (
            "src/cache/tier/cold/serialization/",
            &[
                "core",
                "handle",
                "writer",
                "worker",
                "compaction_system",
                "shared",
                "metadata_index",
                "in_flight",
                "queue",
                "storage",
                "recovery",
                "manifest",
                "slab",
                "state",
                "Disk",
                "DiskFile",
            ],
        ),
        (
            "src/cache/tier/cold/core/",
            &["writer", "handle", "worker", "compaction_system", "iter", "open", "inspect"],
        ),
        ("src/cache/tier/cold/compaction_system", &["writer", "worker", "open_with", "ColdTier"]),
        ("src/io/", &["cache", "cold", "tier", "config"]),
        ("src/clock.rs", &["cache", "cold", "tier", "io"]),
    ];
    for (under, upward) in rules {
        let files: Vec<_> = sources.iter().filter(|source| source.path.starts_with(under)).collect();
        assert!(!files.is_empty(), "nothing under {under}");
        for source in files {
            let named = named_modules(source);
            let wrong: Vec<_> = upward.iter().filter(|module| named.contains(**module)).collect();
            assert!(wrong.is_empty(), "{} imports {wrong:?}", source.path);
        }
    }
    let writer = sources.iter().find(|source| source.path.ends_with("cold/writer.rs")).unwrap();
    assert!(named_modules(writer).contains("storage"), "the check sees nothing");
}

#[test]
fn the_format_document_names_every_magic_number() {
    let document = String::from_utf8(crate::stores::read_file(&root().join("docs"), "FORMAT.md")).unwrap();
    let mut magics = BTreeSet::new();
    for source in sources().iter().filter(|source| source.path.starts_with("src/")) {
        for part in source.text.split("b\"LARD").skip(1) {
            magics.insert(format!("LARD{}", part.split('"').next().unwrap()));
        }
    }
    assert!(magics.len() >= 7, "{magics:?}");
    for magic in magics {
        assert_eq!(magic.len(), 8, "{magic}");
        assert!(document.contains(&magic), "docs/FORMAT.md does not mention {magic}");
    }
}

#[test]
fn every_file_of_tests_belongs_to_a_binary() {
    let sources = sources();
    let main = sources.iter().find(|source| source.path == "tests/it/main.rs").unwrap();
    let under =
        sources.iter().filter_map(|source| source.path.strip_prefix("tests/it/")?.strip_suffix(".rs"));
    let missing: Vec<_> = under
        .filter(|name| {
            *name != "main" && !name.contains('/') && places(main, &format!("mod {name};")).is_empty()
        })
        .collect();
    assert!(missing.is_empty(), "not in the module list: {missing:?}");
}
