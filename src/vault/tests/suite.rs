//! What holds over every store.

use tokio::sync::broadcast::error::TryRecvError;

use super::*;

over_every_store!(
    an_account_comes_back_as_it_was_added,
    secrets_of_the_largest_size_fit,
    an_account_is_added_once,
    each_change_is_a_generation,
    frozen_thawed_revoked_and_rotated,
    changes_that_change_nothing_write_nothing,
    what_is_not_there_cannot_be_changed,
    a_bad_secret_is_not_stored,
    a_tenant_sees_its_own_accounts_only,
    every_change_is_told_also_when_the_caller_left,
    changes_at_once_all_happen,
    many_accounts_change_at_once,
    a_store_writes_only_over_the_expected_generation,
    nothing_is_stored_in_the_clear,
    a_row_moved_to_another_key_does_not_open,
    an_older_row_does_not_open_as_a_newer_generation,
    a_changed_row_does_not_open,
    a_row_under_another_tenants_data_key_does_not_open,
    an_unopened_account_hides_no_other_one,
    a_fact_is_written_over_the_expected_generation_only,
    facts_are_listed_by_tenant_and_kind,
    a_fact_that_was_moved_or_changed_does_not_open,
    a_hold_is_on_every_account_of_the_tenant_or_user_and_no_other,
    each_source_lifts_its_own_hold,
    a_hold_that_does_not_open_holds,
    holds_are_told_and_other_facts_are_not,
);

async fn an_account_comes_back_as_it_was_added(vault: &Vault) {
    let new = NewAccount {
        scopes: Some(["issues:read".parse().unwrap()].into()),
        metadata: [("instance".to_owned(), "na47".to_owned())].into(),
        authorization: Some("consent".to_owned()),
        ..new_account("acme/github/writer", "token-acme")
    };
    let added = vault.add(new.clone()).await.unwrap();
    let account = vault.account(&new.key).await.unwrap().unwrap();
    assert_eq!(account, added);
    assert_eq!((account.generation, &account.status), (1, &Status::Active));
    assert_eq!((account.key, account.material), (new.key, new.material));
    assert_eq!(
        (account.scopes, account.metadata, account.authorization),
        (new.scopes, new.metadata, new.authorization)
    );
    assert_eq!(vault.account(&key("acme/github/tenant")).await.unwrap(), None);
}

async fn secrets_of_the_largest_size_fit(vault: &Vault) {
    let largest = |n: u8| (format!("field_{n}"), Secret::new(vec![b'a' + n % 26; MAX_SECRET]));
    let material = Material::Static { fields: (0..2).map(largest).collect() };
    let added = vault.add(NewAccount { material, ..new_account("acme/github/writer", "") }).await.unwrap();
    assert_eq!(vault.account(&key("acme/github/writer")).await.unwrap().unwrap(), added);
}

async fn an_account_is_added_once(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    let again = vault.add(new_account("acme/github/writer", "token-two")).await;
    assert!(matches!(again, Err(Error::Exists(_))));
    assert!(holds(&vault.account(&key("acme/github/writer")).await.unwrap().unwrap(), "token-one"));
}

async fn each_change_is_a_generation(vault: &Vault) {
    let name = key("acme/github/writer");
    let added = vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    let rotated = vault.rotate(&name, fields("token-two")).await.unwrap();
    let frozen = vault.freeze(&name, "alice").await.unwrap();
    assert_eq!([added.generation, rotated.generation, frozen.generation], [1, 2, 3]);
    assert_eq!(frozen.created, added.created);
    assert!(frozen.updated >= rotated.updated && rotated.updated >= added.updated);
    assert!(holds(&frozen, "token-two"));
    assert_eq!(vault.account(&name).await.unwrap().unwrap(), frozen);

    vault.remove(&name).await.unwrap();
    assert_eq!(vault.account(&name).await.unwrap(), None);
    assert!(vault.add(new_account("acme/github/writer", "token-new")).await.is_ok());
}

