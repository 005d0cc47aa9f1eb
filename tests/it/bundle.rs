//! Signed bundles from outside: made by the command, named in the configuration, followed by a proxy that runs.

use std::{fs, path::Path};

use keybearer::{app::App, config::Config};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm};
use serde_json::Value;

use crate::{
    cli::{Desk, Ran},
    laws::wire::until,
};

/// Writes a private key; gives the line of its PEM that must be seen nowhere.
fn make_key(desk: &Desk, name: &str, algorithm: &'static SignatureAlgorithm) -> String {
    let pem = KeyPair::generate_for(algorithm).unwrap().serialize_pem();
    fs::write(desk.dir.path().join(name), &pem).unwrap();
    pem.lines().nth(1).unwrap().to_owned()
}

fn write(desk: &Desk, name: &str, text: &str) {
    fs::write(desk.dir.path().join(name), text).unwrap();
}

fn bundle(desk: &Desk) -> Ran {
    desk.done(&["policy", "bundle", "--key", "key.pem", "--out", "policy.jws", "./policies"], "")
}

/// A desk with a bundle of its policies and the key set that it is believed by, and nothing else.
fn with_bundle() -> Desk {
    let desk = Desk::new();
    make_key(&desk, "key.pem", &PKCS_ED25519);
    write(&desk, "keys.json", &desk.done(&["policy", "keys", "key.pem"], "").out);
    bundle(&desk);
    let config = "data_dir: data\nlisten: {proxy: '127.0.0.1:0', admin: '127.0.0.1:0'}\n\
                  policies: [{bundle: policy.jws, keys: keys.json}]\n";
    write(&desk, "keybearer.yaml", config);
    desk
}

#[test]
fn a_bundle_is_made_checked_and_asked_as_the_files_are() {
    let desk = Desk::new();
    let checked = desk.done(&["policy", "check", "--output", "json"], "").json();
    for (name, algorithm) in [("ed.pem", &PKCS_ED25519), ("es.pem", &PKCS_ECDSA_P256_SHA256)] {
        let private = make_key(&desk, name, algorithm);
        let keys = desk.done(&["policy", "keys", name], "");
        write(&desk, "keys.json", &keys.out);
        let made = desk.done(&["policy", "bundle", "--key", name, "--out", "policy.jws", "policies"], "");
        assert!(made.out.starts_with("ok: policy.jws: 1 file signed by "), "{made:?}");
        assert!(
            made.out.contains(&format!("(revision {})", checked["revision"].as_str().unwrap())),
            "{made:?}"
        );
        let bundle = fs::read_to_string(desk.dir.path().join("policy.jws")).unwrap();
        assert!(!bundle.contains(&private) && !keys.out.contains(&private));

        let signed = ["--bundle", "policy.jws", "--keys", "keys.json"];
        let same = desk.done(&[&["policy", "check", "--output", "json"][..], &signed].concat(), "").json();
        assert_eq!(same, checked);
        let question = ["policy", "explain", "--tenant", "acme", "--role", "researcher", "--output", "json"];
        let request = ["GET", "https://api.crm.test/echo"];
        let told = desk.done(&[&question[..], &signed, &request].concat(), "").json();
        assert_eq!(told["rule_at"], "policy.jws/policies/policy.yaml:28", "{told}");
    }
}

#[test]
fn a_bundle_goes_to_standard_output_or_into_json() {
    let desk = Desk::new();
    make_key(&desk, "key.pem", &PKCS_ED25519);
    let made = desk.done(&["policy", "bundle", "--key", "key.pem", "--key-id", "ci", "policies"], "");
    assert_eq!((made.out.lines().count(), made.out.split('.').count()), (1, 3), "{made:?}");
    assert!(made.err.starts_with("ok: 1 file signed by ci (revision "), "{made:?}");
    let json =
        desk.done(&["policy", "bundle", "--key", "key.pem", "--output", "json", "policies"], "").json();
    assert_eq!((&json["roles"], &json["connectors"]), (&1.into(), &2.into()));
    assert_eq!(json["bundle"].as_str().unwrap().split('.').count(), 3);
    assert_eq!(json["key_id"].as_str().unwrap().len(), 43);
    let out = ["policy", "bundle", "--key", "key.pem", "--out", "p.jws", "--output", "json", "policies"];
    let json = desk.done(&out, "").json();
    assert_eq!((&json["out"], json.get("bundle")), (&"p.jws".into(), None));
}

