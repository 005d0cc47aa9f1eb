use std::{fs, path::PathBuf};

use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    super::{
        Outcome, Rules,
        tests::{CRM, READER, allows, next, quiet_folder},
    },
    *,
};
use crate::{drain::Drain, identity::Workload};

const NOW: i64 = 1_800_000_000;

fn pem(algorithm: &'static rcgen::SignatureAlgorithm) -> Secret {
    Secret::new(KeyPair::generate_for(algorithm).unwrap().serialize_pem().into_bytes())
}

fn ed25519() -> BundleKey {
    BundleKey::from_pem(&pem(&PKCS_ED25519), None).unwrap()
}

fn named(id: &str) -> BundleKey {
    BundleKey::from_pem(&pem(&PKCS_ED25519), Some(id.to_owned())).unwrap()
}

/// A folder with `policies/`, from which bundles are made, and `served/`, where they and their keys lie.
struct Desk {
    _outer: TempDir,
    path: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let (outer, path) = quiet_folder(&[
            ("policies/roles/reader.yaml", READER),
            ("policies/roles.yaml", LOCAL_ROLE),
            ("policies/crm.yaml", CRM),
            ("served/keys.json", ""),
        ]);
        Self { _outer: outer, path }
    }

    fn origin(&self) -> Origin {
        Origin::Bundle { bundle: self.bundle(), keys: self.path.join("served/keys.json") }
    }

    fn bundle(&self) -> PathBuf {
        self.path.join("served/policy.jws")
    }

    fn trust(&self, keys: &[&BundleKey]) {
        let public: Vec<_> = keys.iter().map(|key| key.public()).collect();
        self.put("keys.json", json!({ "keys": public }).to_string().as_bytes());
    }

    /// As whoever deploys files does: whole.
    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path.join("served").join(name);
        fs::write(path.with_added_extension("new"), bytes).unwrap();
        fs::rename(path.with_added_extension("new"), path).unwrap();
    }

    fn signed(&self, key: &BundleKey, made: i64) -> Signed {
        bundle(&[self.path.join("policies")], key, Timestamp::from_second(made).unwrap()).unwrap()
    }

    fn sign(&self, key: &BundleKey, made: i64) {
        self.put("policy.jws", self.signed(key, made).text.as_bytes());
    }

    fn edit(&self, name: &str, text: &str) {
        fs::write(self.path.join("policies").join(name), text).unwrap();
    }

    /// What is wrong with the bundle, without the folder's path.
    fn refusal(&self) -> String {
        let error = Ruleset::load(&[self.origin()]).unwrap_err().to_string();
        error.replace(&format!("{}/", self.path.display()), "")
    }
}

const LOCAL_ROLE: &str =
    "apiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {name: idle}\nspec: {tenants: ['*']}\n";

#[test]
fn a_bundle_is_the_policy_of_its_files_whichever_key_signed_it() {
    let desk = Desk::new();
    let folder = Ruleset::load(&[desk.path.join("policies")]).unwrap();
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
        let key = BundleKey::from_pem(&pem(algorithm), None).unwrap();
        desk.trust(&[&ed25519(), &key]);
        desk.sign(&key, NOW);
        let rules = Ruleset::load(&[desk.origin()]).unwrap();
        assert_eq!(rules.summary(), folder.summary());
        assert!(allows(&rules, &Method::GET) && !allows(&rules, &Method::PUT));
    }
}

#[test]
fn files_keep_their_names_and_findings_say_in_which_bundle_they_are() {
    let desk = Desk::new();
    let key = ed25519();
    desk.trust(&[&key]);
    desk.sign(&key, NOW);
    let again = desk.path.join("policies/roles/reader.yaml");
    let error = Ruleset::load(&[desk.origin(), Origin::Path(again)]).unwrap_err().to_string();
    assert!(error.contains("Role reader is already defined at"), "{error}");
    let names = Ruleset::load(&[desk.origin()]).unwrap().excerpt(&Workload::Local).files;
    let below = desk.path.strip_prefix("/").unwrap().join("policies/crm.yaml");
    assert_eq!(names[0].name, desk.bundle().join(below).display().to_string());
}

