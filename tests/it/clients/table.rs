//! README's table.

use std::fmt::Write as _;

use keybearer::clients::java;

use super::{
    End, Outcome,
    rows::{self, Ca, Row, Way},
};

/// The table as Markdown. A client that was skipped keeps its line of the table shown so far.
pub(crate) fn table(outcomes: &[&Outcome], shown: &str) -> String {
    let mut text = String::from(
        "| client | what it does | `Agent-Identity` | proxy URL's user name | no proxy variable | CA by |\n|---|---|---|---|---|---|\n",
    );
    for row in rows::all() {
        let of_row: Vec<&Outcome> =
            outcomes.iter().copied().filter(|one| std::ptr::eq(one.row, row)).collect();
        let kept = shown.lines().find(|line| line.starts_with(&format!("| {} |", row.client)));
        let skipped = of_row.iter().any(|one| matches!(one.end, End::Skipped(_)));
        let line = kept.filter(|_| skipped).map_or_else(|| line(row, &of_row), str::to_owned);
        let _ = writeln!(text, "{line}");
    }
    text
}

fn line(row: &Row, outcomes: &[&Outcome]) -> String {
    let cell = |way| outcomes.iter().find(|one| one.way == way).map(|one| cell(one));
    let header = cell(Way::Header).or_else(|| cell(Way::DeadProxy)).unwrap_or("–");
    let user = cell(Way::ProxyUser).unwrap_or("–");
    let none = cell(Way::Transparent).unwrap_or("–");
    let ca = match row.ca {
        Ca::Unneeded => "none needed".to_owned(),
        Ca::Java => format!("`{}`", java::VARIABLE),
        Ca::Variable(name) | Ca::Option(name) => format!("`{name}`"),
    };
    format!("| {} | {} | {header} | {user} | {none} | {ca} |", row.client, row.does)
}

fn cell(outcome: &Outcome) -> &'static str {
    match &outcome.end {
        End::Passed(detail) if outcome.way == Way::DeadProxy && detail["proxy"] == "ignored" => {
            "no: ignores proxy variables"
        }
        End::Passed(_) => "yes",
        End::Failed(_) => "fails",
        End::Skipped(_) => "skipped",
    }
}