async fn frozen_thawed_revoked_and_rotated(vault: &Vault) {
    let name = key("acme/github/writer");
    vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    vault.freeze(&name, "alice").await.unwrap();
    let rotated = vault.rotate(&name, fields("token-two")).await.unwrap();
    assert_eq!(rotated.status, Status::Frozen { by: "alice".to_owned() }, "a new secret does not thaw it");
    assert_eq!(vault.unfreeze(&name).await.unwrap().status, Status::Active);

    let revoked = vault.revoke(&name).await.unwrap();
    assert_eq!(revoked.status, Status::Revoked);
    assert!(revoked.material.fields().is_empty(), "its secret is gone");
    assert!(matches!(vault.freeze(&name, "alice").await, Err(Error::Revoked(_))));
    assert!(matches!(vault.unfreeze(&name).await, Err(Error::Revoked(_))));
    let back = vault.rotate(&name, fields("token-three")).await.unwrap();
    assert!(back.status == Status::Active && holds(&back, "token-three"));
}

async fn changes_that_change_nothing_write_nothing(vault: &Vault) {
    let name = key("acme/github/writer");
    vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    assert_eq!(vault.unfreeze(&name).await.unwrap().generation, 1);
    vault.freeze(&name, "alice").await.unwrap();
    let again = vault.freeze(&name, "bob").await.unwrap();
    assert_eq!((again.generation, again.status), (2, Status::Frozen { by: "alice".to_owned() }));
    vault.revoke(&name).await.unwrap();
    assert_eq!(vault.revoke(&name).await.unwrap().generation, 3);
}

async fn what_is_not_there_cannot_be_changed(vault: &Vault) {
    let name = key("acme/github/writer");
    assert!(matches!(vault.rotate(&name, fields("token-one")).await, Err(Error::Missing(_))));
    assert!(matches!(vault.freeze(&name, "alice").await, Err(Error::Missing(_))));
    assert!(matches!(vault.revoke(&name).await, Err(Error::Missing(_))));
    assert!(matches!(vault.remove(&name).await, Err(Error::Missing(_))));
}

async fn a_bad_secret_is_not_stored(vault: &Vault) {
    let name = key("acme/github/writer");
    let refused = vault.add(new_account("acme/github/writer", "two\r\nlines")).await;
    assert!(matches!(refused, Err(Error::Secret(_))));
    assert_eq!(vault.account(&name).await.unwrap(), None);
    vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    assert!(matches!(vault.rotate(&name, fields("short")).await, Err(Error::Secret(_))));
    assert!(holds(&vault.account(&name).await.unwrap().unwrap(), "token-one"));
    let metadata = [("instance".to_owned(), "a\nb".to_owned())].into();
    let refused = vault.add(NewAccount { metadata, ..new_account("acme/slack/tenant", "token-one") }).await;
    assert!(matches!(refused, Err(Error::Secret(_))));
}

async fn a_tenant_sees_its_own_accounts_only(vault: &Vault) {
    for name in ["acme/slack/tenant", "ac/github/tenant", "acme/github/writer", "globex/github/writer"] {
        vault.add(new_account(name, "token-0000")).await.unwrap();
    }
    let names =
        |accounts: Vec<Account>| accounts.iter().map(|account| account.key.to_string()).collect::<Vec<_>>();
    let acme = vault.list(Some(&"acme".parse().unwrap())).await.unwrap();
    assert_eq!(names(acme), ["acme/github/role:writer", "acme/slack/tenant"]);
    let all = vault.list(None).await.unwrap();
    let expected =
        ["ac/github/tenant", "acme/github/role:writer", "acme/slack/tenant", "globex/github/role:writer"];
    assert_eq!(names(all), expected);
    assert_eq!(vault.list(Some(&"nobody".parse().unwrap())).await.unwrap(), []);

    vault.freeze(&key("acme/slack/tenant"), "alice").await.unwrap();
    let overview = vault.status().await.unwrap();
    assert_eq!(overview.tenants, 3);
    assert_eq!(
        overview.accounts,
        [(connector("github", "active"), 3), (connector("slack", "frozen"), 1)].into()
    );
}

async fn every_change_is_told_also_when_the_caller_left(vault: &Vault) {
    let name = key("acme/github/writer");
    let changed = || Change::Account(key("acme/github/writer"));
    let mut told = vault.changes();
    vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    vault.account(&name).await.unwrap();
    assert!(matches!(vault.add(new_account("acme/github/writer", "token-two")).await, Err(Error::Exists(_))));
    assert_eq!(told.recv().await.unwrap(), changed());
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty), "neither reads nor refusals are changes");

    let mut left = Box::pin(vault.freeze(&name, "alice"));
    assert!(futures_util::poll!(&mut left).is_pending());
    drop(left);
    assert_eq!(told.recv().await.unwrap(), changed());
    assert_eq!(vault.account(&name).await.unwrap().unwrap().status.as_str(), "frozen");
    vault.remove(&name).await.unwrap();
    assert_eq!(told.recv().await.unwrap(), changed());
}

