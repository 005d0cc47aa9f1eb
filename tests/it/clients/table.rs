//! README's table.

use std::fmt::Write as _;

use super::{
    End, Outcome,
    rows::{ROWS, Row, Way},
};

/// The table as Markdown. A client that was skipped keeps its line of the table shown so far.
pub(crate) fn table(outcomes: &[Outcome], shown: &str) -> String {
    let mut text = String::from(
        "| client | what it does | `Agent-Identity` | proxy URL's user name | CA by |\n|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let of_row: Vec<&Outcome> = outcomes.iter().filter(|one| std::ptr::eq(one.row, row)).collect();
        let kept = shown.lines().find(|line| line.starts_with(&format!("| {} |", row.client)));
        let skipped = of_row.iter().any(|one| matches!(one.end, End::Skipped(_)));
        let line = kept.filter(|_| skipped).map_or_else(|| line(row, &of_row), str::to_owned);
        let _ = writeln!(text, "{line}");
    }
    text
}

fn line(row: &Row, outcomes: &[&Outcome]) -> String {
    let cell = |way| outcomes.iter().find(|one| one.way == way).map(|one| cell(&one.end));
    let header = cell(Way::Header).or_else(|| cell(Way::DeadProxy)).unwrap_or("–");
    let user = cell(Way::ProxyUser).unwrap_or("–");
    let ca = match row.ca {
        "" => "none needed".to_owned(),
        "KB_CA" => "`--ca-certificate`".to_owned(),
        variable => format!("`{variable}`"),
    };
    format!("| {} | {} | {header} | {user} | {ca} |", row.client, row.does)
}

fn cell(end: &End) -> &'static str {
    match end {
        End::Passed(detail) if detail["proxy"] == "ignored" => "no: ignores proxy variables",
        End::Passed(_) => "yes",
        End::Failed(_) => "fails",
        End::Skipped(_) => "skipped",
    }
}
