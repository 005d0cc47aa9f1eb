//! The real program as a person or script runs it: what it prints where, its exit status, and what it never prints.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::evidence;

/// What the accounts of these tests hold.
const SECRET: &str = "kb-canary-cli-5d2c8f7e91";
const ROTATED: &str = "kb-canary-cli-rotated-77aa";

const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: crm}
spec:
  hosts: ["api.crm.test"]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {accounts:read: []}
  operations:
    - {name: account.read, request: "GET /echo", scopes: [accounts:read]}
---
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: metrics}
spec:
  hosts: ["{site}.metrics.test"]
  auth: {type: static, fields: [api_key, app_key]}
  inject: [{header: Api-Key, value: "{api_key}"}, {header: App-Key, value: "{app_key}"}]
  scopes: {}
  operations: []
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants: [{connector: crm, as: role, scopes: [accounts:read]}]
"#;

/// A directory with a configuration. When it is dropped, no secret may stand in any of its files but the sealed
/// store, whatever the test did.
pub(crate) struct Desk {
    pub(crate) dir: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = "data_dir: data\nlisten: {proxy: '127.0.0.1:0', admin: '127.0.0.1:0'}\n";
        fs::write(dir.path().join("keybearer.yaml"), config).unwrap();
        fs::create_dir(dir.path().join("policies")).unwrap();
        fs::write(dir.path().join("policies/policy.yaml"), POLICY).unwrap();
        Self { dir }
    }

    /// The program, set to run here with nothing from our own environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keybearer"));
        command.args(arguments).current_dir(self.dir.path()).env_clear().env("HOME", self.dir.path());
        command
    }

    /// Runs the program to its end, and sees to it that it shows no secret.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Ran {
        let pipes = |command: &mut Command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        };
        let mut child = pipes(&mut self.command(arguments)).unwrap();
        // A command that fails early has closed its end already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let ran = Ran::from(child.wait_with_output().unwrap());
        for secret in [SECRET, ROTATED] {
            assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{arguments:?}\n{ran:?}");
        }
        ran
    }

    /// Runs it, and it must be done.
    pub(crate) fn done(&self, arguments: &[&str], input: &str) -> Ran {
        let ran = self.run(arguments, input);
        assert_eq!(ran.status, 0, "{arguments:?}\n{ran:?}");
        ran
    }

    pub(crate) fn add(&self) -> Ran {
        let scopes = ["--scopes", "accounts:read"];
        self.done(&[&["account", "add", "acme/crm/role:researcher"][..], &scopes].concat(), SECRET)
    }

    /// The kinds of account events in the audit log, in order.
    fn events(&self) -> Vec<String> {
        let ran = self.done(&["audit", "query", "--kind", "account", "--output", "json"], "");
        let event =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned();
        ran.out.lines().map(event).collect()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut leaks = String::new();
        search(&self.dir.path().join("data"), &mut leaks);
        assert_eq!(leaks, "", "secrets stand in files");
    }
}

