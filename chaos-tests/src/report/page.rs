//! A report as a page of its own: no script, nothing loaded, light and dark.

use super::svg::{escaped, faults, latency, seconds, throughput, unavailable};
use super::{Report, Shown};
use crate::checker::{Anomaly, Tally};
use std::fmt::Write as _;

/// Anomalies of each kind that are listed: the others are in the JSON.
const LISTED: usize = 50;

/// Lines of the history that are named of one anomaly.
const LINES: usize = 12;

const STYLE: &str = "\
:root { color-scheme: light dark; --text: #1d2330; --back: #fdfdfc; --soft: #667085;
  --line: #d9dce3; --ok: #3a7bd5; --info: #d99a1c; --fail: #c8372d; --band: #c8372d14; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ec; --back: #14171c; --soft: #98a2b3;
  --line: #333a45; --ok: #6ea8fe; --info: #e5b454; --fail: #f1776b; --band: #f1776b1f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; } h2 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); } .good { color: var(--ok); }
.bad { color: var(--fail); } b { font-weight: 600; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 11px; fill: var(--soft); } svg text.end { text-anchor: end; }
svg text.mid { text-anchor: middle; }
.mark { stroke: var(--line); stroke-width: .5; } .band { fill: var(--band); }
.ok, .p50 { fill: var(--ok); } .info, .p99 { fill: var(--info); } .fail { fill: var(--fail); }
.fault { fill: var(--soft); }
.key::before { content: '\\25A0'; margin-right: .3em; } .key { margin-right: 1em; }
.key.ok, .key.p50 { color: var(--ok); } .key.info, .key.p99 { color: var(--info); }
.key.fail { color: var(--fail); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left;
  vertical-align: top; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; } td.n { white-space: nowrap; font-variant-numeric: tabular-nums; }
details { margin: .6rem 0; } summary { cursor: pointer; }";

pub(super) fn page(report: &Report) -> String {
    let name = escaped(&report.name);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name}</title><style>{STYLE}</style></head><body>\n<h1>{name}</h1>\n"
    );
    out += &summary(report);
    let key = |class, what| format!("<span class=\"key {class}\">{what}</span>");
    let outcomes = key("ok", "ok") + &key("info", "in doubt") + &key("fail", "refused");
    let percentiles = key("p50", "half within") + &key("p99", "99 % within");
    for (title, legend, chart) in [
        ("Faults", "", faults(report)),
        ("Sends per second", &outcomes[..], throughput(report)),
        ("Latency of acknowledged sends", &percentiles[..], latency(report)),
        ("Keys that took no write", "", unavailable(report)),
    ] {
        write!(out, "<h2>{title}</h2>\n<p>{legend}</p>\n{chart}\n").expect("a string");
    }
    out += &anomalies(report);
    out += &table(
        &format!("{} faults", report.faults.len()),
        &["from", "to", "fault", ""],
        report.faults.iter().map(fault),
    );
    out += &table(
        &format!("{} times without writes", report.verdict.unavailable.len()),
        &["what"],
        report.verdict.unavailable.iter().map(|window| vec![window.to_string()]),
    );
    let process = |(process, tally): (&String, &Tally)| vec![process.clone(), tally.to_string()];
    out += &table(
        &format!("{} processes", report.verdict.processes.len()),
        &["process", "operations"],
        report.verdict.processes.iter().map(process),
    );
    out + "</body></html>\n"
}

fn summary(report: &Report) -> String {
    let verdict = &report.verdict;
    let (class, said) = match verdict.good {
        true => ("good", "no anomaly".to_owned()),
        false => ("bad", format!("{} anomalies", verdict.counts.values().sum::<u64>())),
    };
    let mut out = format!(
        "<p><b class=\"{class}\">{said}</b> in {} operations and {}</p>\n<p class=\"soft\">{}",
        verdict.operations,
        seconds(report.length),
        escaped(&verdict.total.to_string()),
    );
    if let Some(at) = report.final_at {
        write!(out, "; final reading from {}", seconds(at)).expect("a string");
    }
    if let Some(lag) = &verdict.worst_lag {
        write!(out, "; worst lag {}", escaped(&lag.to_string())).expect("a string");
    }
    for what in &verdict.not_judged {
        write!(out, "; not judged: {}", escaped(what)).expect("a string");
    }
    out + "</p>\n"
}

/// What must not be in the open, what is allowed behind a fold.
fn anomalies(report: &Report) -> String {
    let mut out = String::new();
    let all = [(false, &report.verdict.counts), (true, &report.verdict.allowed)];
    for (allowed, counts) in all {
        for (kind, count) in counts {
            let of = |anomaly: &&Anomaly| anomaly.kind == *kind && anomaly.allowed == allowed;
            let rows = report.verdict.anomalies.iter().filter(of).take(LISTED).map(row);
            let title = format!("{kind}: {count}{}", if allowed { ", allowed" } else { "" });
            let table = table(&title, &["what", "lines of the history"], rows);
            out += &if allowed { table } else { table.replacen("<details", "<details open", 1) };
        }
    }
    if out.is_empty() { out } else { format!("<h2>Anomalies</h2>\n{out}") }
}

fn row(anomaly: &Anomaly) -> Vec<String> {
    let lines = anomaly.lines.iter().take(LINES).map(u64::to_string);
    let more = if anomaly.lines.len() > LINES { ", …" } else { "" };
    vec![anomaly.what.clone(), lines.collect::<Vec<_>>().join(", ") + more]
}

fn fault(fault: &Shown) -> Vec<String> {
    vec![seconds(fault.from), seconds(fault.to), fault.name.clone(), fault.detail.clone()]
}

/// Rows of a table behind a fold.
const FOLDED: usize = 500;

fn table(title: &str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let title = escaped(title);
    let mut out = format!("<details><summary>{title}</summary><table><tr>");
    for head in heads {
        write!(out, "<th>{head}</th>").expect("a string");
    }
    out += "</tr>";
    for row in rows.take(FOLDED) {
        out += "<tr>";
        for cell in row {
            write!(out, "<td>{}</td>", escaped(&cell)).expect("a string");
        }
        out += "</tr>\n";
    }
    out + "</table></details>\n"
}
