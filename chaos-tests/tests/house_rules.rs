//! Rules of the house that the compiler does not know: pure folders stay pure,
//! arrows between crates point one way, and every crate shares lints and licence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Folders whose code is a function of state and event.
const PURE: [&str; 11] = [
    "metadata/src/records",
    "metadata/src/image",
    "metadata/src/controller",
    "replication/src/core",
    "replication/src/flow",
    "replication/src/room",
    "commitlog/src/format",
    "commitlog/src/producers",
    "client/src/consumer/membership",
    "client/src/producer/pipeline",
    "coordinator/src/groups",
];

/// What reaches for a clock, chance, a file, a thread or the network. The traits
/// of `std::io` do not: codecs read and write memory through them.
const IMPURE: [&str; 22] = [
    "tokio",
    "async fn",
    ".await",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::process",
    "stdin()",
    "stdout()",
    "stderr()",
    "rand::",
    "rand_core",
    "::random()",
    "new_v4",
    "Mutex",
    "RwLock",
    "thread_local!",
    "crate::vfs",
    "openraft",
];

/// Who may depend on whom: DESIGN's arrows, and docs/decisions/0001.
const ARROWS: [(&str, &[&str]); 12] = [
    ("proto", &[]),
    ("host", &[]),
    ("grpc", &[]),
    ("trace", &[]),
    ("commitlog", &["ottla-proto"]),
    ("metadata", &["ottla-commitlog", "ottla-host", "ottla-proto"]),
    (
        "replication",
        &[
            "ottla-commitlog",
            "ottla-grpc",
            "ottla-host",
            "ottla-metadata",
            "ottla-proto",
            "ottla-trace",
        ],
    ),
    ("coordinator", &["ottla-commitlog", "ottla-metadata", "ottla-proto", "ottla-replication"]),
    (
        "node",
        &[
            "ottla-commitlog",
            "ottla-coordinator",
            "ottla-grpc",
            "ottla-host",
            "ottla-metadata",
            "ottla-proto",
            "ottla-replication",
            "ottla-trace",
        ],
    ),
    ("client", &["ottla-commitlog", "ottla-grpc", "ottla-host", "ottla-proto", "ottla-trace"]),
    ("cli", &["ottla-client", "ottla-node", "ottla-proto"]),
    (
        "chaos-tests",
        &[
            "ottla-client",
            "ottla-commitlog",
            "ottla-host",
            "ottla-metadata",
            "ottla-node",
            "ottla-proto",
        ],
    ),
];

/// Arrows that only tests follow.
const TEST_ARROWS: [(&str, &str); 3] =
    [("client", "ottla-coordinator"), ("grpc", "ottla-proto"), ("cli", "ottla-commitlog")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn impurities(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // Tests at the end of a file may read their scripts.
        if line.trim() == "#[cfg(test)]" {
            break;
        }
        found.extend(
            IMPURE.iter().filter(|word| code(line).contains(**word)).map(|w| (number + 1, *w)),
        );
    }
    found
}