#[test]
fn what_cannot_be_believed_is_refused_and_says_what_to_do() {
    let (desk, key) = (Desk::new(), named("policy"));
    assert!(desk.refusal().starts_with("served/keys.json: has no keys for bundles: not a JSON Web Key Set"));
    desk.trust(&[&key]);
    assert!(desk.refusal().starts_with("served/policy.jws: cannot be read: No such file"));

    let text = desk.signed(&key, NOW).text;
    let (head, signature) = text.rsplit_once('.').unwrap();
    let other = desk.signed(&key, NOW + 1).text;
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", head.split_once('.').unwrap().1);
    for (bytes, says) in [
        (CRM.as_bytes(), "is no signed bundle: make one with `keybearer policy bundle`"),
        (unsigned.as_bytes(), "is no signed bundle: make one with `keybearer policy bundle`"),
        (format!("{head}.").as_bytes(), "was changed after it was signed"),
        (
            format!("{}.{signature}", other.rsplit_once('.').unwrap().0).as_bytes(),
            "was changed after it was signed",
        ),
        (
            desk.signed(&named("policy"), NOW).text.as_bytes(),
            "was changed after it was signed, or signed by somebody else",
        ),
        (
            desk.signed(&ed25519(), NOW).text.as_bytes(),
            "is signed with a key that is not in served/keys.json",
        ),
    ] {
        desk.put("policy.jws", bytes);
        let refusal = desk.refusal();
        assert!(refusal.starts_with(&format!("served/policy.jws: {says}")), "{says}\n{refusal}");
    }
    desk.put("policy.jws", format!("\n{text}\n").as_bytes());
    assert!(Ruleset::load(&[desk.origin()]).is_ok(), "an end of line changes nothing");
}

