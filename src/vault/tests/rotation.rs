//! What holds of another key-encryption key: over every store, and of opening afterwards.

use std::fs;

use super::*;
use crate::vault::{
    keys::{Header, Sources},
    store::Rewrapped,
};

over_every_store!(
    another_key_seals_everything_and_nothing_else_changes,
    the_same_key_once_more_does_nothing,
    a_rotation_among_changes_loses_none_of_them,
    rotations_at_once_leave_one_key,
    a_data_key_that_does_not_open_is_named_and_kept,
    what_was_read_before_a_rotation_is_not_written_after_it,
);

async fn fingerprint(vault: &Vault) -> Fingerprint {
    vault.status().await.unwrap().key
}

async fn another_key_seals_everything_and_nothing_else_changes(vault: &Vault) {
    for name in ["acme/github/writer", "acme/slack/tenant", "globex/github/writer"] {
        vault.add(new_account(name, "token-0000")).await.unwrap();
    }
    let before = vault.list(None).await.unwrap();
    let (from, stored) = (fingerprint(vault).await, vault.0.store.data_keys().await.unwrap());
    let done = vault.rotate_key(&key_of(9)).await.unwrap();
    assert_eq!((done.from, done.tenants, done.unopened.len()), (from, 2, 0));
    assert_ne!(done.from, done.to);
    assert_eq!(fingerprint(vault).await, done.to);
    assert_eq!(vault.list(None).await.unwrap(), before);
    let rewrapped = vault.0.store.data_keys().await.unwrap();
    assert!(stored.iter().zip(&rewrapped).all(|(one, other)| one.0 == other.0 && one.1 != other.1));
    vault.add(new_account("initech/github/writer", "token-0000")).await.unwrap();

    // Only the new key is needed from now on.
    let new = key_of(9).load().unwrap();
    for (tenant, sealed) in vault.0.store.data_keys().await.unwrap() {
        assert!(new.open(&Bound::data_key(&tenant), &sealed).is_ok(), "{tenant}");
    }
}

async fn the_same_key_once_more_does_nothing(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-0000")).await.unwrap();
    let first = vault.rotate_key(&key_of(9)).await.unwrap();
    let stored = vault.0.store.data_keys().await.unwrap();
    let again = vault.rotate_key(&key_of(9)).await.unwrap();
    assert_eq!((again.from, again.to, again.tenants), (first.to, first.to, 1));
    assert_eq!(vault.0.store.data_keys().await.unwrap(), stored);
}

async fn a_rotation_among_changes_loses_none_of_them(vault: &Vault) {
    let names: Vec<_> = (0..24).map(|n| format!("tenant{n:02}/github/writer")).collect();
    let adds = names.iter().map(|name| async {
        vault.add(new_account(name, "token-0000")).await.unwrap();
        vault.rotate(&key(name), fields("token-0001")).await.unwrap()
    });
    let rotations = async {
        for byte in 1..=6 {
            vault.rotate_key(&key_of(byte)).await.unwrap();
        }
    };
    let (changed, ()) = futures_util::future::join(futures_util::future::join_all(adds), rotations).await;
    let last = key_of(6).load().unwrap();
    assert_eq!(fingerprint(vault).await, last.fingerprint());
    assert_eq!(vault.list(None).await.unwrap(), changed);
    let stored = vault.0.store.data_keys().await.unwrap();
    assert!(stored.iter().all(|(tenant, sealed)| last.open(&Bound::data_key(tenant), sealed).is_ok()));
}

async fn rotations_at_once_leave_one_key(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-0000")).await.unwrap();
    let rotations = (1..=4).map(|byte| async move { vault.rotate_key(&key_of(byte)).await.unwrap() });
    let done = futures_util::future::join_all(rotations).await;
    let last = fingerprint(vault).await;
    assert_eq!(done.iter().filter(|done| done.to == last).count(), 1);
    assert!(holds(&vault.account(&key("acme/github/writer")).await.unwrap().unwrap(), "token-0000"));
}

async fn a_data_key_that_does_not_open_is_named_and_kept(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-0000")).await.unwrap();
    let (torn, header) = ("globex".parse().unwrap(), vault.0.store.header().await.unwrap().unwrap());
    assert!(vault.0.store.create_data_key(&torn, vec![1; 80], &header).await.unwrap());
    let done = vault.rotate_key(&key_of(9)).await.unwrap();
    assert_eq!((done.tenants, done.unopened), (2, vec![torn.clone()]));
    assert_eq!(vault.0.store.data_key(&torn).await.unwrap(), Some(vec![1; 80]));
    assert!(vault.account(&key("acme/github/writer")).await.unwrap().is_some());
}

