//! One policy file taken apart, to be written again without what is others'.
//!
//! Every line stays where it is, so that a rule has the same `file:line` wherever it decides. Roles and bindings are
//! written anew, as JSON, which YAML contains: each rule on its own line. Of connectors only the comments are removed.

use serde::Serialize;
use serde_json::json;
use serde_saphyr::granit_parser::{Scanner, StrInput, Token, TokenType, options};

use super::{
    document::Document,
    excerpt::Given,
    files::File,
    load::{API_VERSION, Kind},
};
use crate::{
    document::Place,
    id::{BindingName, RoleName},
    identity::{BindingSpec, Names, Workload},
    policy::RoleSpec,
};

/// A file, document by document.
#[derive(Debug)]
pub(super) struct Sheet {
    name: String,
    sections: Vec<Section>,
}

/// Of a file's lines those of one document, or of none.
#[derive(Debug)]
struct Section {
    /// Ends of lines in it.
    breaks: usize,
    /// Whether it begins with `---`.
    is_begun: bool,
    /// Whether it ends with `...`.
    is_ended: bool,
    holds: Holds,
}

#[derive(Debug)]
enum Holds {
    Nothing,
    /// As it stands, without comments.
    Connector(String),
    /// With the line of each grant and deny, from 1 in the section.
    Role {
        name: RoleName,
        spec: RoleSpec,
        grants: Vec<usize>,
        deny: Vec<usize>,
    },
    Binding {
        name: BindingName,
        spec: BindingSpec,
    },
}

impl Sheet {
    /// Takes a file apart that was read as a part of a ruleset before, so that nothing is wrong with it.
    pub(super) fn read(file: &File) -> Self {
        let sections = Document::parts(file).iter().map(Section::read).collect();
        Self { name: file.name.clone(), sections }
    }

    /// All bindings of the file.
    pub(super) fn bindings(&self) -> impl Iterator<Item = &BindingSpec> {
        self.sections.iter().filter_map(|section| match &section.holds {
            Holds::Binding { spec, .. } => Some(spec),
            _ => None,
        })
    }

    /// The file with what the workload is given of it; `None` where that is nothing.
    pub(super) fn excerpt(&self, workload: &Workload, given: &Given<'_>) -> Option<File> {
        let mut text = String::new();
        let mut is_empty = true;
        for section in &self.sections {
            let held = section.holds.written(workload, given);
            is_empty &= held.is_none();
            section.write(held.as_deref().unwrap_or_default(), &mut text);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        (!is_empty).then(|| File { name: self.name.clone(), text })
    }
}

impl Section {
    fn read(document: &Document<'_>) -> Self {
        let text = document.text();
        Self {
            breaks: text.matches('\n').count(),
            is_begun: document.is_begun(),
            is_ended: document.is_ended(),
            holds: Holds::read(document).unwrap_or(Holds::Nothing),
        }
    }

    /// Writes what it holds on as many lines as it had.
    fn write(&self, held: &str, text: &mut String) {
        let begun = if self.is_begun && !held.is_empty() && !held.starts_with("---") { "--- " } else { "" };
        text.push_str(begun);
        text.push_str(held);
        let written = held.matches('\n').count() + usize::from(self.is_ended);
        text.extend(std::iter::repeat_n('\n', self.breaks.saturating_sub(written)));
        if self.is_ended {
            text.push_str("...\n");
        }
    }
}

impl Holds {
    fn read(document: &Document<'_>) -> Option<Self> {
        if !document.has_content() {
            return None;
        }
        let head = document.head().ok()?;
        match Kind::read(document, &head).ok()? {
            Kind::Connector => Some(Self::Connector(without_comments(document.body()))),
            Kind::Binding => {
                Some(Self::Binding { name: document.name(&head).ok()?, spec: document.spec().ok()? })
            }
            Kind::Role => {
                let spec: RoleSpec = document.spec().ok()?;
                let lines = |list: &str, length| {
                    let place = Place::spec(0).key(list);
                    (0..length).map(|index| document.line_within(&place.index(index))).collect()
                };
                let (grants, deny) = (lines("grants", spec.grants.len()), lines("deny", spec.deny.len()));
                Some(Self::Role { name: document.name(&head).ok()?, spec, grants, deny })
            }
        }
    }

    fn written(&self, workload: &Workload, given: &Given<'_>) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Connector(text) => Some(text.clone()),
            Self::Binding { name, spec } => {
                spec.workloads.contains(workload).then(|| local_binding(name, spec))
            }
            Self::Role { name, spec, grants, deny } => {
                let tenants = given.tenants(name, &spec.tenants);
                (!tenants.is_empty()).then(|| role(name, &tenants, spec, (grants, deny)))
            }
        }
    }
}

fn local_binding(name: &BindingName, spec: &BindingSpec) -> String {
    json!({
        "apiVersion": API_VERSION,
        "kind": "Binding",
        "metadata": {"name": name},
        "spec": {
            "workloads": [{"local": true}],
            "tenants": listed(&spec.tenants),
            "roles": listed(&spec.roles),
            "users": listed(&spec.users),
        },
    })
    .to_string()
}

/// Names as a document lists them.
fn listed<T: ToString>(names: &Names<T>) -> Vec<String> {
    match names {
        Names::Any => vec!["*".to_owned()],
        Names::Only(names) => names.iter().map(ToString::to_string).collect(),
    }
}

fn role(name: &RoleName, tenants: &[String], spec: &RoleSpec, lines: (&[usize], &[usize])) -> String {
    let head = json!({"apiVersion": API_VERSION, "kind": "Role", "metadata": {"name": name}}).to_string();
    let mut page = Page { text: head, line: 1 };
    page.text.pop(); // the brace that ends it
    page.text.push_str(",\"spec\":{\"tenants\":");
    page.text.push_str(&json(&tenants));
    page.text.push_str(",\"mode\":");
    page.text.push_str(&json(&spec.mode));
    // The list that stands first is written first: lines can only be added.
    if lines.0.first() <= lines.1.first() || lines.1.is_empty() {
        page.list("grants", &spec.grants, lines.0);
        page.list("deny", &spec.deny, lines.1);
    } else {
        page.list("deny", &spec.deny, lines.1);
        page.list("grants", &spec.grants, lines.0);
    }
    page.text.push_str("}}");
    page.text
}

/// Text that grows line by line.
struct Page {
    text: String,
    line: usize,
}

impl Page {
    /// Adds a member: a list of which each item stands on its line.
    fn list(&mut self, key: &str, items: &[impl Serialize], lines: &[usize]) {
        self.text.push_str(",\"");
        self.text.push_str(key);
        self.text.push_str("\":[");
        for (index, (item, line)) in items.iter().zip(lines).enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            if *line > self.line {
                self.text.extend(std::iter::repeat_n('\n', line - self.line));
                self.text.push_str("  ");
                self.line = *line;
            }
            self.text.push_str(&json(item));
        }
        self.text.push(']');
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A document without what its author says to its readers, which may name anybody.
fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    let scanner = Scanner::with_options(StrInput::new(text), options! { emit_comments: true });
    for (span, token) in scanner.flatten().map(Token::into_parts) {
        let range = (span.start.byte_offset(), span.end.byte_offset());
        let (TokenType::Comment(_), (Some(begin), Some(end))) = (token, range) else { continue };
        kept.push_str(text[from..begin].trim_end_matches([' ', '\t']));
        from = end;
    }
    kept.push_str(&text[from..]);
    kept
}
