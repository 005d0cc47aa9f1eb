//! The files in `policies/`: every one loads, and they decide what their comments promise.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use http::Method;
use keybearer::{
    catalog::{Connector, Operation},
    host::Host,
    id::{Effect, RoleName, Subject, TenantId},
    path::CanonicalPath,
    policy::{Op, Question, Why},
    ruleset::Ruleset,
};

/// Role, method, URL, operation, decision: see the file's head.
const DECISIONS: &str = include_str!("policies/decisions.txt");

#[test]
fn shipped_files_load() {
    let ruleset = shipped();
    let connectors: Vec<_> =
        ruleset.catalog.connectors().map(|connector| connector.name.to_string()).collect();
    for name in ["anthropic", "github", "github-git", "gmail", "openai", "s3", "salesforce", "slack"] {
        assert!(connectors.iter().any(|connector| connector == name), "{name} in {connectors:?}");
    }
}

#[test]
fn shipped_policies_decide_as_written_and_every_way_around_is_refused() {
    let ruleset = shipped();
    let rows: Vec<Row> = DECISIONS.lines().filter_map(Row::parse).collect();
    assert!(rows.len() > 100, "only {} rows were read", rows.len());
    let wrong: Vec<String> = rows
        .iter()
        .filter(|row| row.decided_by(&ruleset) != (row.operation.to_owned(), row.decision.to_owned()))
        .map(|row| format!("{row:?} but was {:?}", row.decided_by(&ruleset)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_shipped_role_may_destroy() {
    let ruleset = shipped();
    for role in ["researcher", "writer", "publisher"] {
        let destructive: Vec<_> =
            allowed(&ruleset, role).filter(|(_, op)| op.effect == Effect::Destructive).map(spelled).collect();
        assert!(destructive.is_empty(), "{role} may {destructive:?}");
    }
}

#[test]
fn a_researcher_changes_nothing_and_pays_for_models_only() {
    let ruleset = shipped();
    let changing: Vec<_> = allowed(&ruleset, "researcher")
        .filter(|(_, op)| op.effect != Effect::Read)
        .filter(|(_, op)| op.scopes.iter().all(|scope| scope.as_str() != "inference:write"))
        .map(spelled)
        .collect();
    assert!(changing.is_empty(), "{changing:?}");
    assert!(allowed(&ruleset, "researcher").count() > 80, "a researcher reads everywhere");
}

#[test]
fn effects_are_stated_where_the_method_lies() {
    let ruleset = shipped();
    for (connector, operation, effect) in [
        ("github", "markdown.render", Effect::Read),
        ("github", "issue.unlabel", Effect::Write),
        ("github-git", "git.fetch", Effect::Read),
        ("github-git", "git.push", Effect::Write),
        ("slack", "message.list", Effect::Read),
        ("slack", "message.post", Effect::Write),
        ("slack", "message.delete", Effect::Destructive),
        ("salesforce", "record.search", Effect::Read),
        ("salesforce", "query_job.create", Effect::Read),
        ("gmail", "message.trash", Effect::Destructive),
        ("gmail", "message.modify", Effect::Destructive),
        ("gmail", "message.batch_delete", Effect::Destructive),
        ("openai", "embedding.create", Effect::Read),
        ("openai", "store.search", Effect::Read),
        ("anthropic", "message.count_tokens", Effect::Read),
    ] {
        let found = ruleset.catalog.connector(connector).unwrap().operation(operation).unwrap();
        assert_eq!(found.effect, effect, "{connector}/{operation}");
    }
}

#[test]
fn carriers_and_selectors_are_stripped() {
    let ruleset = shipped();
    let strip = |connector: &str| ruleset.catalog.connector(connector).unwrap().strip.clone();
    for (connector, header) in [
        ("github", "x-github-otp"),
        ("salesforce", "x-sfdc-session"),
        ("gmail", "x-goog-api-key"),
        ("gmail", "x-goog-user-project"),
        ("gmail", "x-goog-authenticated-user-email"),
        ("openai", "openai-organization"),
        ("openai", "openai-project"),
        ("openai", "api-key"),
        ("anthropic", "x-api-key"),
    ] {
        assert!(strip(connector).headers.iter().any(|name| name == header), "{connector}: {header}");
    }
    for (connector, parameter) in [
        ("github", "access_token"),
        ("github-git", "access_token"),
        ("slack", "token"),
        ("salesforce", "_HttpMethod"),
        ("salesforce", "sid"),
        ("gmail", "access_token"),
        ("gmail", "key"),
        ("gmail", "$key"),
        ("gmail", "$httpMethod"),
        ("gmail", "$ct"),
    ] {
        assert!(strip(connector).query.iter().any(|name| name == parameter), "{connector}: {parameter}");
    }
    assert_eq!(strip("slack").form, ["token"]);
}

/// The operations that a role may do, of all connectors.
fn allowed<'a>(ruleset: &'a Ruleset, role: &str) -> impl Iterator<Item = (&'a Connector, &'a Operation)> {
    let subject = subject(role);
    let operations = |connector: &'a Arc<Connector>| {
        connector.operations.iter().map(|operation| (&**connector, &**operation))
    };
    ruleset.catalog.connectors().flat_map(operations).filter(move |(connector, operation)| {
        let question =
            Question { subject: &subject, connector: &connector.name, operation: Some(op(operation)) };
        ruleset.policy.decide(question).is_ok()
    })
}

fn spelled((connector, operation): (&Connector, &Operation)) -> String {
    format!("{}/{}", connector.name, operation.name)
}

const fn op(operation: &Operation) -> Op<'_> {
    Op { name: &operation.name, effect: operation.effect, scopes: &operation.scopes }
}

