//! What a command prints: tables for people, JSON for programs.

use std::io::{self, ErrorKind, Stdout, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::Failure;

/// Below this width, wrapped columns are harder to read than wrapped lines.
const NARROWEST: u16 = 60;

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tables and lines, for people
    #[default]
    Table,
    /// JSON, for programs
    Json,
}

/// Standard output. A reader that has gone away ends the output and is no failure.
pub(super) struct Out {
    format: Format,
    to: Stdout,
    is_closed: bool,
}

impl Out {
    pub(super) fn new(format: Format) -> Self {
        Self { format, to: io::stdout(), is_closed: false }
    }

    pub(super) const fn is_json(&self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// Whether the reader has gone away: who follows something stops then.
    pub(super) const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Prints a line.
    pub(super) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.bytes(format!("{}\n", text.as_ref()).as_bytes())
    }

    /// Prints text as it is.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Prints what may be no text.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_closed {
            return Ok(());
        }
        let written = self.to.lock().write_all(bytes);
        self.closing(written)
    }

    /// Prints one JSON value.
    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::new)?;
        self.line(text)
    }

    /// Prints one JSON value on one line, for programs that read line by line.
    pub(super) fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(Failure::new)?;
        self.line(text)
    }

    /// Prints rows below a header.
    pub(super) fn table<const N: usize>(
        &mut self,
        header: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> Result<(), Failure> {
        let mut table = plain();
        table.set_header(header);
        self.print(table, rows)
    }

    /// Prints names and what belongs to them. What is empty is left out.
    pub(super) fn pairs<'a>(
        &mut self,
        pairs: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<(), Failure> {
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        self.print(plain(), pairs.map(|(name, value)| [name.to_owned(), value]))
    }

    /// Writes out what is buffered.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let flushed = self.to.flush();
        self.closing(flushed)
    }

    fn print<const N: usize>(
        &mut self,
        mut table: Table,
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> Result<(), Failure> {
        for row in rows {
            table.add_row(row);
        }
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 2));
        });
        self.line(table.trim_fmt())
    }

    fn closing(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::new(format!("cannot write to standard output: {error}"))),
            Ok(()) => Ok(()),
        }
    }
}

/// No borders, no colours: columns, which a terminal may wrap and a pipe may not. A terminal that does not know
/// its width says 0.
fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if table.width().is_some_and(|width| width >= NARROWEST) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// `1 role`, `2 roles`.
pub(super) fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Says something to the person, not to the program that reads the output.
pub(super) fn say(text: impl AsRef<str>) {
    // Nobody is left to tell where this fails.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// `-` where there is nothing.
pub(super) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// Joined by `, `.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