async fn changes_at_once_all_happen(vault: &Vault) {
    let name = key("acme/github/writer");
    let adds = (0..4).map(|n| vault.add(new_account("acme/github/writer", &format!("token-{n:03}"))));
    let added = futures_util::future::join_all(adds).await;
    assert_eq!(added.iter().filter(|added| added.is_ok()).count(), 1);
    let rotations = (0..8).map(|n| {
        let (vault, name) = (vault.clone(), name.clone());
        async move { vault.rotate(&name, fields(&format!("token-{n:03}"))).await.unwrap().generation }
    });
    let mut generations = futures_util::future::join_all(rotations).await;
    generations.sort_unstable();
    assert_eq!(generations, (2..=9).collect::<Vec<_>>());
}

/// More than a store's library has threads.
async fn many_accounts_change_at_once(vault: &Vault) {
    let names: Vec<_> = (0..64).map(|n| format!("acme/github/role{n}")).collect();
    let work = names.iter().map(|name| async {
        vault.add(new_account(name, "token-one")).await.unwrap();
        vault.rotate(&key(name), fields("token-two")).await.unwrap()
    });
    let changed = futures_util::future::join_all(work).await;
    assert!(changed.iter().all(|account| account.generation == 2));
    assert_eq!(vault.list(None).await.unwrap().len(), 64);
}

async fn a_store_writes_only_over_the_expected_generation(vault: &Vault) {
    let store = &vault.0.store;
    let (name, tenant) = (key("acme/github/writer"), "acme".parse().unwrap());
    let row = |generation| Row { generation, sealed: vec![1, 2, 3] };
    assert!(!store.put(&name, Some(1), row(2)).await.unwrap());
    assert!(store.put(&name, None, row(1)).await.unwrap());
    assert!(!store.put(&name, None, row(1)).await.unwrap());
    assert!(!store.put(&name, Some(2), row(3)).await.unwrap());
    assert!(store.put(&name, Some(1), row(2)).await.unwrap());
    assert_eq!(store.row(&name).await.unwrap(), Some(row(2)));
    assert!(!store.delete(&name, 1).await.unwrap());
    assert!(store.delete(&name, 2).await.unwrap());
    assert!(!store.delete(&name, 2).await.unwrap());
    assert_eq!(store.row(&name).await.unwrap(), None);

    assert_eq!(store.data_key(&tenant).await.unwrap(), None);
    let header = store.header().await.unwrap().unwrap();
    assert!(!store.create_data_key(&tenant, vec![1], b"another header").await.unwrap());
    assert!(store.create_data_key(&tenant, vec![1], &header).await.unwrap());
    assert!(!store.create_data_key(&tenant, vec![2], &header).await.unwrap());
    assert_eq!(store.data_key(&tenant).await.unwrap(), Some(vec![1]));
    assert!(!store.create_header(vec![1]).await.unwrap());
    assert_eq!(store.header().await.unwrap(), Some(header));
}

async fn nothing_is_stored_in_the_clear(vault: &Vault) {
    let metadata = [("instance".to_owned(), "metadata-canary".to_owned())].into();
    vault.add(NewAccount { metadata, ..new_account("acme/github/writer", "secret-canary") }).await.unwrap();
    vault.freeze(&key("acme/github/writer"), "freezer-canary").await.unwrap();
    let rows = format!("{:?}", vault.0.store.rows(None).await.unwrap());
    let sealed = vault.0.store.row(&key("acme/github/writer")).await.unwrap().unwrap().sealed;
    for canary in ["secret-canary", "metadata-canary", "freezer-canary", "frozen"] {
        assert!(!sealed.windows(canary.len()).any(|bytes| bytes == canary.as_bytes()), "{canary}");
        assert!(!rows.contains(canary), "{canary}");
    }
}

fn connector(name: &str, status: &'static str) -> (ConnectorName, &'static str) {
    (name.parse().unwrap(), status)
}

async fn row(vault: &Vault, name: &str) -> Row {
    vault.0.store.row(&key(name)).await.unwrap().unwrap()
}

