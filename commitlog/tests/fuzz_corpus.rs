//! The corpus of the fuzz targets, on the toolchain at hand. See docs/testing.md.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let inputs: Vec<Vec<u8>> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file"))
        .collect();
    assert!(inputs.len() > 5, "the corpus of {target} is there");
    inputs
}

#[test]
fn batches() {
    corpus("batch").iter().for_each(|input| bodies::batch(input));
}

#[test]
fn side_files() {
    corpus("index").iter().for_each(|input| bodies::index(input));
}
