//! What holds of opening and making a vault.

use std::fs;

use super::*;

#[tokio::test]
async fn init_makes_what_is_missing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::default();
    assert!(matches!(open(dir.path()).await, Err(Error::NoVault(_))));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "opening makes nothing");
    assert_eq!(init_with(&config, dir.path()).await.unwrap(), Initialised { key: true, store: true });
    assert_eq!(init_with(&config, dir.path()).await.unwrap(), Initialised { key: false, store: false });
    assert!(open(dir.path()).await.is_ok());
    assert_eq!(
        init_with(&value_key(7), &dir.path().join("other")).await.unwrap(),
        Initialised { key: false, store: true }
    );
}

#[tokio::test]
async fn accounts_are_there_after_a_restart() {
    let (dir, vault) = on_disk().await;
    vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    drop(vault);
    let account = open(dir.path()).await.unwrap().account(&key("acme/github/writer")).await.unwrap().unwrap();
    assert!(holds(&account, "token-one"));
}

#[tokio::test]
async fn a_wrong_key_is_told_by_both_fingerprints() {
    let dir = tempfile::tempdir().unwrap();
    init_with(&value_key(1), dir.path()).await.unwrap();
    let right = open_with(&value_key(1), dir.path()).await.unwrap().status().await.unwrap().key;
    let refused = open_with(&value_key(2), dir.path()).await.unwrap_err();
    let Error::WrongKey { expected, found } = &refused else { panic!("{refused}") };
    assert_eq!(*expected, right);
    assert_ne!(found, expected);
    let message = refused.to_string();
    assert!(message.contains(&expected.to_string()) && message.contains(&found.to_string()), "{message}");
    assert!(matches!(init_with(&value_key(2), dir.path()).await, Err(Error::WrongKey { .. })));
    assert!(open_with(&value_key(1), dir.path()).await.is_ok(), "nothing was lost");
}

#[tokio::test]
async fn no_new_key_is_made_for_a_vault_that_is_there() {
    let (dir, vault) = on_disk().await;
    drop(vault);
    let (file, aside) = (dir.path().join("vault.key"), dir.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    assert!(matches!(open(dir.path()).await, Err(Error::KeyGone { .. })));
    assert!(matches!(init_with(&Config::default(), dir.path()).await, Err(Error::KeyGone { .. })));
    let unset = Config { key: Some(KeySource::Env("KEY".to_owned())), ..Config::default() };
    assert!(matches!(init_with(&unset, dir.path()).await, Err(Error::KeyGone { .. })));
    assert!(!file.exists());
    fs::rename(&aside, &file).unwrap();
    assert!(open(dir.path()).await.is_ok());
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_vault() {
    let (dir, vault) = on_disk().await;
    let refused = open(dir.path()).await.unwrap_err();
    assert!(matches!(refused, Error::Locked(_)));
    let who = format!("in use by keybearer test (pid {}", std::process::id());
    assert!(refused.to_string().contains(&who), "{refused}");
    drop(vault);
    assert!(open(dir.path()).await.is_ok());
}

#[tokio::test]
async fn a_header_set_by_hand_does_not_make_another_key_the_right_one() {
    let (dir, vault) = on_disk().await;
    drop(vault);
    let other = Config::default();
    let lent = tempfile::tempdir().unwrap();
    init(lent.path()).await;
    let fingerprint = open(lent.path()).await.unwrap().0.keys.current().fingerprint();
    let db = bare_sled(&dir.path().join("vault")).unwrap();
    let mut header = db.get(b"h").unwrap().unwrap().to_vec();
    header[..8].copy_from_slice(fingerprint.as_bytes());
    db.insert(b"h", header).unwrap();
    drop(db);
    fs::copy(lent.path().join("vault.key"), dir.path().join("vault.key")).unwrap();
    assert!(matches!(open_with(&other, dir.path()).await, Err(Error::Unopened { .. })));
}

#[tokio::test]
async fn swapped_data_keys_open_nothing_and_swapped_back_everything() {
    let (dir, vault) = on_disk().await;
    let names = ["acme/github/writer", "globex/github/writer"];
    for name in names {
        vault.add(new_account(name, "token-0000")).await.unwrap();
    }
    drop(vault);
    for unreadable in [2, 0] {
        let db = bare_sled(&dir.path().join("vault")).unwrap();
        let keys = db.scan_prefix(b"k").map(Result::unwrap).collect::<Vec<_>>();
        db.insert(&keys[0].0, &keys[1].1).unwrap();
        db.insert(&keys[1].0, &keys[0].1).unwrap();
        drop(db);
        let vault = open(dir.path()).await.unwrap();
        assert_eq!(vault.status().await.unwrap().unreadable.len(), unreadable);
    }
}

#[tokio::test]
async fn a_vault_without_its_header_is_not_made_anew() {
    let (dir, vault) = on_disk().await;
    vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    drop(vault);
    let db = bare_sled(&dir.path().join("vault")).unwrap();
    db.remove(b"h").unwrap();
    drop(db);
    assert!(matches!(init_with(&Config::default(), dir.path()).await, Err(Error::Unopened { .. })));
}

#[tokio::test]
async fn what_a_backend_needs_is_asked_for_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let of_broker =
        |text: &str| serde_saphyr::from_str::<Config>(&format!("{{backend: broker, {text}}}")).unwrap();
    let url = "url: 'https://broker.test:7443'";
    for (text, says) in [
        ("url: null".to_owned(), "vault.url does not say where"),
        ("url: 'postgres://u@db.example/x'".to_owned(), "vault.url does not say where"),
        (url.to_owned(), "vault.token_file names no token"),
        (format!("{url}, token_file: token"), "at the broker https://broker.test:7443: run this there"),
    ] {
        let refused = open_with(&of_broker(&text), dir.path()).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{text}: {refused}");
    }
    let config = Config { backend: Backend::Postgres, ..Config::default() };
    let refused = open_with(&config, dir.path()).await.unwrap_err().to_string();
    assert!(refused.contains("vault.url"), "{refused}");
}

#[test]
fn the_configuration_reads_as_the_contract_writes_it() {
    let read = |text: &str| serde_saphyr::from_str::<Config>(text);
    let config = read("{backend: sled, key: {file: ./data/vault.key}}").unwrap();
    assert_eq!(config.key, Some(KeySource::File("./data/vault.key".into())));
    assert_eq!(read("{key: {env: VAULT_KEY}}").unwrap().key, Some(KeySource::Env("VAULT_KEY".to_owned())));
    assert_eq!(read("{backend: postgres}").unwrap().backend, Backend::Postgres);
    assert_eq!(read("{backend: postgres}").unwrap().offline_use().as_millis(), 500);
    let text = "{backend: broker, url: 'https://b.test', token_file: t, roots: {pem: x}, timeout: 1s, offline_use: 9s}";
    let broker = read(text).unwrap().at_broker().unwrap().unwrap();
    assert_eq!((broker.timeout.as_secs(), broker.offline_use.as_secs()), (1, 9));
    assert_eq!(read("{backend: broker}").unwrap().offline_use().as_secs(), 60);
    assert!(read("{backend: memory}").is_err());
    assert!(read("{key: {value: x}}").is_err());
    assert!(read("{keys: x}").is_err());
}
