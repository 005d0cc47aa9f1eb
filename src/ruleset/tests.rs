use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use http::Method;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::{
    drain::Drain,
    id::{RoleName, Subject, TenantId},
};

pub(super) const CRM: &str = r#"apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: crm}
spec:
  hosts: [api.crm.example]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {items:read: [], items:write: []}
  operations:
    - {name: item.get, request: "GET /items/{id}", scopes: [items:read]}
    - {name: item.put, request: "PUT /items/{id}", scopes: [items:write]}
"#;

pub(super) const READER: &str = "apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: reader}
spec:
  tenants: [\"*\"]
  grants:
    - {connector: crm, as: role, scopes: [items:read]}
";

const LOCAL: &str = "apiVersion: keybearer.dev/v1
kind: Binding
metadata: {name: local}
spec: {workloads: [{local: true}], tenants: ['*'], roles: [reader]}
";

pub(super) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(folder.path(), name, text);
    }
    folder
}

pub(super) fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn load(folder: &TempDir) -> Result<Ruleset, LoadError> {
    Ruleset::load(&[folder.path().to_owned()])
}

/// All findings, with paths below the folder.
fn findings(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    let error = load(&folder).unwrap_err().to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

fn reader() -> Subject {
    Subject { tenant: TenantId::new("acme").unwrap(), role: RoleName::new("reader").unwrap(), user: None }
}

pub(super) fn allows(rules: &Ruleset, method: &Method) -> bool {
    rules.explain(&reader(), method, "https://api.crm.example/items/1").decision == Decision::Allow
}

#[test]
fn a_folder_is_read_at_any_depth_with_several_documents_a_file() {
    let both = format!("# a comment\n---\n{READER}---\n{CRM}...\n---\n# nothing\n");
    let folder = folder(&[
        ("a/b/both.yml", &both),
        ("local.yaml", LOCAL),
        ("README.md", "not a policy"),
        (".hidden.yaml", "not a policy"),
        ("..2024/local.yaml", LOCAL),
    ]);
    let rules = load(&folder).unwrap();
    assert_eq!(
        rules.summary(),
        &Summary {
            revision: rules.revision.clone(),
            files: 2,
            roles: 1,
            bindings: 1,
            connectors: 1,
            operations: 2
        }
    );
    assert_eq!(rules.revision.len(), 12);
    assert!(allows(&rules, &Method::GET) && !allows(&rules, &Method::PUT));
}

#[test]
fn directives_of_yaml_are_no_documents() {
    let directed = format!("%YAML 1.2\n---\n{CRM}...\n%YAML 1.2\n---\n{READER}");
    let rules = load(&folder(&[("all.yaml", &directed)])).unwrap();
    assert!(allows(&rules, &Method::GET));
    let told = rules.explain(&reader(), &Method::GET, "https://api.crm.example/items/1");
    assert!(told.rule_at.unwrap().ends_with("/all.yaml:23"), "lines are those of the file");
}

#[test]
fn an_empty_folder_is_a_policy_that_refuses_everything() {
    let rules = load(&folder(&[])).unwrap();
    let told = rules.explain(&reader(), &Method::GET, "https://api.crm.example/items/1");
    assert_eq!((told.decision, told.error), (Decision::Deny, Some("destination_denied")));
}

#[test]
fn a_misspelt_field_is_shown_with_file_line_and_column() {
    let role = "# who reads\n---\napiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {name: reader}\nspec:\n  tenants: [\"*\"]\n  grants:\n    - connector: crm\n      as: role\n      scope: [items:read]\n";
    assert_eq!(
        findings(&[("crm.yaml", CRM), ("roles/reader.yaml", role)]),
        "roles/reader.yaml:11:7: unknown field `scope`, expected one of connector, as, scopes, operations, when, rate, approve; did you mean `scopes`?
   |
11 |       scope: [items:read]
   |       ^"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_where() {
    let role = "apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: reader}
spec:
  tenants: []
  grants:
    - {connector: cmr, as: role, scopes: [items:read]}
    - connector: crm
      as: role
      scopes:
        - items:read
        - items:wriet
      operations: [item.get, item.git]
      when: request.path == '/'
  deny:
    - {connector: crm, operations: [item.remove]}
";
    let crm = CRM.replace("PUT /items/{id}", "GET /items/{name}");
    let files = [("roles.yaml", role), ("crm.yaml", &crm), ("broken.yaml", "a: [1\nb: 2\n")];
    let error = findings(&files);
    let lines: Vec<&str> = error.lines().filter(|line| line.contains(".yaml:")).collect();
    assert_eq!(
        &lines[1..],
        [
            "crm.yaml:11:33: operations item.put and item.get are both `GET /items/{name}`: keep one of them, or make the paths differ",
            "roles.yaml:5:12: no tenant is named: write [\"*\"] for all of them",
            "roles.yaml:7:19: no connector cmr is defined; did you mean `crm`?",
            "roles.yaml:12:11: connector crm has no scope items:wriet; did you mean `items:write`?",
            "roles.yaml:13:30: connector crm has no operation item.git; did you mean `item.get`?",
            "roles.yaml:14:13: not supported yet: when (conditions on the request; narrow with operations)",
            "roles.yaml:16:37: connector crm has no operation item.remove",
        ]
    );
    assert!(lines[0].starts_with("broken.yaml:"), "{}", lines[0]);
}

#[test]
fn a_mistake_in_one_document_does_not_hide_those_in_the_next() {
    let two = format!("{}---\n{}", READER.replace("as:", "az:"), CRM.replace("hosts:", "host:"));
    let error = findings(&[("two.yaml", &two)]);
    assert!(error.contains("two.yaml:7:24: unknown field `az`"), "{error}");
    assert!(error.contains("two.yaml:13:3: unknown field `host`, "), "{error}");
    assert!(!error.contains("no connector crm"), "a connector that cannot be read is not unknown: {error}");
}

#[test]
fn two_documents_of_one_name_are_refused_naming_both() {
    assert_eq!(
        findings(&[("crm.yaml", CRM), ("a.yaml", READER), ("b.yaml", &format!("---\n{READER}"))]),
        "b.yaml:4:18: Role reader is already defined at a.yaml:3\n  |\n4 | metadata: {name: reader}\n  |                  ^"
    );
    let namesake = READER.replace("name: reader", "name: crm");
    assert!(load(&folder(&[("crm.yaml", CRM), ("role.yaml", &namesake)])).is_ok(), "of another kind");
}

#[test]
fn documents_of_another_kind_or_version_are_refused() {
    for (from, to, says) in [
        (
            "kind: Role",
            "kind: Rule",
            "a.yaml:2:7: kind Rule is not known: write Role, Connector or Binding; did you mean `Role`?",
        ),
        (
            "kind: Role",
            "kind: PolicyTest",
            "a.yaml:2:7: not supported yet: PolicyTest (keep such files outside the policy)",
        ),
        ("/v1", "/v2", "a.yaml:1:13: apiVersion keybearer.dev/v2 is not known: write keybearer.dev/v1"),
        ("kind: Role\n", "", "a.yaml:3:1: missing field `kind`"),
        ("as: role, ", "", "a.yaml:7:24: missing field `as`"),
        (
            "as: role",
            "as: roll",
            "a.yaml:7:28: unknown variant `roll`, expected one of developer, tenant, role, user; did you mean `role`?",
        ),
        ("name: reader", "name: 're ader'", "a.yaml:3:18: a role cannot contain ' '"),
        ("name: reader", "name: reader, label: x", "a.yaml:3:26: unknown field `label`"),
        (
            "tenants:",
            "tenants: ['*']\n  tenants:",
            "a.yaml:6:3: duplicate mapping key: tenants: write it once\n",
        ),
        ("scopes: [items:read]", "scopes: [null]", "a.yaml:7:43: a text is missing here: write one, or"),
        ("spec:\n", "spec:\n  <<: {mode: observe}\n", "a.yaml:5:3: merge keys (<<) are not supported: write"),
        ("connector: crm", "connector: c/m", "a.yaml:7:19: a connector cannot contain '/'"),
    ] {
        let error = findings(&[("a.yaml", &READER.replace(from, to)), ("crm.yaml", CRM)]);
        assert!(error.starts_with(says), "{to}: {error}");
    }
}

#[test]
fn paths_that_cannot_be_read_are_named() {
    let error = Ruleset::load(&[PathBuf::from("/does/not/exist")]).unwrap_err().to_string();
    assert_eq!(error, "/does/not/exist: cannot be read: No such file or directory (os error 2)");
    let folder = folder(&[]);
    symlink("nowhere", folder.path().join("dangling.yaml")).unwrap();
    fs::write(folder.path().join("latin1.yaml"), b"a: \xe9").unwrap();
    let error = load(&folder).unwrap_err();
    assert_eq!(error.findings().len(), 2, "{error}");
}

#[test]
fn a_file_reached_twice_is_read_once_and_loops_end() {
    let folder = folder(&[("a/crm.yaml", CRM), ("a/reader.yaml", READER)]);
    symlink("..", folder.path().join("a/loop")).unwrap();
    symlink("crm.yaml", folder.path().join("a/again.yaml")).unwrap();
    let paths = [folder.path().to_owned(), folder.path().join("a"), folder.path().join("a/crm.yaml")];
    assert_eq!(Ruleset::load(&paths).unwrap().summary().files, 2);
}

#[test]
fn an_alias_bomb_is_refused_at_once() {
    let level = |level: usize| match level {
        0 => "a0: &a0 [x, x, x, x, x, x, x, x, x, x]".to_owned(),
        level => format!("a{level}: &a{level} [{}]", vec![format!("*a{}", level - 1); 10].join(", ")),
    };
    let bomb = (0..9).map(level).collect::<Vec<_>>().join("\n");
    let error = findings(&[("bomb.yaml", &bomb)]);
    assert!(error.starts_with("bomb.yaml:"), "{error}");
    assert!(error.contains("too large, nested too deep, or repeats itself too often"), "{error}");
}

#[test]
fn an_explanation_names_rule_line_account_and_scopes() {
    let rules = load(&folder(&[("crm.yaml", CRM), ("reader.yaml", READER)])).unwrap();
    let told = rules.explain(&reader(), &Method::GET, "https://api.crm.example/items/1?x=y");
    assert_eq!((told.decision, told.error), (Decision::Allow, None));
    assert_eq!(told.account.as_deref(), Some("acme/crm/role:reader"));
    assert_eq!(told.rule.unwrap().as_str(), "reader/grants/0");
    assert!(told.rule_at.unwrap().ends_with("/reader.yaml:7"));
    assert_eq!(told.template.as_deref(), Some("/items/{id}"));

    let told = rules.explain(&reader(), &Method::PUT, "https://api.crm.example/items/1");
    let told = serde_json::to_value(&told).unwrap();
    assert_eq!(told["decision"], "deny");
    assert_eq!(told["error"], "insufficient_scope");
    assert_eq!(told["operation"], "item.put");
    assert_eq!(told["required"], serde_json::json!(["items:write"]));
    assert_eq!(told["granted"], serde_json::json!(["items:read"]));
    assert_eq!(told["missing"], serde_json::json!(["items:write"]));

    for (url, error) in [
        ("https://api.crm.example/other", "operation_unknown"),
        ("https://api.crm.example:8443/items/1", "destination_denied"),
        ("http://api.crm.example:80/items/1", "destination_denied"),
        ("https://other.example/items/1", "destination_denied"),
        ("https://api.crm.example/items/../1", "bad_request"),
        ("ftp://api.crm.example/", "bad_request"),
        ("https://crm.connector.internal/", "operation_unknown"),
    ] {
        assert_eq!(rules.explain(&reader(), &Method::GET, url).error, Some(error), "{url}");
    }
}

#[test]
fn an_explanation_reads_a_url_as_the_proxy_does() {
    let rules = load(&folder(&[("crm.yaml", CRM), ("reader.yaml", READER)])).unwrap();
    for (method, url, expected) in [
        (Method::GET, "http://u:p@api.crm.example/items/1", (Decision::Allow, None)),
        (Method::GET, "https://u@api.crm.example/items/1", (Decision::Allow, None)),
        (Method::GET, "https://u@v@api.crm.example/items/1", (Decision::Deny, Some("bad_request"))),
        (Method::GET, "https://api.crm.example@evil.example/", (Decision::Deny, Some("destination_denied"))),
        (Method::GET, "http://keybearer.internal/v1/operations", (Decision::Allow, None)),
        (Method::POST, "http://keybearer.internal/v1/preflight", (Decision::Allow, None)),
        (Method::GET, "http://keybearer.internal/v1/preflight", (Decision::Deny, Some("operation_unknown"))),
        (Method::TRACE, "https://api.crm.example/items/1", (Decision::Deny, Some("bad_request"))),
        (Method::CONNECT, "https://api.crm.example/items/1", (Decision::Deny, Some("bad_request"))),
    ] {
        let told = rules.explain(&reader(), &method, url);
        assert_eq!((told.decision, told.error), expected, "{method} {url}");
    }
}

/// As the proxy does: clients ask for `https` by CONNECT, and name port 443 there where the URL names none.
#[test]
fn an_https_url_without_a_port_is_on_443() {
    let elsewhere = CRM.replace("api.crm.example", "api.crm.example:8443");
    let rules = load(&folder(&[("crm.yaml", &elsewhere), ("reader.yaml", READER)])).unwrap();
    let explain = |url: &str| rules.explain(&reader(), &Method::GET, url);
    for url in ["http://api.crm.example/items/1", "https://api.crm.example:8443/items/1"] {
        assert_eq!(explain(url).decision, Decision::Allow, "{url}");
    }
    let told = explain("https://api.crm.example/items/1");
    assert_eq!(told.error, Some("destination_denied"));
    assert_eq!(
        told.detail.as_deref(),
        Some(
            "connector crm is on port 8443 of api.crm.example: name it in the URL, as in https://api.crm.example:8443/"
        )
    );
}

#[test]
fn an_observed_role_is_explained_as_what_it_would_be() {
    let observed = READER.replace("spec:\n", "spec:\n  mode: observe\n");
    let rules = load(&folder(&[("crm.yaml", CRM), ("reader.yaml", &observed)])).unwrap();
    let told = rules.explain(&reader(), &Method::PUT, "https://api.crm.example/items/1");
    assert_eq!((told.decision, told.error), (Decision::WouldDeny, Some("insufficient_scope")));
    assert_eq!(told.account.as_deref(), Some("acme/crm/role:reader"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Deny wins wherever it stands: before or after the grant, whichever file comes first.
    #[test]
    fn files_and_rules_may_stand_in_any_order(
        names in Just(["a.yaml", "b.yaml", "z/c.yml"]).prop_shuffle(),
        grants in Just(["items:read", "items:write"]).prop_shuffle(),
        deny_first: bool,
        one_file: bool,
    ) {
        let deny = "  deny: [{connector: crm, operations: [item.put]}]\n";
        let grant = |scope| format!("    - {{connector: crm, as: role, scopes: ['{scope}']}}\n");
        let grants = format!("  grants:\n{}{}", grant(grants[0]), grant(grants[1]));
        let head = "apiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {name: reader}\nspec:\n  tenants: ['*']\n";
        let role = if deny_first { format!("{head}{deny}{grants}") } else { format!("{head}{grants}{deny}") };
        let all = format!("{role}---\n{CRM}---\n{LOCAL}");
        let files = [(names[0], &*role), (names[1], CRM), (names[2], LOCAL)];
        let folder = if one_file { folder(&[(names[0], &all)]) } else { folder(&files) };
        let rules = load(&folder).unwrap();
        prop_assert!(allows(&rules, &Method::GET));
        let told = rules.explain(&reader(), &Method::PUT, "https://api.crm.example/items/1");
        prop_assert_eq!(told.rule.map(|rule| rule.to_string()), Some("reader/deny/0".to_owned()));
    }
}

/// A policy folder whose parent, which is watched too, is quiet: other tests make folders beside `folder`'s.
pub(super) fn quiet_folder(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().join("policy");
    fs::create_dir(&path).unwrap();
    for (name, text) in files {
        write(&path, name, text);
    }
    (outer, path)
}

/// Rules that are watched; every outcome arrives at the receiver.
fn watched(path: &Path) -> (Rules, Drain, UnboundedReceiver<Outcome>) {
    let rules = Rules::load(&[path.to_owned()]).unwrap();
    let drain = Drain::default();
    let (tell, outcomes) = unbounded_channel();
    rules.watch(&drain, move |outcome| drop(tell.send(outcome)));
    (rules, drain, outcomes)
}

pub(super) async fn next(outcomes: &mut UnboundedReceiver<Outcome>) -> Outcome {
    tokio::time::timeout(Duration::from_secs(20), outcomes.recv())
        .await
        .expect("a change is noticed")
        .unwrap()
}

/// A version of a mounted `ConfigMap`, made the way the kubelet makes it.
fn mount(folder: &Path, version: &str, reader: &str) {
    let real = format!("..{version}");
    write(folder, &format!("{real}/reader.yaml"), reader);
    write(folder, &format!("{real}/crm.yaml"), CRM);
    symlink(&real, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

#[tokio::test]
async fn a_swapped_config_map_is_taken_and_a_bad_one_is_not() {
    let (_outer, folder) = quiet_folder(&[]);
    mount(&folder, "v1", READER);
    for file in ["reader.yaml", "crm.yaml"] {
        symlink(format!("..data/{file}"), folder.join(file)).unwrap();
    }
    let (rules, drain, mut outcomes) = watched(&folder);
    let first = rules.current();
    assert!(allows(&first, &Method::GET) && !allows(&first, &Method::PUT));

    mount(&folder, "v2", &READER.replace("items:read", "items:write"));
    let Outcome::Loaded(summary) = next(&mut outcomes).await else { panic!("a good one is taken") };
    let second = rules.current();
    assert_eq!(summary.revision, second.revision);
    assert!(!allows(&second, &Method::GET) && allows(&second, &Method::PUT));
    assert!(allows(&first, &Method::GET), "who asked before keeps what it was given");

    mount(&folder, "v3", &READER.replace("items:read", "items:reed"));
    fs::remove_dir_all(folder.join("..v1")).unwrap();
    let Outcome::Refused(error) = next(&mut outcomes).await else { panic!("a bad one is not taken") };
    assert!(error.to_string().contains("no scope items:reed; did you mean `items:read`?"), "{error}");
    assert_eq!(rules.last_error().as_deref(), Some(&*error));
    assert_eq!(rules.current().revision, second.revision, "the last good one stays");

    mount(&folder, "v4", &READER.replace("items:read", "items:write"));
    let Outcome::Loaded(summary) = next(&mut outcomes).await else { panic!("recovered") };
    assert_eq!(summary.revision, second.revision);
    assert_eq!(rules.last_error(), None);
    assert_eq!(drain.finish(Duration::from_secs(20)).await, 0, "the watch ends with the drain");
}

#[test]
fn what_is_no_regular_file_is_a_finding() {
    let folder = folder(&[("crm.yaml", CRM)]);
    symlink("/dev/zero", folder.path().join("endless.yaml")).unwrap();
    make_pipe(&folder.path().join("pipe.yaml"));
    let error = load(&folder).unwrap_err();
    let says = error.findings().iter().map(|finding| finding.says.as_str()).collect::<Vec<_>>();
    assert_eq!(says, ["cannot be read: it is no regular file"; 2]);
}

fn make_pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn a_pipe_in_the_folder_does_not_end_the_following() {
    let (_outer, folder) = quiet_folder(&[("crm.yaml", CRM), ("reader.yaml", READER)]);
    let (rules, drain, mut outcomes) = watched(&folder);
    let pipe = folder.join("pipe.yaml");
    make_pipe(&pipe);
    let Outcome::Refused(_) = next(&mut outcomes).await else { panic!("a pipe is not taken") };
    assert!(allows(&rules.current(), &Method::GET), "the last good one stays");
    fs::remove_file(&pipe).unwrap();
    let Outcome::Loaded(_) = next(&mut outcomes).await else { panic!("recovered") };
    assert_eq!(drain.finish(Duration::from_secs(20)).await, 0, "the watch ends with the drain");
}

#[tokio::test]
async fn files_that_come_change_and_go_are_noticed_also_in_new_folders() {
    let (_outer, folder) = quiet_folder(&[("crm.yaml", CRM)]);
    let (rules, _drain, mut outcomes) = watched(&folder);
    assert!(!allows(&rules.current(), &Method::GET));

    write(&folder, "new/deep/reader.yaml", READER);
    while !allows(&rules.current(), &Method::GET) {
        next(&mut outcomes).await;
    }
    write(&folder, "new/deep/reader.yaml", &READER.replace("[items:read]", "[items:read, items:write]"));
    while !allows(&rules.current(), &Method::PUT) {
        next(&mut outcomes).await;
    }
    fs::remove_dir_all(folder.join("new")).unwrap();
    while allows(&rules.current(), &Method::GET) {
        next(&mut outcomes).await;
    }
}

#[tokio::test]
async fn a_named_link_to_a_folder_may_be_pointed_elsewhere() {
    let (_outer, folder) =
        quiet_folder(&[("v1/all.yaml", CRM), ("v2/all.yaml", &format!("{CRM}---\n{READER}"))]);
    let link = folder.join("policy");
    symlink("v1", &link).unwrap();
    let (rules, _drain, mut outcomes) = watched(&link);
    symlink("v2", folder.join("next")).unwrap();
    fs::rename(folder.join("next"), &link).unwrap();
    next(&mut outcomes).await;
    assert!(allows(&rules.current(), &Method::GET));
    fs::write(folder.join("v2/all.yaml"), "kind: [").unwrap();
    assert!(matches!(next(&mut outcomes).await, Outcome::Refused(_)), "the new folder is watched");
}

#[tokio::test]
async fn a_linked_file_is_followed_to_its_own_folder() {
    let (_other, elsewhere) = quiet_folder(&[("reader.yaml", READER)]);
    let (_outer, folder) = quiet_folder(&[("crm.yaml", CRM)]);
    symlink(elsewhere.join("reader.yaml"), folder.join("reader.yaml")).unwrap();
    let (rules, _drain, mut outcomes) = watched(&folder);
    write(&elsewhere, "reader.yaml", &READER.replace("items:read", "items:write"));
    while !allows(&rules.current(), &Method::PUT) {
        next(&mut outcomes).await;
    }
}

#[tokio::test]
async fn a_folder_that_is_made_anew_is_followed_again() {
    let (_outer, folder) = quiet_folder(&[("crm.yaml", CRM), ("roles/reader.yaml", READER)]);
    let (rules, _drain, mut outcomes) = watched(&folder);
    for (scope, method) in
        [("items:write", Method::PUT), ("items:read", Method::GET), ("items:write", Method::PUT)]
    {
        fs::remove_dir_all(folder.join("roles")).unwrap();
        write(&folder, "roles/reader.yaml", &READER.replace("items:read", scope));
        while !allows(&rules.current(), &method) {
            next(&mut outcomes).await;
        }
    }
}

#[tokio::test]
async fn fixed_rules_stay_also_when_watched() {
    let rules = Rules::fixed(load(&folder(&[("crm.yaml", CRM), ("reader.yaml", READER)])).unwrap());
    let (tell, mut outcomes) = unbounded_channel();
    let drain = Drain::default();
    rules.watch(&drain, move |outcome| drop(tell.send(outcome)));
    drain.finish(Duration::from_secs(20)).await;
    assert!(outcomes.recv().await.is_none(), "nothing was ever told");
    assert!(allows(&rules.current(), &Method::GET));
}

#[tokio::test]
async fn a_change_between_loading_and_watching_is_not_lost() {
    let (_outer, folder) = quiet_folder(&[("crm.yaml", CRM)]);
    let rules = Rules::load(std::slice::from_ref(&folder)).unwrap();
    write(&folder, "reader.yaml", READER);
    let (tell, mut outcomes) = unbounded_channel();
    rules.watch(&Drain::default(), move |outcome| drop(tell.send(outcome)));
    next(&mut outcomes).await;
    assert!(allows(&rules.current(), &Method::GET));
}
