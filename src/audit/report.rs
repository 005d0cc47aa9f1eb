//! What a verification says.

use std::{fmt, path::PathBuf};

use serde::Serialize;

/// What verification found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How many files were read.
    pub files: usize,
    /// How many lines were read.
    pub lines: u64,
    /// The lowest and highest `seq` seen.
    pub seqs: Option<(u64, u64)>,
    /// What is wrong, in the order of the files.
    pub faults: Vec<Fault>,
    /// What is not wrong but should be known: where the log begins, what was recovered after a crash.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_intact(&self) -> bool {
        self.faults.is_empty()
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// The line in it, counted from 1; the line after the last where lines are missing at the end.
    pub line: u64,
    /// What is wrong there.
    #[serde(flatten)]
    pub what: What,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum What {
    /// The line's own hash does not fit it.
    #[error("this line was changed, or is no audit event")]
    Changed,
    /// No newline at the end.
    #[error("this line is unfinished")]
    Unfinished,
    /// Lines are not where they belong.
    #[error("before this line, {} missing", between(*.from, *.to))]
    Missing {
        /// The first missing one.
        from: u64,
        /// The last missing one.
        to: u64,
    },
    /// The file does not begin with its anchor.
    #[error("the file begins with seq {seq} instead of an anchor: earlier lines were removed")]
    NoAnchor {
        /// What it begins with.
        seq: u64,
    },
    /// The line belongs further up.
    #[error("seq {seq} stands here, after seq {after}")]
    Moved {
        /// The line's number.
        seq: u64,
        /// The highest number above it.
        after: u64,
    },
    /// The line stands there twice.
    #[error("seq {seq} stands here again")]
    Repeated {
        /// The line's number.
        seq: u64,
    },
    /// Both lines fit their own hash, but not each other.
    #[error("seq {seq} does not continue the line before it: one of the two was replaced")]
    Replaced {
        /// The line's number.
        seq: u64,
    },
    /// Neither the file that is written is there, nor `audit.head`; no crash leaves rotated files alone.
    #[error("there is no such file, and no audit.head, but rotated files: the end was removed")]
    Gone,
    /// `audit.head` knows a later line.
    #[error("the log ends here, but audit.head says it went on to seq {head}: the end was cut off")]
    CutOff {
        /// The number that `audit.head` names.
        head: u64,
    },
    /// The line itself says that others are gone or wrong: so it was found when the log was opened there, and no crash
    /// explains it.
    #[error("{event}: {detail}")]
    Told {
        /// `audit.missing` or `audit.damaged`.
        event: String,
        /// What was found.
        detail: String,
    },
    /// `audit.head` knows another hash for this line.
    #[error("seq {seq} has another hash than audit.head recorded: the log was rewritten")]
    Rewritten {
        /// The line's number.
        seq: u64,
    },
}

fn between(from: u64, to: u64) -> String {
    if from == to { format!("seq {from} is") } else { format!("seq {from} to {to} are") }
}

#[cfg(test)]
mod tests {
    use super::What;

    #[test]
    fn one_missing_line_is_told_as_one() {
        let missing = |from, to| What::Missing { from, to }.to_string();
        assert_eq!(missing(10, 10), "before this line, seq 10 is missing");
        assert_eq!(missing(10, 12), "before this line, seq 10 to 12 are missing");
    }
}