/// Puts a row in the place of the one that is there, as somebody would by hand.
async fn place(vault: &Vault, name: &str, row: Row) {
    let present = vault.0.store.row(&key(name)).await.unwrap().map(|row| row.generation);
    assert!(vault.0.store.put(&key(name), present, row).await.unwrap());
}

async fn assert_does_not_open(vault: &Vault, name: &str) {
    let refused = vault.account(&key(name)).await;
    assert!(matches!(refused, Err(Error::Unopened { .. })), "{name}: {refused:?}");
    // Nor is it written over as if it had been read.
    assert!(matches!(vault.unfreeze(&key(name)).await, Err(Error::Unopened { .. })));
    assert!(matches!(vault.rotate(&key(name), fields("token-new")).await, Err(Error::Unopened { .. })));
}

async fn a_row_moved_to_another_key_does_not_open(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-writer")).await.unwrap();
    vault.add(new_account("globex/github/writer", "token-globex")).await.unwrap();
    let moved = row(vault, "acme/github/writer").await;
    for name in [
        "acme/github/researcher",
        "acme/github/tenant",
        "acme/github/developer",
        "acme/gitlab/writer",
        "globex/github/writer",
        "initech/github/writer",
    ] {
        place(vault, name, moved.clone()).await;
        assert_does_not_open(vault, name).await;
    }
    assert!(vault.account(&key("acme/github/writer")).await.is_ok());
}

async fn an_older_row_does_not_open_as_a_newer_generation(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-old")).await.unwrap();
    let older = row(vault, "acme/github/writer").await;
    vault.freeze(&key("acme/github/writer"), "alice").await.unwrap();
    for generation in [2, 3] {
        place(vault, "acme/github/writer", Row { generation, ..older.clone() }).await;
        assert_does_not_open(vault, "acme/github/writer").await;
    }
}

async fn a_changed_row_does_not_open(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    let whole = row(vault, "acme/github/writer").await;
    for at in [0, 1, 24, 25, 60, whole.sealed.len() - 1] {
        let mut changed = whole.clone();
        changed.sealed[at] ^= 1;
        place(vault, "acme/github/writer", changed).await;
        assert_does_not_open(vault, "acme/github/writer").await;
    }
    let cut = Row { sealed: whole.sealed[..20].to_vec(), ..whole.clone() };
    place(vault, "acme/github/writer", cut).await;
    assert_does_not_open(vault, "acme/github/writer").await;
    place(vault, "acme/github/writer", whole).await;
    assert!(vault.account(&key("acme/github/writer")).await.is_ok(), "it was only the bytes");
}

/// The attacker has two tenants' rows, and gives one of them the other's data key.
async fn a_row_under_another_tenants_data_key_does_not_open(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-acme")).await.unwrap();
    let data_key = vault.0.store.data_key(&"acme".parse().unwrap()).await.unwrap().unwrap();
    let header = vault.0.store.header().await.unwrap().unwrap();
    assert!(vault.0.store.create_data_key(&"globex".parse().unwrap(), data_key, &header).await.unwrap());
    place(vault, "globex/github/writer", row(vault, "acme/github/writer").await).await;
    assert_does_not_open(vault, "globex/github/writer").await;
    let refused = vault.add(new_account("globex/slack/tenant", "token-globex")).await;
    assert!(matches!(refused, Err(Error::Unopened { .. })), "nothing is sealed under it either");
    assert!(vault.account(&key("acme/github/writer")).await.is_ok());
}

async fn an_unopened_account_hides_no_other_one(vault: &Vault) {
    vault.add(new_account("acme/github/writer", "token-one")).await.unwrap();
    place(vault, "acme/github/tenant", row(vault, "acme/github/writer").await).await;
    place(vault, "globex/github/tenant", row(vault, "acme/github/writer").await).await;
    let overview = vault.status().await.unwrap();
    assert_eq!(overview.unreadable, [key("acme/github/tenant"), key("globex/github/tenant")]);
    assert_eq!(overview.accounts, [(connector("github", "active"), 1)].into());
    let listed = vault.list(None).await.unwrap_err().to_string();
    assert!(listed.starts_with("the account acme/github/tenant does not open"), "{listed}");
    assert!(listed.ends_with("or remove this account and add it again"), "{listed}");

    vault.remove(&key("acme/github/tenant")).await.unwrap();
    vault.remove(&key("globex/github/tenant")).await.unwrap();
    assert_eq!(vault.list(None).await.unwrap().len(), 1);
}

