//! Everything that is wrong with a policy, for the person who wrote it.

use std::fmt;

use serde::Serialize;

use crate::document::Finding;

/// A policy that cannot be used. `Display` shows every finding, with file, line, column and the line itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadError {
    pub(super) findings: Vec<Finding>,
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
