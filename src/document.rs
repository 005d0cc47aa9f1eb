//! Documents that people write: where in one of them something is wrong, and how to say so.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter as _};

/// A longer line is not shown, in bytes: nobody would find the column in it.
const MAX_SNIPPET: usize = 200;

/// A place in the `spec` of one document, such as `spec.grants[0].scopes[1]`.
///
/// Those who compile specs know neither files nor lines; whoever read the document turns a place into those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which of the documents that were compiled together.
    pub document: usize,
    /// The way from the document's root.
    pub steps: Vec<Step>,
}

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a mapping.
    Key(Arc<str>),
    /// Into a list, from 0.
    Index(usize),
}

impl Place {
    /// The `spec` of a document.
    #[must_use]
    pub fn spec(document: usize) -> Self {
        Self { document, steps: vec![Step::Key("spec".into())] }
    }

    /// The value under `key`.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.into()))
    }

    /// The element at `index`.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { document: self.document, steps }
    }

    /// Something is wrong here.
    #[must_use]
    pub fn problem(&self, says: impl Into<String>) -> Problem {
        Problem { at: self.clone(), says: says.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Key(key) if index == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(at) => write!(f, "[{at}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {says}")]
pub struct Problem {
    /// The place.
    pub at: Place,
    /// What is wrong and what to write instead.
    pub says: String,
}

/// A key that the format has and this version does not act upon. It takes any value (also null) and remembers
/// that it was there, so that the document can be refused: a rule that is read over is a hole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsupported(bool);

impl Unsupported {
    /// Adds `not supported yet: <key> (<instead>)` where the key was written.
    pub fn refuse(self, at: &Place, key: &str, instead: &str, problems: &mut Vec<Problem>) {
        if self.0 {
            problems.push(at.key(key).problem(format!("not supported yet: {key} ({instead})")));
        }
    }
}

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// Reads a list that may be left out but not be written empty by mistake: `key:` with nothing after it is
/// `Some` of an empty list, where `Option` alone would make it "left out".
///
/// # Errors
/// Whatever is wrong with the list.
pub fn written_list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Some(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default()))
}

/// Where in a text something is wrong for the parser, as line and column from 1, and what, on one line and with what was
/// probably meant.
pub(crate) fn told(error: &serde_saphyr::Error) -> ((usize, usize), String) {
    let says = in_plain_words(&DefaultMessageFormatter.format_message(error.without_snippet()));
    (error.location().map_or((1, 1), position), with_hint(&says.replace(char::is_control, " ")))
}

/// What the parser says to those who program it, said to those who write documents.
fn in_plain_words(says: &str) -> String {
    if let Some(twice) = says.strip_suffix(", set DuplicateKeyPolicy in Options if acceptable") {
        return format!("{twice}: write it once");
    }
    if says.starts_with("budget breached")
        || says.starts_with("alias replay")
        || says.starts_with("alias expansion")
    {
        return "the document is too large, nested too deep, or repeats itself too often (*name): write it without aliases, or as several documents".to_owned();
    }
    match says {
        "cannot deserialize null into string; use Option<String>" => {
            "a text is missing here: write one, or leave the key out".to_owned()
        }
        "YAML merge keys are not allowed by configured policy" => {
            "merge keys (<<) are not supported: write the keys out".to_owned()
        }
        _ => says.to_owned(),
    }
}

/// Line and column of a place, from 1.
pub(crate) fn position(location: serde_saphyr::Location) -> (usize, usize) {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    (number(location.line()), number(location.column()))
}

/// Adds what to write: to ``unknown field `x`, expected one of a, b`` the word that was probably meant.
pub(crate) fn with_hint(says: &str) -> String {
    let hint = match says {
        "invalid socket address syntax" => {
            "; write an IP address and a port, as in 127.0.0.1:7080".to_owned()
        }
        "invalid IP address syntax" => {
            "; write an address as 10.1.0.7, a network as 10.1.0.0/16, and a network of one address as 10.1.0.7/32".to_owned()
        }
        "expected mapping start" => ": keys and values, as in {key: value}".to_owned(),
        "expected sequence start" => ": a list, as in [one, two]".to_owned(),
        _ => meant(says),
    };
    format!("{says}{hint}")
}

fn meant(says: &str) -> String {
    let unknown = says.strip_prefix("unknown field `").or_else(|| says.strip_prefix("unknown variant `"));
    unknown.and_then(|rest| rest.split_once("`, expected ")).map_or_else(String::new, |(word, expected)| {
        let words = expected.trim_start_matches("one of ").split(", ");
        did_you_mean(word, words.map(|word| word.trim_matches('`')))
    })
}

/// One thing that is wrong with a file that people write.
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
    snippet: Option<String>,
}

impl Finding {
    pub(crate) fn of_file(file: &Path, says: String) -> Self {
        Self { file: file.to_owned(), line: None, column: None, says, snippet: None }
    }

    /// `position` is line and column from 1, `text` the whole file.
    pub(crate) fn at(file: &Path, text: &str, position: (usize, usize), says: String) -> Self {
        let (line, column) = position;
        let written = text.lines().nth(line.saturating_sub(1)).filter(|written| written.len() <= MAX_SNIPPET);
        let snippet = written.map(|written| written.replace(char::is_control, " "));
        Self { file: file.to_owned(), line: Some(line), column: Some(column), says, snippet }
    }
}

impl std::error::Error for Finding {}

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
        let margin = " ".repeat(line.to_string().len());
        write!(f, "\n{margin} |\n{line} | {snippet}\n{margin} | {:>column$}", '^')
    }
}

/// `; did you mean x?` for the candidate that is a slip of the pen away, or nothing.
#[must_use]
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let tolerated = word.len().max(3) / 3;
    candidates
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= tolerated)
        .min()
        .map_or_else(String::new, |(_, candidate)| format!("; did you mean `{candidate}`?"))
}

/// Insertions, removals, replacements and swaps of neighbours that turn one word into the other (optimal
/// string alignment).
fn edits(from: &str, to: &str) -> usize {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let mut least =
                (above[column] + usize::from(a != b)).min(above[column + 1] + 1).min(line[column] + 1);
            if row > 0 && column > 0 && from[row - 1] == *b && *a == to[column - 1] {
                least = least.min(before[column - 1] + 1);
            }
            line.push(least);
        }
        before = std::mem::replace(&mut above, line);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_like_the_document() {
        let place = Place::spec(3).key("grants").index(0).key("scopes").index(1);
        assert_eq!(place.problem("no").to_string(), "spec.grants[0].scopes[1]: no");
    }

    #[test]
    fn slips_of_the_pen_are_guessed_and_other_words_are_not() {
        let known = ["opportunities:read", "opportunities:write", "accounts:read"];
        assert_eq!(did_you_mean("oportunities:write", known), "; did you mean `opportunities:write`?");
        assert_eq!(did_you_mean("issues:read", ["chat:write"]), "");
        assert_eq!(did_you_mean("gihtub", ["github", "slack"]), "; did you mean `github`?");
    }

    #[test]
    fn a_key_without_a_value_was_still_written() {
        #[derive(Deserialize)]
        struct Spec {
            #[serde(default)]
            when: Unsupported,
            #[serde(default, deserialize_with = "written_list")]
            operations: Option<Vec<String>>,
        }
        for (text, was_written) in [("when:\noperations:", true), ("{}", false)] {
            let spec: Spec = serde_saphyr::from_str(text).unwrap();
            assert_eq!(spec.when, Unsupported(was_written), "{text}");
            assert_eq!(spec.operations.is_some(), was_written, "{text}");
        }
    }
}
