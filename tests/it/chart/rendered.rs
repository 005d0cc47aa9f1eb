//! The chart as Helm's own code renders it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use serde::Deserialize;
use serde_json::{Value, json};

/// The sets of values, by their files' names, and what each renders to as the release `keybearer` in the namespace of
/// that name.
pub(super) static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let values = values();
    let rendered = render(values.iter().map(|(_, text)| text.as_str()));
    let named = values.into_iter().zip(rendered);
    named.map(|((name, values), rendered)| Case { name, values, rendered }).collect()
});

pub(super) struct Case {
    pub(super) name: String,
    pub(super) values: String,
    rendered: Rendered,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rendered {
    /// What Helm's linter finds.
    pub(super) lint: Vec<Value>,
    /// Why it does not render.
    pub(super) error: String,
    /// By the template's path.
    pub(super) files: BTreeMap<String, String>,
    pub(super) objects: Vec<Value>,
}

impl std::ops::Deref for Case {
    type Target = Rendered;

    fn deref(&self) -> &Rendered {
        &self.rendered
    }
}

pub(super) fn case(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name).unwrap()
}

impl Rendered {
    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    pub(super) fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.of_kind(kind).find(|object| object["metadata"]["name"] == name)
    }

    /// A file of the first `ConfigMap` that has it.
    pub(super) fn settings(&self, file: &str) -> Option<&str> {
        self.of_kind("ConfigMap").find_map(|map| map["data"][file].as_str())
    }

    /// All of it as one text, but for what is made by chance.
    pub(super) fn text(&self) -> String {
        let sections = self.files.iter().map(|(path, text)| format!("# {path}\n{}\n", text.trim()));
        let text = sections.collect::<Vec<_>>().join("\n");
        let text = connectors().iter().fold(text, |text, (file, content)| {
            text.replace(&indented(content), &format!("    (policies/connectors/{file})\n"))
        });
        text.lines().fold(String::new(), |all, line| all + &masked(line) + "\n")
    }
}

/// What comes with keybearer, by the files' names.
pub(super) fn connectors() -> BTreeMap<String, String> {
    let files = fs::read_dir(folder().join("connectors")).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
    };
    files.map(named).collect()
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + "    " + line + "\n")
}

fn masked(line: &str) -> String {
    let made = ["  tls.crt: ", "  tls.key: ", "  ca.crt: "].into_iter().find(|key| line.starts_with(key));
    made.map_or_else(|| line.to_owned(), |key| format!("{key}(made by the chart)"))
}

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/keybearer")
}

fn values() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/chart/values");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| {
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
    };
    let mut all: Vec<_> = files.map(named).collect();
    all.sort();
    all
}

/// Renders the chart with each of these values, all at once: loading Helm takes longer than rendering.
pub(super) fn render<'a>(values: impl Iterator<Item = &'a str>) -> Vec<Rendered> {
    let case = |values: &str| json!({"values": values, "name": "keybearer", "namespace": "keybearer"});
    asked(&values.map(case).collect::<Vec<_>>())
}

/// Renders the chart's defaults as an upgrade of a cluster that has these Secrets.
pub(super) fn upgrade(there: &[&Value]) -> Rendered {
    let case = json!({"values": "{}", "name": "keybearer", "namespace": "keybearer", "there": there});
    asked(&[case]).remove(0)
}

fn asked(cases: &[Value]) -> Vec<Rendered> {
    let wanted = json!({"chart": folder(), "cases": cases});
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut python = Command::new(tests.join(".cache/venv/bin/python"))
        .arg(tests.join("clients/helm_chart.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Helm says of each start that it follows the link to the connectors.
        .stderr(Stdio::piped())
        .spawn()
        .expect("tests/setup.sh installs it");
    python.stdin.take().unwrap().write_all(wanted.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