#[test]
fn pure_folders_are_pure() {
    let mut broken = Vec::new();
    for folder in PURE {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files.iter().filter(|f| !is_test_file(f)) {
            let text = std::fs::read_to_string(file).expect("UTF-8 source");
            for (line, word) in impurities(&text) {
                broken.push(format!("{}:{line}: {word}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "impure code in a pure folder:\n{}", broken.join("\n"));
}

/// Modules that exist only under `cfg(test)`, by their name.
fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
        || path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

/// The rule itself is tested: it must catch what it is for.
#[test]
fn the_purity_rule_bites() {
    assert_eq!(impurities("let now = Instant::now();"), [(1, "Instant")]);
    assert_eq!(impurities("// not Instant\nuse tokio::sync;"), [(2, "tokio")]);
    assert_eq!(impurities("#[cfg(test)]\nmod tests { use std::fs; }"), []);
}

#[test]
fn arrows_point_one_way() {
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    for (folder, allowed) in allowed {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml"))
            .unwrap_or_else(|e| panic!("{folder}: {e}"));
        let mut tests = false;
        for line in text.lines() {
            tests = if line.starts_with('[') { line == "[dev-dependencies]" } else { tests };
            let Some(name) = line.split(['.', ' ', '=']).next() else { continue };
            let is_allowed =
                allowed.contains(&name) || tests && TEST_ARROWS.contains(&(folder, name));
            assert!(
                !name.starts_with("ottla-") || is_allowed,
                "{folder} must not depend on {name}"
            );
        }
    }
}

#[test]
fn every_crate_shares_lints_and_licence() {
    for (folder, _) in ARROWS {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml"))
            .unwrap_or_else(|e| panic!("{folder}: {e}"));
        for line in
            ["[lints]\nworkspace = true", "license.workspace = true", "edition.workspace = true"]
        {
            assert!(text.contains(line), "{folder}/Cargo.toml lacks `{line}`");
        }
    }
    assert!(root().join("LICENSE").is_file());
}

/// Where stories are, and how the page on replication calls them.
const STORIES: [(&str, &str); 2] =
    [("replication/src/script_tests/scripts", ""), ("metadata/src/controller/scripts", "c/")];

fn stories() -> Vec<String> {
    let mut names = Vec::new();
    for (folder, prefix) in STORIES {
        for entry in std::fs::read_dir(root().join(folder)).expect("a folder of stories") {
            let path = entry.expect("a directory entry").path();
            let stem = path.file_stem().expect("a file").to_string_lossy().into_owned();
            names.push(format!("{prefix}{stem}"));
        }
    }
    names
}

/// What a page has between backticks.
fn quoted(page: &str) -> Vec<&str> {
    page.split('`').skip(1).step_by(2).collect()
}

/// The functions of all crates, tests included.
fn functions() -> BTreeSet<String> {
    let mut files = Vec::new();
    for (folder, _) in ARROWS {
        sources(&root().join(folder), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("UTF-8 source");
        for after in text.split("fn ").skip(1) {
            names.extend(after.split(['(', '<']).next().map(str::to_owned));
        }
    }
    names
}

/// A name as functions and stories have them: of several words, or a story of the
/// controller.
fn is_name(word: &str) -> bool {
    let plain =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    match word.strip_prefix("c/") {
        Some(story) => plain(story),
        None => plain(word) && word.contains('_'),
    }
}

#[test]
fn every_story_is_told_where_the_argument_is_and_exists() {
    let page = std::fs::read_to_string(root().join("docs/replication-protocol.md")).expect("docs");
    let named: BTreeSet<&str> = quoted(&page).into_iter().collect();
    let stories = stories();
    assert!(stories.len() > STORIES.len(), "no stories");
    let untold: Vec<_> = stories.iter().filter(|name| !named.contains(name.as_str())).collect();
    assert!(untold.is_empty(), "docs/replication-protocol.md does not name {untold:?}");
    let mut known = functions();
    known.extend(stories);
    let made_up: Vec<_> =
        named.iter().filter(|word| is_name(word) && !known.contains(**word)).collect();
    assert!(made_up.is_empty(), "docs/replication-protocol.md names {made_up:?}: no such thing");
}

/// What a page says that its claims are shown by: words of commands, without options.
fn shown_by(page: &str) -> Vec<&str> {
    let paragraphs = page.split("\n\n").filter_map(|text| Some(text.split_once("Shown by")?.1));
    let tables = page.lines().filter(|line| line.starts_with('|') && line.contains("cargo test"));
    let quoted = paragraphs.chain(tables).flat_map(quoted);
    quoted.filter_map(|command| command.split_whitespace().last()).collect()
}

#[test]
fn what_the_client_guide_is_shown_by_exists() {
    let page = std::fs::read_to_string(root().join("docs/client-guide.md")).expect("docs");
    let mut files = Vec::new();
    ARROWS.iter().for_each(|(folder, _)| sources(&root().join(folder), &mut files));
    let mut known: Vec<String> = functions().into_iter().collect();
    known.extend(files.iter().map(|path| path.to_string_lossy().into_owned()));
    known.extend(ARROWS.iter().map(|(folder, _)| format!("ottla-{folder}")));
    let python = root().join("examples/python/run_in_ci.py");
    known.push(std::fs::read_to_string(&python).expect("the examples' own test"));
    known.push(python.to_string_lossy().into_owned());
    assert_eq!(shown_by("True. Shown by `cargo test -p x a_b`,\n`c`.\n\n`d`"), ["a_b", "c"]);
    let named = shown_by(&page);
    assert!(named.len() > 30, "{named:?}");
    let made_up: Vec<_> =
        named.iter().filter(|name| !known.iter().any(|known| known.contains(**name))).collect();
    assert!(made_up.is_empty(), "docs/client-guide.md names {made_up:?}: no such thing");
}
