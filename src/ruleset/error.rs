//! Everything that is wrong with a policy, for the person who wrote it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::document::{excerpt, write_excerpt};

/// A policy that cannot be used. `Display` shows every finding, with file, line, column and the line itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadError {
    pub(super) findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, where one is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column, from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong and what to write instead.
    pub says: String,
    /// The line as it stands in the file.
    #[serde(skip)]
    pub(super) snippet: Option<String>,
}

impl LoadError {
    /// All that is wrong, at least one finding, file by file.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How much is wrong, and the first of it, on one line.
    pub(super) fn in_short(&self) -> String {
        let first = self.findings.first().map_or_else(String::new, |finding| match finding.line {
            Some(line) => format!("{}:{line}: {}", finding.file.display(), finding.says),
            None => format!("{}: {}", finding.file.display(), finding.says),
        });
        match self.findings.len() {
            1 => format!("1 problem; {first}"),
            problems => format!("{problems} problems; {first}"),
        }
    }
}

impl Finding {
    pub(super) fn of_file(file: &Path, says: String) -> Self {
        Self { file: file.to_owned(), line: None, column: None, says, snippet: None }
    }

    /// `position` is line and column from 1, `text` the whole file.
    pub(super) fn at(file: &str, text: &str, position: (usize, usize), says: String) -> Self {
        let (line, column) = position;
        let snippet = excerpt(text, line);
        Self { file: file.into(), line: Some(line), column: Some(column), says, snippet }
    }
}

impl std::error::Error for LoadError {}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            finding.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    /// ```text
    /// policies/roles/researcher.yaml:9:7: unknown field `scope`, ...
    ///   |
    /// 9 |       scope: [accounts:read]
    ///   |       ^
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        let (Some(line), Some(column)) = (self.line, self.column) else {
            return write!(f, ": {}", self.says);
        };
        write!(f, ":{line}:{column}: {}", self.says)?;
        let Some(snippet) = &self.snippet else { return Ok(()) };
        write_excerpt(f, (line, column), snippet)
    }
}
