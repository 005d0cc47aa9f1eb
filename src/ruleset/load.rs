//! From sources to a ruleset: every document read, checked against the others, compiled.

use std::{collections::HashMap, sync::OnceLock};

use super::{
    LoadError, Ruleset, Summary,
    crossref::Known,
    document::{Document, Head, name_place},
    files::Files,
};
use crate::{
    catalog::{Catalog, ConnectorSpec},
    document::{Finding, Place, Problem, did_you_mean},
    id::{BindingName, ConnectorName, RoleName},
    identity::{BindingSpec, Bindings},
    policy::{Policy, RoleSpec},
};

pub(super) const API_VERSION: &str = "keybearer.dev/v1";

/// All documents, by kind, each with where it stands.
#[derive(Debug, Default)]
struct Documents<'a> {
    roles: Vec<(Document<'a>, RoleName, RoleSpec)>,
    connectors: Vec<(Document<'a>, ConnectorName, ConnectorSpec)>,
    bindings: Vec<(BindingName, BindingSpec)>,
    /// Kind and name → where; also of documents that are wrong otherwise.
    names: HashMap<(Kind, String), String>,
    findings: Vec<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Role,
    Connector,
    Binding,
}

impl Ruleset {
    /// Reads everything, then says everything that is wrong, or compiles it.
    pub(super) fn from_files(files: Files) -> Result<Self, LoadError> {
        let mut documents = Documents::default();
        for file in &files.all {
            for document in Document::all(file) {
                documents.read(document);
            }
        }
        let mut findings = [files.findings.clone(), std::mem::take(&mut documents.findings)].concat();
        // What roles say of connectors that could not be had is not judged.
        if files.findings.is_empty() {
            findings.extend(documents.dangling());
        }
        let summary = documents.summary(&files);
        let rule_lines = documents.rule_lines();
        let (policy, catalog, bindings) = documents.compile(&mut findings);
        match (policy, catalog) {
            (Some(policy), Some(catalog)) if findings.is_empty() => Ok(Self {
                policy,
                bindings,
                catalog,
                revision: files.revision(),
                rule_lines,
                files: files.all,
                sheets: OnceLock::new(),
                summary,
            }),
            _ => {
                findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
                Err(LoadError { findings })
            }
        }
    }
}

impl<'a> Documents<'a> {
    fn read(&mut self, document: Document<'a>) {
        if let Err(finding) = self.try_read(document) {
            self.findings.push(finding);
        }
    }

    fn try_read(&mut self, document: Document<'a>) -> Result<(), Finding> {
        let head = document.head()?;
        let kind = Kind::read(&document, &head)?;
        let here = document.line_of(&name_place());
        if let Some(other) = self.names.insert((kind, head.metadata.name.clone()), here) {
            let says = format!("{} {} is already defined at {other}", head.kind, head.metadata.name);
            return Err(document.problem(&name_place(), &says));
        }
        match kind {
            Kind::Role => self.roles.push((document, document.name(&head)?, document.spec()?)),
            Kind::Connector => self.connectors.push((document, document.name(&head)?, document.spec()?)),
            Kind::Binding => self.bindings.push((document.name(&head)?, document.spec()?)),
        }
        Ok(())
    }

    /// What roles say of connectors and is not so.
    fn dangling(&self) -> Vec<Finding> {
        let declared = self.names.keys().filter(|(kind, _)| *kind == Kind::Connector);
        let known = Known::new(
            declared.map(|(_, name)| name.as_str()),
            self.connectors.iter().map(|(_, name, spec)| (name, spec)),
        );
        let wrong = |(document, _, spec): &(Document<'a>, RoleName, RoleSpec)| {
            located(known.check(spec), &[*document])
        };
        self.roles.iter().flat_map(wrong).collect()
    }

    fn summary(&self, files: &Files) -> Summary {
        Summary {
            revision: files.revision(),
            files: files.all.len(),
            roles: self.roles.len(),
            bindings: self.bindings.len(),
            connectors: self.connectors.len(),
            operations: self.connectors.iter().map(|(_, _, spec)| spec.operations.len()).sum(),
        }
    }

    /// Rule → `file:line`.
    fn rule_lines(&self) -> HashMap<String, String> {
        let mut lines = HashMap::new();
        for (document, role, spec) in &self.roles {
            for (list, length) in [("grants", spec.grants.len()), ("deny", spec.deny.len())] {
                for index in 0..length {
                    let place = Place::spec(0).key(list).index(index);
                    lines.insert(format!("{role}/{list}/{index}"), document.line_of(&place));
                }
            }
        }
        lines
    }

    fn compile(self, findings: &mut Vec<Finding>) -> (Option<Policy>, Option<Catalog>, Bindings) {
        let (places, roles) = apart(self.roles);
        let policy = Policy::compile(roles).map_err(|problems| findings.extend(located(problems, &places)));
        let (places, connectors) = apart(self.connectors);
        let catalog =
            Catalog::compile(connectors).map_err(|problems| findings.extend(located(problems, &places)));
        (policy.ok(), catalog.ok(), Bindings::compile(self.bindings))
    }
}

impl Kind {
    pub(super) fn read(document: &Document<'_>, head: &Head) -> Result<Self, Finding> {
        let problem = |key: &str, says: &str| {
            let step = crate::document::Step::Key(key.into());
            Err(document.problem(&Place { document: 0, steps: vec![step] }, says))
        };
        if head.api_version != API_VERSION {
            let says = format!("apiVersion {} is not known: write {API_VERSION}", head.api_version);
            return problem("apiVersion", &says);
        }
        match head.kind.as_str() {
            "Role" => Ok(Self::Role),
            "Connector" => Ok(Self::Connector),
            "Binding" => Ok(Self::Binding),
            "PolicyTest" => {
                problem("kind", "not supported yet: PolicyTest (keep such files outside the policy)")
            }
            other => {
                let hint = did_you_mean(other, ["Role", "Connector", "Binding"]);
                problem("kind", &format!("kind {other} is not known: write Role, Connector or Binding{hint}"))
            }
        }
    }
}

fn apart<N, S>(documents: Vec<(Document<'_>, N, S)>) -> (Vec<Document<'_>>, Vec<(N, S)>) {
    documents.into_iter().map(|(document, name, spec)| (document, (name, spec))).unzip()
}

/// Turns places into lines. A place's document is an index into `documents`.
fn located(problems: Vec<Problem>, documents: &[Document<'_>]) -> Vec<Finding> {
    problems
        .into_iter()
        .filter_map(|problem| Some(documents.get(problem.at.document)?.problem(&problem.at, &problem.says)))
        .collect()
}
