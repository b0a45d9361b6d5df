//! The figures of one log, each beside a floor measured in the same run.
//!
//! `cargo bench -p ottla-commitlog --bench log -- [--json] [--rounds N] [--dir DIR]
//! [--only NAME]`. The log and its floor take turns, so that what else the machine
//! does hits both; the median of the rounds counts. Method and results:
//! `docs/performance.md`.
//!
//! Not its job: anything between nodes.

mod append;
mod compact;
mod open;
mod read;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

// As in the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MIB: usize = 1024 * 1024;

struct Options {
    json: bool,
    rounds: usize,
    dir: PathBuf,
    only: Option<String>,
}

/// A figure and its floor.
struct Figure {
    name: &'static str,
    unit: &'static str,
    ours: Vec<f64>,
    floor: Vec<f64>,
}

impl Options {
    /// `None` where it is not `cargo bench` that runs this.
    fn from_args() -> Option<Self> {
        let mut options = Self { json: false, rounds: 7, dir: std::env::temp_dir(), only: None };
        let mut bench = false;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().expect("an option's value");
            match arg.as_str() {
                "--bench" => bench = true,
                "--json" => options.json = true,
                "--rounds" => options.rounds = value().parse().expect("a number"),
                "--dir" => options.dir = value().into(),
                "--only" => options.only = Some(value()),
                other => panic!("unknown option {other}"),
            }
        }
        bench.then_some(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// Takes turns, one unmeasured each first.
    fn compare(
        &self,
        name: &'static str,
        unit: &'static str,
        mut ours: impl FnMut() -> f64,
        mut floor: impl FnMut() -> f64,
    ) {
        if !self.wants(name) {
            return;
        }
        ours();
        floor();
        let rounds: Vec<(f64, f64)> = (0..self.rounds).map(|_| (ours(), floor())).collect();
        let (ours, floor) = rounds.into_iter().unzip();
        self.print(&Figure { name, unit, ours, floor });
    }

    #[expect(clippy::print_stdout, reason = "its purpose")]
    fn print(&self, figure: &Figure) {
        let Figure { name, unit, ours, floor } = figure;
        let ratios: Vec<f64> = ours.iter().zip(floor).map(|(o, f)| o / f).collect();
        let [ours, floor, ratio] = [ours, floor, &ratios].map(|values| Spread::of(values));
        if self.json {
            let of = |s: &Spread| serde_json::json!({"median": s.1, "min": s.0, "max": s.2});
            let line = serde_json::json!({
                "figure": name, "unit": unit,
                "ours": of(&ours), "floor": of(&floor), "ratio": of(&ratio),
            });
            println!("{line}");
        } else {
            let show = |s: &Spread| format!("{:>9.0} ({:.0}..{:.0})", s.1, s.0, s.2);
            println!(
                "{name:<28} {unit:<6} ours {}  floor {}  ratio {:.2} ({:.2}..{:.2})",
                show(&ours),
                show(&floor),
                ratio.1,
                ratio.0,
                ratio.2
            );
        }
    }
}

/// Smallest, median, largest.
struct Spread(f64, f64, f64);

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self(sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn mib_per_second(bytes: usize, taken: Duration) -> f64 {
    bytes as f64 / MIB as f64 / taken.as_secs_f64()
}

/// A directory of its own, removed afterwards.
fn scratch(dir: &Path) -> tempfile::TempDir {
    tempfile::tempdir_in(dir).expect("a directory")
}

fn main() {
    let Some(options) = Options::from_args() else {
        return;
    };
    append::run(&options);
    read::run(&options);
    open::run(&options);
    compact::run(&options);
}
