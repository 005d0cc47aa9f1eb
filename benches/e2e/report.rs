//! The tables.

use std::io::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use crate::sections::{Earlier, Section};

const HEADINGS: [&str; 7] = ["", "requests/s", "÷ relay", "CPU µs/request", "p50 ms", "p99 ms", "RSS MB"];

/// One measurement of one proxy in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) rate: f64,
    /// To the relay's rate in the same round.
    pub(crate) ratio: Option<f64>,
    pub(crate) cpu_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) rss_mb: f64,
}

/// A proxy's rounds in one section.
pub(crate) struct Row {
    pub(crate) who: &'static str,
    pub(crate) rounds: Vec<Figures>,
}

/// A proxy's starts.
pub(crate) struct Cold {
    pub(crate) who: &'static str,
    pub(crate) ready_ms: Vec<f64>,
    pub(crate) idle_rss_mb: Vec<f64>,
}

/// Prints a section: measured rows, the goal, and what was measured earlier on another such machine.
pub(crate) fn section(section: &Section, rows: &[Row]) {
    say(&format!("\n{} [{}]", section.title, section.key));
    let mut table = grid(&HEADINGS);
    for row in rows {
        table.add_row(measured(row));
    }
    table.add_row(published(&section.goal, "to reach"));
    for earlier in section.earlier {
        table.add_row(published(earlier, "earlier"));
    }
    say(&table.to_string());
}

/// Prints start times and idle memory.
pub(crate) fn cold(starts: &[Cold]) {
    say("\nstart to first proxied answer, and memory after it");
    let mut table = grid(&["", "ready ms", "idle RSS MB", "starts"]);
    for cold in starts {
        let ready = show(median(cold.ready_ms.clone()));
        let idle = show(median(cold.idle_rss_mb.clone()));
        table.add_row([cold.who.to_owned(), ready, idle, cold.ready_ms.len().to_string()]);
    }
    say(&table.to_string());
}

/// A line for people on standard output.
pub(crate) fn say(line: &str) {
    // Whoever closed standard output wants no table.
    let _closed = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line for people on standard error.
pub(crate) fn complain(line: &str) {
    let _closed = writeln!(std::io::stderr().lock(), "e2e: {line}");
}

/// A table of figures, the first column in words.
pub(crate) fn grid(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(headings);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn measured(row: &Row) -> Vec<String> {
    let over = |figure: fn(&Figures) -> f64| show(median(row.rounds.iter().map(figure).collect()));
    let ratio = median(row.rounds.iter().filter_map(|figures| figures.ratio).collect());
    vec![
        row.who.to_owned(),
        over(|figures| figures.rate),
        if ratio.is_nan() { "–".to_owned() } else { format!("{ratio:.2}") },
        over(|figures| figures.cpu_us),
        over(|figures| figures.p50_ms),
        over(|figures| figures.p99_ms),
        over(|figures| figures.rss_mb),
    ]
}

fn published(earlier: &Earlier, label: &str) -> Vec<String> {
    let who = format!("  {} ({label})", earlier.who);
    [&who, earlier.rate, earlier.ratio, earlier.cpu, "", earlier.p99, earlier.rss].map(str::to_owned).to_vec()
}

/// The middle one; NaN of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// The value that a share of `share` (0 to 1) of the sorted ones does not exceed; NaN of nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into some 10^5 values"
)]
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Three digits that mean something.
pub(crate) fn show(value: f64) -> String {
    match value {
        nothing if nothing.is_nan() => "–".to_owned(),
        small if small < 10.0 => format!("{small:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}
