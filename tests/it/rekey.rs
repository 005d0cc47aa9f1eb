//! Another vault key on PostgreSQL: with several replicas, one of which was not told, and killed in between.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use keybearer::{
    drain::Drain,
    vault::{Backend, Claim, Config, DatabaseUrl, Error, Fingerprint, KeySource, Url, Vault},
};

use crate::{
    cli::Desk,
    laws::wire::until,
    support::{
        agent::Answer,
        evidence,
        issuer::{Issuer, Profile},
        postgres::Postgres,
        provider::TestAuthority,
        records::{self, URL, account, key},
        relay::{Relay, Side},
        stage::Stage,
    },
};

/// Makes a key in this file.
fn made(file: &Path) -> Fingerprint {
    let source = KeySource::File(file.to_owned());
    assert!(source.text_or_new().unwrap().1, "{} is new", file.display());
    source.fingerprint().unwrap()
}

async fn open(url: &str, dir: &Path, key: &Path, next: Option<&PathBuf>) -> Result<Vault, Error> {
    let config = Config {
        backend: Backend::Postgres,
        url: Some(Url::Database(DatabaseUrl::parse(url).unwrap())),
        key: Some(KeySource::File(key.to_owned())),
        next_key: next.cloned().map(KeySource::File),
        timeout: Duration::from_mins(1),
        ..Config::default()
    };
    let claim = Claim { command: "a test".to_owned(), admin_socket: None };
    Vault::open(&config, dir, &claim, &Drain::default()).await
}

async fn get(stage: &Stage, tenant: &str) -> Answer {
    stage.get(tenant, "researcher", URL).await
}

/// Waits until the replica answers so: 200, or this refusal.
async fn becomes(stage: &Stage, tenant: &str, expected: &str) {
    until(&format!("{tenant}: {expected}"), async || {
        let answer = get(stage, tenant).await;
        let told = answer.error().unwrap_or_else(|| answer.status.as_str().to_owned());
        (told == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_only_the_old_key_refuses_what_it_cannot_open_until_it_is_given_the_new_one() {
    let (folder, url) = (tempfile::tempdir().unwrap(), Postgres::shared().database().await);
    let [old, copy, new] = ["old", "copy", "new"].map(|name| folder.path().join(name));
    made(&old);
    fs::copy(&old, &copy).unwrap();
    let expected = made(&new);
    let authority = TestAuthority::new();
    let issuer = Issuer::start(&authority, Profile::default()).await;
    let section = |key: &Path, more: &str| {
        let key = key.display();
        format!("vault: {{backend: postgres, url: '{url}', timeout: 1m, key: {{file: {key}}}{more}}}\n")
    };
    let next = format!(", next_key: {{file: {}}}", new.display());
    let told = Stage::set(records::staging(&section(&old, &next), &issuer, &authority)).await;
    let untold = Stage::set(records::staging(&section(&copy, ""), &issuer, &authority)).await;
    for (tenant, hours) in [("living", 1), ("over", -1), ("later", -1)] {
        let new = account(tenant, issuer.consent(tenant, &["read"]), hours);
        told.app().vault.add(new).await.unwrap();
    }
    becomes(&untold, "living", "200").await;

    let done = told.app().vault.rotate_key(&KeySource::File(new.clone())).await.unwrap();
    assert_eq!((done.to, done.tenants), (expected, 3));
    assert_eq!(get(&told, "over").await.status, 200);
    assert_eq!(get(&untold, "living").await.status, 200, "it knows this one, and nothing has changed");
    for _ in 0..3 {
        let refused = get(&untold, "later").await;
        assert_eq!(refused.error().as_deref(), Some("vault_unavailable"));
        assert!(refused.headers.contains_key("retry-after"));
    }
    assert_eq!(issuer.presented("later"), [0_usize; 0], "what could not be kept was not sent");
    let logged = String::from_utf8(evidence::log()).unwrap();
    assert!(logged.contains(&format!("it is sealed with the key {expected}")), "an operator is told");
    told.app().vault.freeze(&key("living"), "alice").await.unwrap();
    becomes(&untold, "living", "vault_unavailable").await;

    let data = tempfile::tempdir().unwrap();
    let refused = open(&url, data.path(), &copy, None).await.err().unwrap();
    assert!(matches!(refused, Error::WrongKey { expected: wanted, .. } if wanted == expected), "{refused}");

    fs::rename(&new, &copy).unwrap();
    assert_eq!(get(&untold, "later").await.status, 200, "without a restart");
    becomes(&untold, "living", "account_frozen").await;
    assert_eq!(issuer.presented("later"), [1]);
}

/// What `vault rotate-key` asks of the database when it writes.
const STEPS: [&str; 4] =
    ["header = $1 FOR UPDATE", "UPDATE keybearer.data_keys", "UPDATE keybearer.header", "COMMIT"];

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_at_any_step_leaves_one_key_that_opens_everything() {
    const TENANTS: usize = 5;
    let (folder, url) = (tempfile::tempdir().unwrap(), Postgres::shared().database().await);
    let vault = records::open(&url, folder.path()).await;
    let sold = async || Issuer::start(&TestAuthority::new(), Profile::default()).await.consent("acme", &[]);
    for number in 0..TENANTS {
        vault.add(account(&format!("tenant-{number}"), sold().await, 1)).await.unwrap();
    }
    drop(vault);
    let (dir, old, new) = (folder.path(), folder.path().join("key"), folder.path().join("new"));
    made(&new);
    let replica = open(&url, dir, &old, Some(&new)).await.unwrap();
    let sides = STEPS.iter().flat_map(|step| [(*step, Side::Before), (*step, Side::After)]);
    for (step, side) in sides {
        let relay = Relay::before(&url);
        relay.stop_at(step, side);
        let desk = Desk::new();
        let file = desk.dir.path().join("keybearer.yaml");
        let (text, section) = (fs::read_to_string(&file).unwrap(), records::vault(&relay.url(&url), dir));
        fs::write(file, format!("{text}{section}")).unwrap();
        let mut command = desk.command(&["vault", "rotate-key", "--to-file"]);
        let mut child = command.arg(&new).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        relay.stopped().await;
        child.kill().unwrap();
        child.wait().unwrap();
        drop(relay);

        let (with_old, with_new) = (open(&url, dir, &old, None).await, open(&url, dir, &new, None).await);
        let is_done = (step, side) == ("COMMIT", Side::After);
        let (opened, refused) = if is_done { (with_new, with_old) } else { (with_old, with_new) };
        assert_eq!(opened.unwrap().list(None).await.unwrap().len(), TENANTS, "{side:?} {step}");
        assert!(matches!(refused, Err(Error::WrongKey { .. })), "{side:?} {step}");
        assert_eq!(replica.list(None).await.unwrap().len(), TENANTS, "the one that goes on");
        println!("killed {side:?} {step:?}: the {} key opens it", if is_done { "new" } else { "old" });
    }
}