fn subject(role: &str) -> Subject {
    Subject { tenant: TenantId::new("acme").unwrap(), role: RoleName::new(role).unwrap(), user: None }
}

fn shipped() -> Ruleset {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    Ruleset::load(&[folder]).map_err(|error| error.to_string()).unwrap()
}

#[derive(Debug)]
struct Row {
    role: &'static str,
    method: &'static str,
    url: &'static str,
    operation: &'static str,
    decision: &'static str,
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        let words: Vec<_> = line.split_whitespace().collect();
        let words = Some(words).filter(|words| !words.is_empty())?;
        let [role, method, url, operation, decision] = words.try_into().unwrap();
        Some(Self { role, method, url, operation, decision })
    }

    /// The operation and the decision, as the table writes them.
    fn decided_by(&self, ruleset: &Ruleset) -> (String, String) {
        let (host, path) =
            self.url.strip_prefix("https://").unwrap().split_at(self.url[8..].find('/').unwrap());
        let host = Host::parse(host).unwrap();
        let Some(located) = ruleset.catalog.locate(&host, None) else {
            return ("-".to_owned(), "no_connector".to_owned());
        };
        let method: Method = self.method.parse().unwrap();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let found = located.operation(&method, &CanonicalPath::parse(path).unwrap(), query);
        let connector = found.map_or_else(|| located.connector(), |route| &route.connector);
        let operation = found.map(|route| op(&route.operation));
        let subject = subject(self.role);
        let question = Question { subject: &subject, connector: &connector.name, operation };
        let decision =
            ruleset.policy.decide(question).map_or_else(|denial| spell(denial.why()), |_| "allow".to_owned());
        (format!("{}/{}", connector.name, operation.map_or("-", |op| op.name.as_str())), decision)
    }
}

fn spell(why: &Why) -> String {
    match why {
        Why::Denied => "denied".to_owned(),
        Why::OperationUnknown => "unknown".to_owned(),
        Why::InsufficientScope(shortfall) => {
            shortfall.missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        other => format!("{other:?}"),
    }
}
