//! A few colours for a terminal, none for a pipe.

use std::{
    env,
    io::{self, IsTerminal as _},
};

/// The demo's width in columns.
pub(super) const WIDTH: usize = 88;

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// Colours where standard output is a terminal that has some, unless `NO_COLOR` (<https://no-color.org>) is set.
    pub(super) fn for_stdout() -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self(io::stdout().is_terminal() && !refused && !dumb)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn quiet(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn refused(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// ECMA-48 §8.3.117, select graphic rendition.
    fn with(self, codes: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{codes}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The spaces that put the text's end at the right edge, after as many columns as are used.
pub(super) fn gap(used: usize, text: &str) -> String {
    " ".repeat(WIDTH.saturating_sub(used + text.chars().count()).max(2))
}

/// Rows with every column as wide as its widest cell. No trailing spaces.
pub(super) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|at| width(at).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["…long".to_owned(), "c".to_owned()]];
        assert_eq!(columns(&rows), ["a      b", "…long  c"]);
    }

    #[test]
    fn nothing_is_coloured_without_colours() {
        assert_eq!(Paint(false).bad("x"), "x");
        assert_eq!(Paint(true).bad("x"), "\x1b[1;31mx\x1b[0m");
    }
}