#[test]
fn a_bad_policy_a_bad_key_and_half_of_the_options_are_refused() {
    let desk = Desk::new();
    make_key(&desk, "key.pem", &PKCS_ED25519);
    make_key(&desk, "rsa.pem", &PKCS_RSA_SHA256);
    let told = desk.run(&["policy", "bundle", "--key", "rsa.pem", "policies"], "");
    assert!(told.status == 1 && told.err.contains("rsa.pem: this is no private key for bundles"), "{told:?}");
    let told = desk.run(&["policy", "keys", "nowhere.pem"], "");
    assert!(told.status == 1 && told.err.contains("nowhere.pem: No such file"), "{told:?}");
    for arguments in [
        &["policy", "bundle", "--key", "key.pem"][..],
        &["policy", "bundle", "policies"],
        &["policy", "check", "--bundle", "policy.jws"],
        &["policy", "check", "--keys", "keys.json"],
    ] {
        assert_eq!(desk.run(arguments, "").status, 2, "{arguments:?}");
    }
    let file = desk.dir.path().join("policies/policy.yaml");
    let wrong = fs::read_to_string(&file).unwrap().replace("connector: crm", "connector: crn");
    fs::write(&file, wrong).unwrap();
    let told = desk.run(&["policy", "bundle", "--key", "key.pem", "--out", "policy.jws", "policies"], "");
    assert!(told.status == 1 && told.err.contains("policy.yaml:28:24: no connector crn"), "{told:?}");
    let json = desk.run(&["policy", "bundle", "--key", "key.pem", "--output", "json", "policies"], "");
    assert_eq!((json.status, json.json()["findings"].as_array().unwrap().len()), (1, 1));
    assert!(!desk.dir.path().join("policy.jws").exists(), "nothing was signed");
}

#[test]
fn what_is_missing_or_not_believed_is_said() {
    let desk = with_bundle();
    assert!(desk.done(&["connector", "list"], "").out.contains("crm"));
    make_key(&desk, "other.pem", &PKCS_ED25519);
    write(&desk, "keys.json", &desk.done(&["policy", "keys", "other.pem"], "").out);
    let told = desk.run(&["connector", "list"], "");
    assert!(
        told.status == 1 && told.err.contains("policy.jws: is signed with a key that is not in"),
        "{told:?}"
    );
    write(&desk, "keys.json", &desk.done(&["policy", "keys", "other.pem", "key.pem"], "").out);
    desk.done(&["connector", "list"], "");
    fs::remove_file(desk.dir.path().join("keys.json")).unwrap();
    let told = desk.run(&["connector", "list"], "");
    assert!(told.err.contains("error: there is no policy at keys.json"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_proxy_takes_a_new_bundle_and_no_older_one() {
    keybearer::tls::init_crypto();
    let desk = with_bundle();
    let old = fs::read(desk.dir.path().join("policy.jws")).unwrap();
    let app = App::start(Config::load(Some(&desk.dir.path().join("keybearer.yaml"))).unwrap()).await.unwrap();
    let first = app.rules.current().revision.clone();

    let file = desk.dir.path().join("policies/policy.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}# another\n")).unwrap();
    // A second is what tells two bundles apart; nobody waits for it here.
    bundle_of_tomorrow(desk.dir.path());
    let newer = until("the new bundle is in use", async || {
        let rules = app.rules.current();
        (rules.revision != first).then(|| rules.revision.clone())
    })
    .await;

    replace(desk.dir.path(), &old);
    let why = until("the old one is refused", async || app.rules.trouble()).await;
    assert!(why.contains("before the one in use"), "{why}");
    assert_eq!(app.rules.current().revision, newer);
    let told = until("it is recorded", async || {
        app.flush().await.unwrap();
        let log = fs::read_to_string(desk.dir.path().join("data/audit.jsonl")).unwrap();
        let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.into_iter().find(|event| event["event"] == "policy.refused")
    })
    .await;
    assert!(told["detail"].as_str().unwrap().contains("before the one in use"), "{told}");
    app.stop().await;
}

/// Signs the folder as it is with the key, dated a day ahead.
fn bundle_of_tomorrow(dir: &Path) {
    let pem = keybearer::secret::Secret::new(fs::read(dir.join("key.pem")).unwrap());
    let key = keybearer::ruleset::BundleKey::from_pem(&pem, None).unwrap();
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let signed = keybearer::ruleset::bundle(&[dir.join("policies")], &key, tomorrow).unwrap();
    replace(dir, signed.text.as_bytes());
}

fn replace(dir: &Path, bundle: &[u8]) {
    fs::write(dir.join("next.jws"), bundle).unwrap();
    fs::rename(dir.join("next.jws"), dir.join("policy.jws")).unwrap();
}
