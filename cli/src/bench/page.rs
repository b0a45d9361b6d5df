//! What a load looked like, as a page of its own: no script, nothing loaded.
//!
//! Two charts over time, and the figures. A crate for plots would bring fonts and
//! backends; the charts of `ottla-chaos` are of another axis, of faults and outcomes.

use super::load::ledger::Point;
use serde_json::Value;
use std::fmt::Write as _;

/// Of a chart, in the units of its drawing.
const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 90.0;
const HEIGHT: f64 = 200.0;

/// Marks on each axis.
const MARKS: u32 = 5;

const STYLE: &str = "\
:root { color-scheme: light dark; --text: #1d2330; --back: #fdfdfc; --soft: #667085;
  --line: #d9dce3; --one: #3a7bd5; --two: #d99a1c; --three: #c8372d; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ec; --back: #14171c; --soft: #98a2b3;
  --line: #333a45; --one: #6ea8fe; --two: #e5b454; --three: #f1776b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 11px; fill: var(--soft); text-anchor: end; }
.mark { stroke: var(--line); stroke-width: .5; } polyline { fill: none; stroke-width: 1.5; }
.one { stroke: var(--one); color: var(--one); } .two { stroke: var(--two); color: var(--two); }
.three { stroke: var(--three); color: var(--three); } .key { margin-right: 1em; }";

/// A page to be.
pub(super) struct Page {
    title: String,
    text: String,
    json: String,
    charts: Vec<Chart>,
}

struct Chart {
    title: &'static str,
    unit: &'static str,
    lines: Vec<(&'static str, Vec<(f64, f64)>)>,
}

/// Of a load with a point for each second, and its figures for people and programs.
pub(super) fn of(title: &str, text: &str, json: &Value, points: &[Point]) -> Page {
    let line = |of: fn(&Point) -> f64| points.iter().map(|point| (point.at, of(point))).collect();
    let throughput = Chart {
        title: "Records per second",
        unit: "/s",
        lines: vec![("records", line(|point| point.records))],
    };
    let latency = Chart {
        title: "Latency of what came in each second",
        unit: "ms",
        lines: vec![
            ("half within", line(|point| point.p50)),
            ("99 % within", line(|point| point.p99)),
            ("longest", line(|point| point.max)),
        ],
    };
    let json = serde_json::to_string_pretty(json).unwrap_or_default();
    let charts = vec![throughput, latency];
    Page { title: title.to_owned(), text: text.to_owned(), json, charts }
}

impl Page {
    pub(super) fn html(&self) -> String {
        let title = escaped(&self.title);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
             <pre>{}</pre>\n",
            escaped(&self.text)
        );
        self.charts.iter().for_each(|chart| out += &chart.svg());
        let json = escaped(&self.json);
        out + &format!(
            "<details><summary>JSON</summary><pre>{json}</pre></details></body></html>\n"
        )
    }
}

impl Chart {
    fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max).max(1e-9);
        let (end, top) = (most(|point| point.0), most(|point| point.1));
        let x = |at: f64| LEFT + (WIDTH - LEFT) * at / end;
        let y = |value: f64| HEIGHT * (1.0 - value / top);
        let whole = HEIGHT + 20.0;
        let mut out = format!("<h2>{}</h2>\n<p>", self.title);
        for ((name, _), class) in self.lines.iter().zip(CLASSES) {
            write!(out, "<span class=\"key {class}\">\u{25A0} {name}</span>").expect("a string");
        }
        write!(out, r#"</p><svg viewBox="0 0 {WIDTH} {whole}" role="img">"#).expect("a string");
        for mark in 0..=MARKS {
            let part = f64::from(mark) / f64::from(MARKS);
            let (across, up) = (x(end * part), y(top * part));
            write!(
                out,
                r#"<line class="mark" x1="{LEFT}" x2="{WIDTH}" y1="{up:.1}" y2="{up:.1}"/><text x="{:.1}" y="{:.1}">{} {}</text><text x="{across:.1}" y="{:.1}">{:.1} s</text>"#,
                LEFT - 6.0,
                (up + 4.0).max(10.0),
                figure(top * part),
                self.unit,
                HEIGHT + 14.0,
                end * part
            )
            .expect("a string");
        }
        for ((_, points), class) in self.lines.iter().zip(CLASSES) {
            let places = points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)));
            let places = places.collect::<Vec<_>>().join(" ");
            write!(out, r#"<polyline class="{class}" points="{places}"/>"#).expect("a string");
        }
        out + "</svg>\n"
    }
}

const CLASSES: [&str; 3] = ["one", "two", "three"];

/// Three digits are enough for an axis.
fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_every_line_and_loads_nothing() {
        let point = |at, records, max| Point { at, records, failed: 0, p50: 1.0, p99: 2.0, max };
        let points = [point(1.0, 100.0, 4.0), point(2.0, 200.0, 8.0)];
        let page = of("a <run>", "said & done", &serde_json::json!({ "x": 1 }), &points).html();
        for shown in ["a &lt;run&gt;", "said &amp; done", "200 /s", "8.00 ms", "2.0 s"] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
        // From half of the height, at half of the time, to the top at the end.
        assert!(page.contains(r#"points="545.0,100.0 1000.0,0.0""#), "{page}");
        assert_eq!(page.matches("<polyline").count(), 4);
        for never in ["<run>", "<script", "http", "NaN", "inf"] {
            assert!(!page.contains(never), "{never} in {page}");
        }
    }

    #[test]
    fn a_run_without_a_second_has_a_page() {
        let page = of("", "", &Value::Null, &[]).html();
        assert!(page.contains("<svg") && !page.contains("NaN"), "{page}");
    }
}
