//! Charts of a report, over one axis of time.

use super::{Point, Report, Shown};
use crate::checker::Unavailable;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Of a chart, in the units of its drawing.
const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 120.0;
const HEIGHT: f64 = 120.0;
const ROW: f64 = 18.0;

/// Rows of faults and of keys: what does not fit is in the JSON.
const ROWS: usize = 16;

/// Marks on the axis of time.
const MARKS: u32 = 10;

/// Text in a page.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A time, for people.
pub(super) fn seconds(nanos: u64) -> String {
    format!("{:.2} s", Duration::from_nanos(nanos).as_secs_f64())
}

/// When a point begins, and ends.
fn span(report: &Report, point: usize) -> (u64, u64) {
    let begins = |point: usize| report.point.saturating_mul(point as u64).min(report.length);
    (begins(point), begins(point + 1))
}

fn x(report: &Report, at: u64) -> f64 {
    LEFT + (WIDTH - LEFT) * at as f64 / report.length.max(1) as f64
}

fn bar(class: &str, from: f64, to: f64, (y, height): (f64, f64), title: &str) -> String {
    let width = (to - from).max(1.0);
    let title = escaped(title);
    format!(
        r#"<rect class="{class}" x="{from:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"><title>{title}</title></rect>"#
    )
}

fn text(class: &str, x: f64, y: f64, text: &str) -> String {
    format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, escaped(text))
}

/// A drawing, with the times of faults behind it and marks of time below.
fn drawing(report: &Report, label: &str, height: f64, inside: &str) -> String {
    let label = escaped(label);
    let whole = height + 20.0;
    let mut out =
        format!(r#"<svg viewBox="0 0 {WIDTH} {whole:.0}" role="img" aria-label="{label}">"#);
    for fault in &report.faults {
        let (from, to) = (x(report, fault.from), x(report, fault.to));
        out += &bar("band", from, to, (0.0, height), &format!("{} {}", fault.name, fault.detail));
    }
    out += inside;
    for mark in 0..=MARKS {
        let at = report.length / u64::from(MARKS) * u64::from(mark);
        let x = x(report, at);
        let anchor = if mark == MARKS { "end" } else { "mid" };
        write!(out, r#"<line class="mark" x1="{x:.1}" x2="{x:.1}" y1="0" y2="{height:.1}"/>"#)
            .expect("a string");
        out += &text(anchor, x, height + 14.0, &seconds(at));
    }
    out + "</svg>"
}

/// What was done to the nodes, a row for each kind.
pub(super) fn faults(report: &Report) -> String {
    let mut kinds: BTreeMap<&str, Vec<&Shown>> = BTreeMap::new();
    for fault in &report.faults {
        kinds.entry(&fault.name).or_default().push(fault);
    }
    let mut out = String::new();
    for (row, (kind, faults)) in kinds.iter().take(ROWS).enumerate() {
        let y = row as f64 * ROW;
        out += &text("end", LEFT - 6.0, y + ROW - 5.0, kind);
        for fault in faults {
            let times = format!("{} to {}", seconds(fault.from), seconds(fault.to));
            let title = format!("{kind} {}, {times}", fault.detail);
            let (from, to) = (x(report, fault.from), x(report, fault.to));
            out += &bar("fault", from, to, (y + 3.0, ROW - 6.0), &title);
        }
    }
    drawing(report, "faults", kinds.len().clamp(1, ROWS) as f64 * ROW, &out)
}

/// Sends per second by outcome, one upon the other.
pub(super) fn throughput(report: &Report) -> String {
    let total = |point: &Point| point.ok + point.fail + point.info;
    let most = report.points.iter().map(total).max().unwrap_or(0).max(1);
    let per_second = |count: u64| count as f64 / Duration::from_nanos(report.point).as_secs_f64();
    let mut out = String::new();
    for (at, point) in report.points.iter().enumerate() {
        let (from, to) = span(report, at);
        let title = format!(
            "{}: {} ok, {} in doubt, {} refused; {} records read",
            seconds(from),
            point.ok,
            point.info,
            point.fail,
            point.read
        );
        let mut y = HEIGHT;
        for (class, count) in [("ok", point.ok), ("info", point.info), ("fail", point.fail)] {
            let height = HEIGHT * count as f64 / most as f64;
            y -= height;
            if count > 0 {
                out += &bar(class, x(report, from), x(report, to), (y, height), &title);
            }
        }
    }
    out += &text("end", LEFT - 6.0, 12.0, &format!("{:.0} /s", per_second(most)));
    out += &text("end", LEFT - 6.0, HEIGHT, "0 /s");
    drawing(report, "sends per second", HEIGHT, &out)
}

/// Latency of what was acknowledged; each mark is ten times the one below.
pub(super) fn latency(report: &Report) -> String {
    let all = || report.points.iter().flat_map(|point| [point.p50, point.p99]).flatten();
    let decade = |nanos: u64| (nanos.max(1) as f64).log10();
    let lowest = all().min().map_or(5.0, decade).floor();
    let highest = all().max().map_or(9.0, decade).ceil().max(lowest + 1.0);
    let y = |nanos| HEIGHT * (highest - decade(nanos)) / (highest - lowest);
    let mut out = String::new();
    for power in lowest as i32..=highest as i32 {
        let nanos = 10_u64.saturating_pow(power.unsigned_abs());
        let label = format!("{:?}", Duration::from_nanos(nanos));
        let at = y(nanos);
        write!(out, r#"<line class="mark" x1="{LEFT}" x2="{WIDTH}" y1="{at:.1}" y2="{at:.1}"/>"#)
            .expect("a string");
        out += &text("end", LEFT - 6.0, (at + 4.0).clamp(10.0, HEIGHT), &label);
    }
    for (at, point) in report.points.iter().enumerate() {
        let (from, to) = span(report, at);
        for (class, name, nanos) in [("p99", "99 %", point.p99), ("p50", "50 %", point.p50)] {
            let Some(nanos) = nanos else { continue };
            let title =
                format!("{}: {name} within {:.1?}", seconds(from), Duration::from_nanos(nanos));
            out += &bar(class, x(report, from), x(report, to), (y(nanos) - 1.5, 3.0), &title);
        }
    }
    drawing(report, "latency of acknowledged sends", HEIGHT, &out)
}

/// When which key took no write.
pub(super) fn unavailable(report: &Report) -> String {
    let mut keys: BTreeMap<&str, Vec<&Unavailable>> = BTreeMap::new();
    for window in &report.verdict.unavailable {
        keys.entry(&window.key).or_default().push(window);
    }
    let mut out = String::new();
    for (row, (key, windows)) in keys.iter().take(ROWS).enumerate() {
        let y = row as f64 * ROW;
        out += &text("end", LEFT - 6.0, y + ROW - 5.0, key);
        for window in windows {
            let (from, to) = (x(report, window.from), x(report, window.to));
            out += &bar("fail", from, to, (y + 4.0, ROW - 8.0), &window.to_string());
        }
    }
    drawing(report, "times without writes", keys.len().clamp(1, ROWS) as f64 * ROW, &out)
}