#[test]
fn what_the_key_signs_besides_bundles_is_none() {
    let (desk, text) = (Desk::new(), pem(&PKCS_ED25519));
    let key = BundleKey::from_pem(&text, Some("policy".to_owned())).unwrap();
    desk.trust(&[&key]);
    #[expect(clippy::disallowed_methods, reason = "a key that the test has made")]
    let private = EncodingKey::from_ed_pem(text.expose()).unwrap();
    let files = json!([{"name": "crm.yaml", "text": CRM}]);
    let good = json!({"iat": NOW, "revision": revision(&[File { name: String::new(), text: CRM.to_owned() }]), "files": files});
    let with = |member: &str, value: Value| {
        let mut claims = good.clone();
        claims[member] = value;
        claims
    };
    for (typ, claims, says) in [
        (Some("JWT"), good.clone(), "is signed, but is no bundle"),
        (None, good.clone(), "is signed, but is no bundle"),
        (Some(TYP), json!({"iat": NOW}), "is a bundle of another version: make it anew (missing field"),
        (Some(TYP), with("iat", json!("today")), "is a bundle of another version"),
        (Some(TYP), with("iat", json!(i64::MAX)), "does not say when it was made"),
        (Some(TYP), with("revision", json!("aaaaaaaaaaaa")), "names another revision than that of its files"),
    ] {
        let header = Header {
            typ: typ.map(str::to_owned),
            kid: Some("policy".to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        desk.put("policy.jws", jsonwebtoken::encode(&header, &claims, &private).unwrap().as_bytes());
        let refusal = desk.refusal();
        assert!(refusal.starts_with(&format!("served/policy.jws: {says}")), "{says}\n{refusal}");
    }
    let header =
        Header { typ: Some(TYP.to_owned()), kid: Some("policy".to_owned()), ..Header::new(Algorithm::EdDSA) };
    desk.put("policy.jws", jsonwebtoken::encode(&header, &good, &private).unwrap().as_bytes());
    assert!(Ruleset::load(&[desk.origin()]).is_ok(), "the same, as a bundle");
}

#[test]
fn what_is_too_large_is_not_read() {
    let (desk, key) = (Desk::new(), ed25519());
    desk.trust(&[&key]);
    desk.put("policy.jws", b"");
    fs::File::options().write(true).open(desk.bundle()).unwrap().set_len(MAX_BUNDLE + 1).unwrap();
    assert_eq!(
        desk.refusal(),
        "served/policy.jws: cannot be read: a bundle larger than 16 MiB: name fewer files"
    );

    let comment = format!("# {}\n", "x".repeat(4 << 20 >> 1));
    for number in 0..7 {
        desk.edit(&format!("large-{number}.yaml"), &comment);
    }
    let error = bundle(&[desk.path.join("policies")], &key, Timestamp::UNIX_EPOCH).unwrap_err().to_string();
    assert!(error.ends_with("policies: makes a bundle larger than 16 MiB: name fewer files"), "{error}");
}

#[test]
fn a_bundle_named_without_its_keys_is_told_from_a_policy_file() {
    let (desk, key) = (Desk::new(), ed25519());
    desk.sign(&key, NOW);
    let error = Ruleset::load(&[desk.bundle()]).unwrap_err().to_string();
    assert!(
        error.contains("policy.jws: is a signed bundle: name it with the keys that may sign it"),
        "{error}"
    );
}

#[test]
fn a_bad_policy_is_not_signed() {
    let (desk, key) = (Desk::new(), ed25519());
    desk.edit("roles.yaml", &LOCAL_ROLE.replace("tenants", "tenant"));
    let error = bundle(&[desk.path.join("policies")], &key, Timestamp::UNIX_EPOCH).unwrap_err().to_string();
    assert!(error.contains("roles.yaml:4:8: unknown field `tenant`"), "{error}");
}

#[test]
fn keys_of_other_kinds_sign_no_bundles() {
    for algorithm in [&PKCS_RSA_SHA256, &PKCS_ECDSA_P384_SHA384] {
        assert_eq!(BundleKey::from_pem(&pem(algorithm), None).err(), Some(UnfitKey));
    }
    for text in ["", "kb-canary-no-pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert_eq!(BundleKey::from_pem(&Secret::new(text.into()), None).err(), Some(UnfitKey), "{text}");
    }
    let key = ed25519();
    let shown = serde_json::to_value(key.public()).unwrap();
    assert_eq!((&shown["kid"], &shown["alg"]), (&json!(key.id()), &json!("EdDSA")));
    assert_eq!(key.id().len(), 43, "a SHA-256 in base64url");
    assert!(shown.get("d").is_none() && !format!("{key:?}").contains("private"));
}

fn watched(desk: &Desk) -> (Rules, Drain, UnboundedReceiver<Outcome>) {
    let rules = Rules::load(&[desk.origin()]).unwrap();
    let (drain, (tell, outcomes)) = (Drain::default(), unbounded_channel());
    rules.watch(&drain, move |outcome| drop(tell.send(outcome)));
    (rules, drain, outcomes)
}

async fn refused(outcomes: &mut UnboundedReceiver<Outcome>) -> String {
    match next(outcomes).await {
        Outcome::Refused(error) => error.to_string(),
        Outcome::Loaded(summary) => panic!("loaded {summary:?}"),
    }
}

async fn loaded(outcomes: &mut UnboundedReceiver<Outcome>) -> Arc<str> {
    match next(outcomes).await {
        Outcome::Loaded(summary) => summary.revision,
        Outcome::Refused(error) => panic!("refused: {error}"),
    }
}

#[tokio::test]
async fn a_new_bundle_is_taken_and_one_that_is_not_believed_leaves_the_last_good_one() {
    let (desk, key) = (Desk::new(), ed25519());
    desk.trust(&[&key]);
    desk.sign(&key, NOW);
    let (rules, _drain, mut outcomes) = watched(&desk);
    let first = rules.current().revision.clone();

    desk.edit("roles/reader.yaml", &READER.replace("items:read", "items:write"));
    desk.sign(&key, NOW + 1);
    let second = loaded(&mut outcomes).await;
    assert_ne!(first, second);
    assert!(allows(&rules.current(), &Method::PUT) && !allows(&rules.current(), &Method::GET));

    desk.put("policy.jws", desk.signed(&named("stranger"), NOW + 2).text.as_bytes());
    assert!(refused(&mut outcomes).await.contains("is signed with a key that is not in"));
    assert_eq!(rules.current().revision, second);
    assert!(rules.trouble().unwrap().contains("the last good ones stay (1 problem; "));

    desk.sign(&key, NOW + 2);
    assert_eq!(loaded(&mut outcomes).await, second);
    assert_eq!(rules.trouble(), None);
}

#[tokio::test]
async fn an_older_bundle_is_refused_while_a_newer_one_is_in_use() {
    let (desk, key) = (Desk::new(), ed25519());
    desk.trust(&[&key]);
    desk.sign(&key, NOW);
    let old = fs::read(desk.bundle()).unwrap();
    let (rules, _drain, mut outcomes) = watched(&desk);

    desk.edit("roles/reader.yaml", &READER.replace("items:read", "items:write"));
    desk.sign(&key, NOW + 60);
    let newer = loaded(&mut outcomes).await;
    desk.put("policy.jws", &old);
    let says = refused(&mut outcomes).await;
    assert!(
        says.contains(
            "was made at 2027-01-15T08:00:00Z, before the one in use (made at 2027-01-15T08:01:00Z)"
        ),
        "{says}"
    );
    assert_eq!(rules.current().revision, newer);

    // One that is newer and bad is not in use, so that it does not count.
    desk.put("policy.jws", desk.signed(&named("stranger"), NOW + 600).text.as_bytes());
    assert!(refused(&mut outcomes).await.contains("is signed with a key that is not in"));
    desk.edit("roles/reader.yaml", READER);
    desk.sign(&key, NOW + 60);
    assert_ne!(loaded(&mut outcomes).await, newer, "made at the same moment");
    assert!(allows(&rules.current(), &Method::GET));
}

#[tokio::test]
async fn keys_are_followed_as_bundles_are() {
    let (desk, key, next_key) = (Desk::new(), ed25519(), ed25519());
    desk.trust(&[&key]);
    desk.sign(&key, NOW);
    let (rules, _drain, mut outcomes) = watched(&desk);
    let first = rules.current().revision.clone();

    desk.trust(&[&next_key]);
    assert!(refused(&mut outcomes).await.contains("is signed with a key that is not in"));
    assert_eq!(rules.current().revision, first, "the last good one stays");
    desk.sign(&next_key, NOW);
    assert_eq!(loaded(&mut outcomes).await, first);
    desk.put("keys.json", b"[]");
    assert!(refused(&mut outcomes).await.contains("keys.json: has no keys for bundles"));
    desk.trust(&[&next_key, &key]);
    assert_eq!(loaded(&mut outcomes).await, first);
}