fn fact(tenant: &str, kind: FactKind, name: &str) -> FactKey {
    FactKey { tenant: tenant.parse().unwrap(), kind, name: name.to_owned() }
}

fn user(tenant: &str, user: &str) -> Whole {
    Whole::of_user(&tenant.parse().unwrap(), &user.parse().unwrap())
}

fn hold(source: Source, second: i64) -> Hold {
    Hold { source, by: "ops".to_owned(), since: Timestamp::from_second(second).unwrap() }
}

const fn scim(until: Option<Timestamp>) -> Lift {
    Lift::Of { source: Source::Scim, until }
}

async fn a_fact_is_written_over_the_expected_generation_only(vault: &Vault) {
    let key = fact("acme", FactKind::User, "7");
    let long = vec![b'x'; 100_000];
    assert!(!vault.put_fact(&key, Some(1), b"never").await.unwrap());
    assert!(vault.put_fact(&key, None, b"one").await.unwrap());
    assert!(!vault.put_fact(&key, None, b"never").await.unwrap());
    assert!(vault.put_fact(&key, Some(1), &long).await.unwrap());
    assert!(!vault.put_fact(&key, Some(1), b"never").await.unwrap());
    let read = vault.fact(&key).await.unwrap().unwrap();
    assert_eq!((read.generation, read.text.as_slice()), (2, long.as_slice()));
    assert!(!vault.delete_fact(&key, 1).await.unwrap());
    assert!(vault.delete_fact(&key, 2).await.unwrap());
    assert!(vault.fact(&key).await.unwrap().is_none());
    assert!(!vault.delete_fact(&key, 2).await.unwrap());
}

async fn facts_are_listed_by_tenant_and_kind(vault: &Vault) {
    let keys = [
        fact("acme", FactKind::User, "long name"),
        fact("acme", FactKind::User, "z"),
        fact("ac", FactKind::User, "a"),
        fact("acme", FactKind::Hold, ""),
    ];
    for key in &keys {
        assert!(vault.put_fact(key, None, key.name.as_bytes()).await.unwrap());
    }
    let listed = async |kind, tenant: Option<&str>| {
        let tenant = tenant.map(|tenant| tenant.parse().unwrap());
        let facts = vault.facts(kind, tenant.as_ref()).await.unwrap();
        facts.into_iter().map(|fact| fact.key).collect::<Vec<_>>()
    };
    assert_eq!(listed(FactKind::User, Some("acme")).await, keys[..2]);
    assert_eq!(listed(FactKind::User, None).await, [&keys[2..3], &keys[..2]].concat());
    assert_eq!(listed(FactKind::Hold, Some("acme")).await, keys[3..]);
    assert_eq!(listed(FactKind::Event, None).await, []);
}

async fn a_fact_that_was_moved_or_changed_does_not_open(vault: &Vault) {
    let key = fact("acme", FactKind::User, "7");
    vault.put_fact(&key, None, b"text").await.unwrap();
    vault.put_fact(&fact("globex", FactKind::User, "1"), None, b"a data key").await.unwrap();
    let row = vault.0.store.fact(&key).await.unwrap().unwrap();
    assert!(!row.sealed.windows(4).any(|bytes| bytes == b"text"));
    for elsewhere in [
        fact("acme", FactKind::User, "8"),
        fact("acme", FactKind::Event, "7"),
        fact("globex", FactKind::User, "7"),
    ] {
        assert!(vault.0.store.put_fact(&elsewhere, None, row.clone()).await.unwrap());
        assert!(matches!(vault.fact(&elsewhere).await, Err(Error::Unopened { .. })), "{elsewhere:?}");
    }
    let newer = Row { generation: 2, ..row };
    assert!(vault.0.store.put_fact(&key, Some(1), newer).await.unwrap());
    assert!(matches!(vault.fact(&key).await, Err(Error::Unopened { .. })));
}