async fn what_was_read_before_a_rotation_is_not_written_after_it(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-0000")).await.unwrap();
    let store = &vault.0.store;
    let read = async || {
        let old = store.data_keys().await.unwrap().into_iter();
        Rewrapped {
            old_header: store.header().await.unwrap().unwrap(),
            header: b"header".to_vec(),
            data_keys: old.map(|(tenant, old)| (tenant, old, vec![1])).collect(),
        }
    };
    let before_a_tenant = read().await;
    vault.add(new_account("globex/github/writer", "token-0000")).await.unwrap();
    let before_a_rotation = read().await;
    vault.rotate_key(&key_of(9)).await.unwrap();
    let mut without_a_tenant = read().await;
    without_a_tenant.data_keys.pop();
    let mut with_a_stranger = read().await;
    with_a_stranger.data_keys.push(("zed".parse().unwrap(), vec![1], vec![2]));
    for stale in [before_a_tenant, before_a_rotation.clone(), without_a_tenant, with_a_stranger] {
        assert!(!store.rewrap(stale).await.unwrap());
    }
    let initech = "initech".parse().unwrap();
    assert!(!store.create_data_key(&initech, vec![1], &before_a_rotation.old_header).await.unwrap());
    assert_eq!(vault.list(None).await.unwrap().len(), 2);
}

/// A configuration with these two keys.
fn both(key: u8, next: u8) -> Config {
    Config { next_key: Some(key_of(next)), ..value_key(key) }
}

#[tokio::test]
async fn after_a_rotation_the_vault_opens_with_the_new_key_as_either_of_the_two() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, _) = Vault::init(&both(1, 2), dir.path(), &claim(), &Drain::default()).await.unwrap();
    vault.add(new_account("acme/github/writer", "token-0000")).await.unwrap();
    assert_eq!(fingerprint(&vault).await, key_of(1).load().unwrap().fingerprint(), "not the next one yet");
    drop(vault);
    assert!(open_with(&both(1, 2), dir.path()).await.is_ok());
    let rotated = open_with(&both(1, 2), dir.path()).await.unwrap().rotate_key(&key_of(2)).await.unwrap();
    let unset = KeySource::Env("OLD_KEY".to_owned());
    for fits in [both(1, 2), value_key(2), both(2, 3), Config { key: Some(unset.clone()), ..both(1, 2) }] {
        let vault = open_with(&fits, dir.path()).await.unwrap();
        assert_eq!(fingerprint(&vault).await, rotated.to);
        assert_eq!(vault.list(None).await.unwrap().len(), 1);
    }
    for other in [value_key(1), both(1, 3), Config { key: Some(unset), ..both(1, 3) }] {
        let refused = open_with(&other, dir.path()).await.unwrap_err();
        let Error::WrongKey { expected, .. } = refused else { panic!("{refused}") };
        assert_eq!(expected, rotated.to);
    }
}

#[tokio::test]
async fn a_next_key_may_come_later_but_must_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("next.key");
    let config = Config { next_key: Some(KeySource::File(file.clone())), ..value_key(1) };
    init_with(&config, dir.path()).await.unwrap();
    assert!(open_with(&config, dir.path()).await.is_ok());
    let vault = open_with(&config, dir.path()).await.unwrap();
    let missing = vault.rotate_key(&KeySource::File(file.clone())).await.unwrap_err();
    assert!(matches!(missing, Error::Key(KeyError::NoFile(_))), "{missing}");
    drop(vault);
    fs::write(&file, "no key").unwrap();
    assert!(matches!(open_with(&config, dir.path()).await, Err(Error::Key(_))));
}

/// Two processes with one store; sled would not allow them.
#[tokio::test]
async fn another_process_finds_the_new_key_where_its_keys_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vault.key");
    let (old, _) = KeySource::File(file.clone()).load_or_create().unwrap();
    let one = Vault::in_memory(&Drain::default()).await.unwrap();
    one.add(new_account("acme/github/writer", "token-0000")).await.unwrap();
    let sources = Sources { key: KeySource::File(file.clone()), next: None };
    let other = Keys::new(old, Some(sources));
    one.rotate_key(&KeySource::File(file.clone())).await.unwrap();
    let header = one.0.store.header().await.unwrap().unwrap();
    let of = Header::read(&header).unwrap().of;
    assert!(other.find(of).is_some_and(|key| key.fingerprint() == of));

    let elsewhere = Keys::new(key_of(3).load().unwrap(), None);
    assert!(elsewhere.find(of).is_none());
    elsewhere.expect(KeySource::File(file).load().unwrap());
    let (before, found) = (elsewhere.current(), elsewhere.find(of).unwrap());
    assert!(elsewhere.replace(&before, found));
    assert!(!elsewhere.replace(&before, before.clone()), "who comes late does not bring the old one back");
}
