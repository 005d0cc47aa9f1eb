//! YAML documents: taken apart, read into specs, and searched for the line of a place.

use std::{fmt, path::Path, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Options, Spanned};

use super::files::File;
use crate::document::{Finding, Place, Step, position, told};

/// One document of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'a> {
    file: &'a File,
    text: &'a str,
    /// Lines of the file before it.
    before: usize,
}

/// What every document says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "apiVersion")]
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: HeadMetadata,
}

#[derive(Debug, Deserialize)]
pub(super) struct HeadMetadata {
    pub(super) name: String,
}

/// A document read whole.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "name")]
    _name: IgnoredAny,
}

impl<'a> Document<'a> {
    /// The documents of a file, without those that hold nothing but comments.
    pub(super) fn all(file: &'a File) -> Vec<Self> {
        let mut documents = Self::parts(file);
        documents.retain(Self::has_content);
        documents
    }

    /// The documents of a file, which together are the whole file.
    ///
    /// A line that begins with `---` or `...` ends the document before it wherever it stands, also inside a block
    /// scalar or a quoted text (YAML 1.2 §9.1.4), so lines are all that need to be looked at. Each document is
    /// read by itself: one mistake does not hide those in the documents after it.
    pub(super) fn parts(file: &'a File) -> Vec<Self> {
        let mut documents = Vec::new();
        let (mut begin, mut before) = (0, 0);
        let (mut at, mut line) = (0, 0);
        for text in file.text.split_inclusive('\n') {
            let ends = is_marker(text, "...");
            let cut = if ends { at + text.len() } else { at };
            if ends || is_marker(text, "---") {
                documents.push(Self { file, text: &file.text[begin..cut], before });
                (begin, before) = (cut, line + usize::from(ends));
            }
            at += text.len();
            line += 1;
        }
        documents.push(Self { file, text: &file.text[begin..], before });
        documents
    }

    /// Whether it holds anything but comments.
    pub(super) fn has_content(&self) -> bool {
        self.text.lines().any(has_content)
    }

    /// Whether it begins with `---`.
    pub(super) fn is_begun(&self) -> bool {
        self.text.split_inclusive('\n').next().is_some_and(|line| is_marker(line, "---"))
    }

    /// Whether it ends with `...`.
    pub(super) fn is_ended(&self) -> bool {
        self.text.split_inclusive('\n').next_back().is_some_and(|line| is_marker(line, "..."))
    }

    /// Its lines, markers included.
    pub(super) const fn text(&self) -> &'a str {
        self.text
    }

    /// Its lines without the `...` that ends it.
    pub(super) fn body(&self) -> &'a str {
        let last = self.text.split_inclusive('\n').next_back().filter(|_| self.is_ended());
        &self.text[..self.text.len() - last.map_or(0, str::len)]
    }

    pub(super) fn head(&self) -> Result<Head, Finding> {
        self.read()
    }

    pub(super) fn spec<S: DeserializeOwned>(&self) -> Result<S, Finding> {
        let whole: Whole<S> = self.read()?;
        let Metadata { _name } = whole.metadata;
        Ok(whole.spec)
    }

    /// Takes the document's name as a name.
    pub(super) fn name<N: FromStr<Err: fmt::Display>>(&self, head: &Head) -> Result<N, Finding> {
        head.metadata.name.parse().map_err(|error: N::Err| self.problem(&name_place(), &error.to_string()))
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Finding> {
        serde_saphyr::from_str_with_options(self.text, options()).map_err(|error| {
            let (position, says) = told(&error);
            self.finding(position, says)
        })
    }

    /// Something is wrong at a place of this document.
    pub(super) fn problem(&self, place: &Place, says: &str) -> Finding {
        self.finding(self.locate(place), says.to_owned())
    }

    fn finding(&self, (line, column): (usize, usize), says: String) -> Finding {
        Finding::at(Path::new(&self.file.name), &self.file.text, (line + self.before, column), says)
    }

    /// `file:line` of a place.
    pub(super) fn line_of(&self, place: &Place) -> String {
        format!("{}:{}", self.file.name, self.locate(place).0 + self.before)
    }

    /// The line of a place, from 1 where the document begins.
    pub(super) fn line_within(&self, place: &Place) -> usize {
        self.locate(place).0
    }

    /// Line and column, within this document, of the value at a place or of the nearest value around it.
    fn locate(&self, place: &Place) -> (usize, usize) {
        let Ok(root) = serde_saphyr::from_str_with_options::<Spanned<Node>>(self.text, options()) else {
            return (1, 1);
        };
        let mut at = &root;
        for step in &place.steps {
            match at.value.step(step) {
                Some(next) => at = next,
                None => break,
            }
        }
        position(at.referenced)
    }
}

/// Whether the line is a marker: three characters, then nothing or a blank.
fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// A directive (`%YAML 1.2`) is about the document after it, and says nothing that we would read otherwise.
fn has_content(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}');
    let is_directive = line.starts_with('%');
    let line = line.trim();
    !(line.is_empty() || is_directive || line.starts_with('#') || line == "---" || line == "...")
}

pub(super) fn name_place() -> Place {
    Place { document: 0, steps: vec![Step::Key("metadata".into()), Step::Key("name".into())] }
}

/// A policy is small and written by hand: it needs no merge keys, few aliases, and far fewer nodes than the
/// parser would take (250,000), with which an alias bomb keeps a core busy for a while.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: 50_000,
            max_events: 150_000,
            max_aliases: 500,
            max_anchors: 500,
            max_recorded_anchor_events: 50_000,
            max_depth: 64,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 50_000 },
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        emit_comments: false,
        with_snippet: false,
    }
}

/// A document for which only places matter.
enum Node {
    Map(Vec<(String, Spanned<Self>)>),
    List(Vec<Spanned<Self>>),
    Leaf,
}

impl Node {
    fn step(&self, step: &Step) -> Option<&Spanned<Self>> {
        match (self, step) {
            (Self::Map(entries), Step::Key(key)) => {
                entries.iter().find(|(name, _)| **name == **key).map(|(_, value)| value)
            }
            (Self::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }
}