fn search(dir: &Path, leaks: &mut String) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, leaks);
            continue;
        }
        let bytes = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        if [SECRET, ROTATED].iter().any(|secret| text.contains(secret)) {
            writeln!(leaks, "{}", path.display()).unwrap();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        evidence::keep("output", &[&output.stdout[..], &output.stderr].concat());
        Self {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[test]
fn the_first_account_makes_the_vault_and_says_so_beside_the_data() {
    let desk = Desk::new();
    let added = desk.add();
    assert_eq!(added.out, "");
    assert!(
        added.err.contains("made a vault in") && added.err.contains("added acme/crm/role:researcher"),
        "{added:?}"
    );
    let mode = |name: &str| fs::metadata(desk.dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/vault.key")), (0o700, 0o600));
    let again = desk.run(&["account", "add", "acme/crm/role:researcher"], SECRET);
    assert_eq!(again.status, 1);
    assert!(
        again.err.starts_with("error: there is an account acme/crm/role:researcher already"),
        "{again:?}"
    );
}

#[test]
fn an_account_is_listed_with_the_end_of_its_secret_only() {
    let desk = Desk::new();
    desk.add();
    let table = desk.done(&["account", "list"], "").out;
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines,
        [
            vec!["ACCOUNT", "STATUS", "SCOPES", "EXPIRES", "SECRET"],
            vec!["acme/crm/role:researcher", "active", "accounts:read", "-", "…7e91"],
        ]
    );
    let listed = desk.done(&["account", "list", "--output", "json"], "").json();
    assert_eq!(listed[0]["fields"]["token"], "…7e91");
    assert_eq!(listed[0]["expires"], Value::Null);
    assert_eq!(
        desk.done(&["account", "list", "--tenant", "globex", "--output", "json"], "").json(),
        Value::Array(vec![])
    );
}

#[test]
fn an_account_goes_its_whole_way_and_every_step_is_recorded() {
    let desk = Desk::new();
    desk.add();
    let which = ["--tenant", "acme", "--connector", "crm", "--role", "researcher"];
    let with = |verb: &'static str| [&["account", verb, "--output", "json"][..], &which].concat();
    assert_eq!(desk.done(&with("rotate"), ROTATED).json()["fields"]["token"], "…77aa");
    let frozen = desk.done(&[&with("freeze")[..], &["--by", "alice"]].concat(), "").json();
    assert_eq!((frozen["status"].as_str(), frozen["frozen_by"].as_str()), (Some("frozen"), Some("alice")));
    desk.done(&with("freeze"), ""); // changes nothing, so nothing is recorded
    assert_eq!(desk.done(&with("unfreeze"), "").json()["status"], "active");
    let revoked = desk.done(&with("revoke"), "").json();
    assert_eq!(
        (revoked["status"].as_str(), revoked["fields"].as_object().unwrap().len()),
        (Some("revoked"), 0)
    );
    assert_eq!(desk.run(&with("freeze"), "").status, 1);
    assert_eq!(desk.done(&with("remove"), "").json()["removed"], "acme/crm/role:researcher");
    let steps = ["added", "rotated", "frozen", "unfrozen", "revoked", "removed"];
    assert_eq!(desk.events(), steps.map(|step| format!("account.{step}")));
}

#[test]
fn the_event_that_added_an_account_is_its_authorization() {
    let desk = Desk::new();
    desk.add();
    let shown = desk.done(&["account", "show", "acme/crm/role:researcher", "--output", "json"], "").json();
    let event = desk.done(&["audit", "tail", "-n", "1", "--output", "json"], "").json();
    assert_eq!(event["event"], "account.added");
    assert_eq!(event["id"], shown["authorization"]);
    assert_eq!(event["authorization"], shown["authorization"]);
    assert_eq!(
        (event["generation"].as_u64(), event["principal"].as_str()),
        (Some(1), Some("role:researcher"))
    );
}

#[test]
fn several_fields_come_as_json_from_a_file() {
    let desk = Desk::new();
    let file = desk.dir.path().join("keys.json");
    fs::write(&file, format!(r#"{{"api_key": "{SECRET}", "app_key": "{ROTATED}"}}"#)).unwrap();
    let account = ["account", "add", "--tenant", "acme", "--connector", "metrics", "--tenant-wide"];
    let from_file = ["--from-file", file.to_str().unwrap()];
    let no_site = desk.run(&[&account[..], &from_file].concat(), "");
    assert_eq!(no_site.status, 1);
    assert!(no_site.err.contains("add --meta site=..."), "{no_site:?}");
    let meta = ["--meta", "site=eu1", "--output", "json"];
    let added = desk.done(&[&account[..], &from_file, &meta].concat(), "").json();
    assert_eq!((&added["fields"]["api_key"], &added["metadata"]["site"]), (&"…7e91".into(), &"eu1".into()));
    let bare = desk.run(&[&["account", "rotate", "acme/metrics/tenant"][..]].concat(), SECRET);
    assert_eq!(bare.status, 1);
    assert!(bare.err.contains(r#"hint: metrics needs {"api_key": "...", "app_key": "..."}"#), "{bare:?}");
}

#[test]
fn what_does_not_fit_is_refused_with_a_way_out() {
    let desk = Desk::new();
    for (arguments, input, says) in [
        (&["account", "add", "acme/crn/tenant"][..], SECRET, "no connector crn; did you mean `crm`?"),
        (
            &["account", "add", "acme/crm/tenant", "--scopes", "accounts:raed"],
            SECRET,
            "did you mean `accounts:read`?",
        ),
        (&["account", "add", "acme/crm/tenant"], "", "the secret is empty"),
        (&["account", "add", "acme/crm/tenant"], "short", "shorter than 8 bytes"),
        (&["account", "add", "acme/crm/tenant", "--from-file", "nowhere"], "", "cannot read nowhere"),
        (&["account", "show", "acme/crm/tenant"], "", "no account acme/crm/tenant"),
        (&["connector", "show", "crn"], "", "did you mean `crm`?"),
    ] {
        let refused = desk.run(arguments, input);
        assert_eq!((refused.status, &*refused.out), (1, ""), "{arguments:?} {refused:?}");
        assert!(refused.err.contains(says), "{arguments:?} {refused:?}");
    }
}

#[test]
fn without_policy_files_an_account_cannot_be_checked_and_is_not_added() {
    let desk = Desk::new();
    fs::remove_dir_all(desk.dir.path().join("policies")).unwrap();
    let refused = desk.run(&["account", "add", "acme/crm/tenant"], SECRET);
    assert_eq!(refused.status, 1);
    assert!(
        refused.err.contains("error: there is no policy at") && refused.err.contains("hint: "),
        "{refused:?}"
    );
    assert!(!desk.dir.path().join("data").exists());
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let desk = Desk::new();
    for arguments in [
        &["frobnicate"][..],
        &["account"],
        &["account", "add"],
        &["account", "add", "acme/crm"],
        &["account", "add", "--tenant", "acme", "--connector", "crm"],
        &["account", "add", "--tenant", "acme", "--connector", "crm", "--user", "alice"],
        &["account", "add", "--tenant", "acme", "--connector", "crm", "--tenant-wide", "--role", "x"],
        &["account", "add", "acme/crm/tenant", "--tenant", "acme"],
        &["account", "add", "acme/crm/tenant", "--meta", "site"],
        &["account", "list", "--output", "xml"],
        &["audit", "verify", "--excerpt"],
        &["audit", "query", "--since", "yesterday"],
    ] {
        let refused = desk.run(arguments, "");
        assert_eq!((refused.status, &*refused.out), (2, ""), "{arguments:?} {refused:?}");
    }
    assert_eq!(desk.run(&["--help"], "").status, 0);
    assert_eq!(desk.run(&["--version"], "").out, format!("keybearer {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_secret_is_never_an_argument() {
    let desk = Desk::new();
    for arguments in [
        ["account", "add", "acme/crm/tenant", "sk-12345678"],
        ["account", "add", "acme/crm/tenant", "--secret=sk-12345678"],
        ["account", "add", "acme/crm/tenant", "--token=sk-12345678"],
    ] {
        assert_eq!(desk.run(&arguments, SECRET).status, 2, "{arguments:?}");
    }
}

#[test]
fn everything_that_prints_a_table_prints_json() {
    let desk = Desk::new();
    desk.add();
    for arguments in [
        &["account", "list"][..],
        &["account", "show", "acme/crm/role:researcher"],
        &["connector", "list"],
        &["connector", "show", "crm"],
        &["policy", "check"],
        &[
            "policy",
            "explain",
            "--tenant",
            "acme",
            "--role",
            "researcher",
            "GET",
            "https://api.crm.test/echo",
        ],
        &["vault", "init"],
        &["vault", "status"],
        &["audit", "tail", "-n", "1"],
        &["audit", "query", "--limit", "1"],
        &["audit", "verify"],
        &["ca", "show"],
        &["version"],
    ] {
        desk.done(arguments, "");
        desk.done(&[arguments, &["--output", "json"]].concat(), "").json();
    }
}

#[test]
fn another_vault_key_comes_from_a_file_a_variable_or_the_configuration() {
    let desk = Desk::new();
    desk.add();
    let first = fs::read_to_string(desk.dir.path().join("data/vault.key")).unwrap();
    let nowhere = desk.run(&["vault", "rotate-key"], "");
    assert!(nowhere.status == 2 && nowhere.err.contains("--to-file, --to-env or"), "{nowhere:?}");
    let unset = desk.run(&["vault", "rotate-key", "--to-env", "NEW_KEY"], "");
    assert!(unset.status == 1 && unset.err.contains("NEW_KEY, which is not set"), "{unset:?}");

    let rotated = desk.done(&["vault", "rotate-key", "--to-file", "second.key"], "");
    assert!(rotated.out.contains("tenants") && rotated.err.contains("before the next start"), "{rotated:?}");
    // As after a kill: the vault is sealed with the new key, the configuration names the old one.
    let again = desk.done(&["vault", "rotate-key", "--to-file", "second.key", "--output", "json"], "").json();
    assert_eq!(again["from"], again["to"]);
    let refused = desk.run(&["vault", "status"], "");
    assert!(refused.err.contains("hint: after `keybearer vault rotate-key`"), "{refused:?}");

    let config = desk.dir.path().join("keybearer.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.clone() + "vault: {key: {file: second.key}, next_key: {env: NEW_KEY}}\n")
        .unwrap();
    let mut command = desk.command(&["vault", "rotate-key"]);
    let third = Ran::from(command.env("NEW_KEY", &first).output().unwrap());
    assert_eq!(third.status, 0, "{third:?}");
    assert!(!third.err.contains(first.trim()) && !third.out.contains(first.trim()));
    fs::write(&config, text).unwrap();
    desk.done(&["account", "show", "acme/crm/role:researcher"], "");
    let events = desk.done(&["audit", "query", "--kind", "system", "--output", "json"], "").out;
    assert_eq!(events.matches("vault.key_rotated").count(), 2, "nothing was done the second time");
}

#[test]
fn a_changed_audit_log_is_status_three() {
    let desk = Desk::new();
    desk.add();
    assert!(desk.done(&["audit", "verify"], "").out.starts_with("intact: 2 lines"));
    let log = desk.dir.path().join("data/audit.jsonl");
    let text = fs::read_to_string(&log).unwrap().replace("account.added", "account.faked");
    fs::write(&log, text).unwrap();
    let found = desk.run(&["audit", "verify"], "");
    assert_eq!(found.status, 3);
    assert!(found.out.contains("this line was changed"), "{found:?}");
    let json = desk.run(&["audit", "verify", "--output", "json"], "");
    assert_eq!((json.status, &json.json()["intact"]), (3, &Value::Bool(false)));
}

#[test]
fn a_log_from_which_lines_were_cut_is_never_intact_again() {
    let desk = Desk::new();
    desk.add();
    let account = "acme/crm/role:researcher";
    let (freeze, unfreeze) = (["account", "freeze", account], ["account", "unfreeze", account]);
    desk.done(&freeze, "");
    desk.done(&unfreeze, "");
    let log = desk.dir.path().join("data/audit.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.split_inclusive('\n').take(2).collect::<String>()).unwrap();
    assert_eq!(desk.run(&["audit", "verify"], "").status, 3);
    for verb in [freeze, unfreeze] {
        desk.done(&verb, "");
        let found = desk.run(&["audit", "verify"], "");
        assert_eq!(found.status, 3);
        let faults = [
            "before this line, seq 3 to 4 are missing",
            "audit.missing: audit.head says seq 4, the files end at seq 2",
        ];
        assert!(faults.iter().all(|fault| found.out.contains(fault)), "{found:?}");
        assert!(found.out.contains("not intact, 2 faults"), "{found:?}");
    }
    let json = desk.run(&["audit", "verify", "--output", "json"], "");
    assert_eq!((json.status, &json.json()["intact"]), (3, &Value::Bool(false)));
}

#[test]
fn a_log_that_was_removed_or_cannot_be_reached_is_not_taken_for_one_that_never_was() {
    let desk = Desk::new();
    let verbs = ["verify", "tail", "query"];
    for verb in verbs {
        let found = desk.run(&["audit", verb], "");
        assert!(found.status == 1 && found.err.contains("there is no audit log"), "{verb} {found:?}");
    }
    desk.add();
    let log = desk.dir.path().join("data/audit.jsonl");
    fs::remove_file(&log).unwrap();
    let found = desk.run(&["audit", "verify"], "");
    assert!(found.status == 3 && found.out.contains("audit.head says it went on to seq 2"), "{found:?}");
    let json = desk.run(&["audit", "verify", "--output", "json"], "");
    assert_eq!((json.status, &json.json()["intact"]), (3, &Value::Bool(false)));
    // A loop is in the way of root, too, whom no permission is.
    std::os::unix::fs::symlink(&log, &log).unwrap();
    for verb in verbs {
        let found = desk.run(&["audit", verb], "");
        assert!(found.status == 1 && found.err.contains("Too many levels"), "{verb} {found:?}");
    }
}

#[test]
fn a_policy_with_faults_is_told_whole() {
    let desk = Desk::new();
    let file = desk.dir.path().join("policies/policy.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let wrong = text.replace("connector: crm", "connector: crn").replace("type: static}", "type: statik}");
    fs::write(&file, wrong).unwrap();
    let found = desk.run(&["policy", "check"], "");
    assert_eq!((found.status, &*found.out), (1, ""));
    for says in ["policy.yaml:7:", "policy.yaml:28:24: no connector crn is defined; did you mean `crm`?"] {
        assert!(found.err.contains(says), "{says} {found:?}");
    }
    let json = desk.run(&["policy", "check", "--output", "json"], "");
    assert_eq!((json.status, json.json()["findings"].as_array().unwrap().len()), (1, 2));
}

#[test]
fn the_bundle_is_the_systems_roots_and_ours() {
    let desk = Desk::new();
    let ours = desk.done(&["ca", "export"], "").out;
    let bundle = desk.done(&["ca", "export", "--bundle"], "").out;
    assert!(ours.starts_with("-----BEGIN CERTIFICATE-----"), "{ours}");
    assert!(bundle.contains(ours.trim()) && bundle.len() > ours.len());
}

#[test]
fn the_bundle_of_a_system_without_roots_is_mozillas_and_ours() {
    let desk = Desk::new();
    let ours = desk.done(&["ca", "export"], "").out;
    let mut command = desk.command(&["ca", "export", "--bundle"]);
    let bundle = Ran::from(command.env("SSL_CERT_FILE", "/dev/null").output().unwrap()).out;
    assert!(bundle.ends_with(&ours));
    assert!(bundle.matches("-----BEGIN CERTIFICATE-----").count() > 100, "{bundle}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let desk = Desk::new();
    desk.add();
    let mut child = desk
        .command(&["connector", "list"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.status, &*ran.err), (0, ""));
}
