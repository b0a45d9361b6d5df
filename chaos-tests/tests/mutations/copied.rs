//! A copy of the sources to change and to build.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// For building and testing one change. It may make a test run for ever.
const PATIENCE: Duration = Duration::from_mins(15);

/// What the build needs, beside the folders of the crates.
const FILES: [&str; 2] = ["Cargo.toml", "Cargo.lock"];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sources of the workspace in a place of their own. It stays, so that the next run
/// builds less.
pub(crate) struct Copied {
    pub(crate) dir: PathBuf,
}

impl Copied {
    /// With these files changed.
    pub(crate) fn new(name: &str, changed: &BTreeMap<String, String>) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&dir).expect("a folder");
        let copied = Self { dir };
        let mut files: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
        for folder in members() {
            collect(&root(), Path::new(&folder), &mut files);
        }
        for file in files {
            let from = root().join(&file);
            let to = copied.dir.join(&file);
            fs::create_dir_all(to.parent().expect("a file")).expect("a folder");
            let bytes = match changed.get(&*file.to_string_lossy()) {
                Some(text) => text.clone().into_bytes(),
                None => fs::read(&from).expect("a source"),
            };
            // What is the same keeps its time, so that nothing is built in vain.
            if fs::read(&to).ok().as_ref() != Some(&bytes) {
                fs::write(&to, bytes).expect("a copy");
            }
        }
        copied
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.join(file), text).expect("a copy");
    }

    /// Run in the copy, with a target folder of its own: cargo takes equal crates of two
    /// places for the same.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").expect("run by cargo"));
        command
            .current_dir(&self.dir)
            .env("CARGO_TARGET_DIR", self.dir.join("target"))
            .env("RUST_BACKTRACE", "0");
        command
    }
}

/// The folders of the workspace's crates.
fn members() -> Vec<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let list = manifest.lines().find_map(|line| line.strip_prefix("members = "));
    serde_json::from_str(list.expect("members, in one line")).expect("a list of folders")
}

fn collect(root: &Path, folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = folder.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            collect(root, &path, into);
        } else {
            into.push(path);
        }
    }
}

/// # Panics
/// If it takes longer than [`PATIENCE`]; it is killed then, with all it began.
pub(crate) fn run(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().expect("cargo starts");
    let group = format!("-{}", child.id());
    let (done, ends) = mpsc::channel();
    std::thread::spawn(move || drop(done.send(child.wait_with_output())));
    match ends.recv_timeout(PATIENCE) {
        Ok(output) => output.expect("cargo ran"),
        Err(_) => {
            let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
            panic!("no end after {PATIENCE:?}, killed: {killed:?}");
        }
    }
}

/// What a command says, on both channels.
pub(crate) fn said(command: Command) -> String {
    let Output { stdout, stderr, .. } = run(command);
    format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
}
