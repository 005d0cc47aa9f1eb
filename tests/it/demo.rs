//! `keybearer demo`, as a person or a script starts it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keybearer"));
    command.arg("demo").args(arguments);
    command
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_tour_holds_and_is_plain_when_piped() {
    let shown = text(&demo(&[]).env("TERM", "xterm").output().unwrap());
    assert!(!shown.contains('\x1b') && !shown.contains("NOT AS IT SHOULD BE"), "{shown}");
    for told in [
        "200 allowed",
        "403 insufficient_scope",
        "403 destination_denied",
        "deals:write required",
        "sent Bearer …0000 as its Authorization",
        "the key of globex/crm/tenant, and no other",
        "acme    researcher  deal.update  deny      403",
        "each hash follows from the line before",
        "curl --proxy http://acme%2Fresearcher:x@127.0.0.1:7080 http://crm.demo.test/v1/deals",
    ] {
        assert!(shown.contains(told), "{told:?} is not in\n{shown}");
    }
    let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 92, "{widest} columns");
    assert!(!shown.lines().any(|line| line.ends_with(' ')));
}

/// Without what differs from run to run: ports, and what is shown of keys.
fn timeless(text: &str) -> String {
    let text: String =
        text.split("127.0.0.1:").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect();
    let mut parts = text.split('…');
    let first = parts.next().unwrap().to_owned();
    let digit = |c: char| c.is_ascii_hexdigit();
    parts.fold(first, |all, part| {
        all + "…" + part.strip_prefix(digit).map_or(part, |rest| rest.trim_start_matches(digit))
    })
}

#[test]
fn the_readme_shows_what_the_demo_says() {
    let readme = include_str!("../../README.md");
    let block = readme.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(timeless(block), timeless(&text(&demo(&[]).output().unwrap())));
}

#[test]
fn it_shows_no_key_whole() {
    for output in [demo(&[]).output().unwrap(), demo(&["--output", "json"]).output().unwrap()] {
        let shown = text(&output);
        // A key is `crm_` and 32 hexadecimal digits.
        let whole = shown
            .match_indices("crm_")
            .find(|(at, _)| shown[at + 4..].bytes().take(32).filter(u8::is_ascii_hexdigit).count() >= 8);
        assert_eq!(whole, None);
    }
}

#[test]
fn as_json_it_is_one_document() {
    let shown: Value = serde_json::from_str(&text(&demo(&["--output", "json"]).output().unwrap())).unwrap();
    assert_eq!(shown["held"], true);
    assert_eq!(shown["audit"]["intact"], true);
    let steps = shown["steps"].as_array().unwrap();
    let outcomes: Vec<_> = steps.iter().map(|step| step["outcome"]["status"].as_u64().unwrap()).collect();
    assert_eq!(outcomes, [200, 200, 200, 403, 201, 200, 403]);
    assert_eq!(steps[3]["outcome"]["reached"], 0);
    assert_eq!(shown["audit"]["actions"].as_array().unwrap().len(), steps.len());
}

#[test]
fn kept_running_its_lines_work_until_ctrl_c() {
    let mut kept = demo(&["--keep"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut curls = Vec::new();
    let mut data_dir = String::new();
    for line in BufReader::new(kept.stdout.take().unwrap()).lines() {
        let line = line.unwrap().trim().to_owned();
        if line.starts_with("curl ") {
            curls.push(line);
        } else if let Some(rest) = line.strip_prefix("KEYBEARER_DATA_DIR=") {
            rest.split(' ').next().unwrap().clone_into(&mut data_dir);
            break;
        }
    }
    let answers: Vec<String> = curls.iter().map(|line| text(&sh(line))).collect();
    assert!(answers[0].contains("\"customer\":\"acme\""), "{answers:?}");
    assert!(answers[1].contains("\"customer\":\"globex\""), "{answers:?}");
    assert!(answers[2].contains("operation_unknown"), "{answers:?}");
    assert!(Path::new(&data_dir).is_dir());
    kill(Pid::from_raw(i32::try_from(kept.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(kept.wait().unwrap().success());
    assert!(!Path::new(&data_dir).exists(), "{data_dir} is still there");
}

fn sh(line: &str) -> Output {
    Command::new("sh").arg("-c").arg(line).env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap()
}