async fn a_hold_is_on_every_account_of_the_tenant_or_user_and_no_other(vault: &Vault) {
    let held = async |account: &str| {
        let key: AccountKey = account.parse().unwrap();
        let one = vault.held(&key).await.unwrap().is_some();
        assert_eq!(vault.holds(None).await.unwrap().on(&key).is_some(), one, "{account}");
        assert_eq!(vault.holds(Some(&key.tenant)).await.unwrap().on(&key).is_some(), one, "{account}");
        one
    };
    assert!(vault.hold(&user("acme", "Alice"), hold(Source::Operator, 1)).await.unwrap());
    for (account, is_held) in [
        ("acme/github/user:alice/writer", true),
        ("acme/slack/user:ALICE/researcher", true),
        ("acme/github/user:bob/writer", false),
        ("acme/github/role:alice", false),
        ("acme/github/tenant", false),
        ("globex/github/user:alice/writer", false),
    ] {
        assert_eq!(held(account).await, is_held, "{account}");
        assert_eq!(user("acme", "Alice").has(&account.parse().unwrap()), is_held, "{account}");
    }
    vault.hold(&Whole::of_tenant("acme".parse().unwrap()), hold(Source::Operator, 1)).await.unwrap();
    for account in ["acme/github/tenant", "acme/github/developer", "acme/x/role:r", "acme/x/user:bob/r"] {
        assert!(held(account).await, "{account}");
    }
    assert!(!held("globex/github/tenant").await);
}

async fn each_source_lifts_its_own_hold(vault: &Vault) {
    let alice = user("acme", "alice");
    assert!(vault.hold(&alice, hold(Source::Scim, 5)).await.unwrap());
    assert!(vault.hold(&alice, hold(Source::Operator, 6)).await.unwrap());
    assert!(!vault.hold(&alice, hold(Source::Scim, 4)).await.unwrap(), "it is the same one");
    assert!(!vault.hold(&alice, hold(Source::Scim, 9)).await.unwrap());
    let until = |second| Some(Timestamp::from_second(second).unwrap());
    assert_eq!(vault.lift(&alice, &scim(until(8))).await.unwrap(), [], "what lifts it was said before");
    assert_eq!(vault.lift(&alice, &scim(until(9))).await.unwrap(), [hold(Source::Scim, 9)]);
    assert_eq!(vault.lift(&alice, &scim(None)).await.unwrap(), []);
    assert_eq!(vault.holds_of(&alice).await.unwrap(), [hold(Source::Operator, 6)]);
    let idp = || Source::Ssf("https://idp.example".to_owned());
    vault.hold(&alice, hold(idp(), 7)).await.unwrap();
    let other = Lift::Of { source: Source::Ssf("https://other.example".to_owned()), until: None };
    assert_eq!(vault.lift(&alice, &other).await.unwrap(), []);
    assert_eq!(vault.lift(&alice, &Lift::All).await.unwrap().len(), 2);
    assert_eq!(vault.holds_of(&alice).await.unwrap(), []);
    assert_eq!(vault.holds(None).await.unwrap(), Holds::default());
}

async fn a_hold_that_does_not_open_holds(vault: &Vault) {
    let alice = user("acme", "alice");
    vault.hold(&alice, hold(Source::Scim, 5)).await.unwrap();
    let key = fact("acme", FactKind::Hold, "alice");
    let forged = Row { generation: 2, sealed: b"forged".to_vec() };
    assert!(vault.0.store.put_fact(&key, Some(1), forged).await.unwrap());
    let account: AccountKey = "acme/github/user:alice/writer".parse().unwrap();
    assert!(vault.held(&account).await.unwrap().is_some());
    assert!(vault.holds(None).await.unwrap().on(&account).is_some());
    assert_eq!(vault.lift(&alice, &scim(None)).await.unwrap(), []);
    assert_eq!(vault.lift(&alice, &Lift::All).await.unwrap().len(), 1);
    assert!(vault.held(&account).await.unwrap().is_none());
}

async fn holds_are_told_and_other_facts_are_not(vault: &Vault) {
    let mut changes = vault.changes();
    let alice = user("acme", "alice");
    vault.put_fact(&fact("acme", FactKind::User, "7"), None, b"x").await.unwrap();
    vault.hold(&alice, hold(Source::Scim, 5)).await.unwrap();
    vault.hold(&alice, hold(Source::Scim, 5)).await.unwrap();
    vault.lift(&alice, &Lift::All).await.unwrap();
    for _ in 0..2 {
        assert_eq!(changes.try_recv().unwrap(), Change::Whole(alice.clone()));
    }
    assert!(matches!(changes.try_recv(), Err(TryRecvError::Empty)));
}
