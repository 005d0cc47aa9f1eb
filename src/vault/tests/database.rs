//! What a shared database may do, and what others may do in it.

use std::fs;

use tokio::sync::broadcast::Receiver;

use super::{
    postgres::{Postgres, connect},
    relay::Relay,
    *,
};
use crate::vault::store::Error as StoreError;

const NAME: &str = "acme/github/writer";

async fn init_at(config: &Config, dir: &Path) -> Result<(Vault, Initialised), Error> {
    Vault::init(config, dir, &claim(), &Drain::default()).await
}

async fn open_at(config: &Config, dir: &Path) -> Result<Vault, Error> {
    Vault::open(config, dir, &claim(), &Drain::default()).await
}

/// A database with a vault that has one account, and its key in a directory.
async fn made() -> (TempDir, String, Config) {
    let (dir, url) = (tempfile::tempdir().unwrap(), Postgres::shared().database().await);
    let config = at_database(&url, dir.path());
    let vault = init_at(&config, dir.path()).await.unwrap().0;
    vault.add(new_account(NAME, "token-one")).await.unwrap();
    (dir, url, config)
}

/// What does not come in this time does not come.
async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("waited in vain")
}

/// Waits until this very change is told.
async fn told(changes: &mut Receiver<Change>, change: &Change) {
    soon(async { while changes.recv().await.unwrap() != *change {} }).await;
}

/// Waits for something that the server does not tell of.
async fn until(client: &tokio_postgres::Client, what: &str) {
    let asking = async {
        while client.query_opt(what, &[]).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    soon(asking).await;
}

fn is_unreachable<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Store(StoreError::Unreachable { .. })))
}

#[tokio::test]
async fn one_process_hears_and_sees_what_another_one_does() {
    let (dir, _, config) = made().await;
    let [one, two] =
        [open_at(&config, dir.path()).await.unwrap(), open_at(&config, dir.path()).await.unwrap()];
    let (name, mut heard) = (key(NAME), two.changes());
    one.freeze(&name, "alice").await.unwrap();
    told(&mut heard, &Change::Account(name.clone())).await;
    assert_eq!(two.account(&name).await.unwrap().unwrap().status.as_str(), "frozen");
    one.remove(&name).await.unwrap();
    told(&mut heard, &Change::Account(name.clone())).await;
    assert_eq!(two.account(&name).await.unwrap(), None);
    one.add(new_account(NAME, "token-two")).await.unwrap();
    told(&mut heard, &Change::Account(name.clone())).await;
    assert!(holds(&two.account(&name).await.unwrap().unwrap(), "token-two"));
}

#[tokio::test]
async fn one_process_hears_of_a_whole_that_another_one_freezes() {
    let (dir, _, config) = made().await;
    let [one, two] =
        [open_at(&config, dir.path()).await.unwrap(), open_at(&config, dir.path()).await.unwrap()];
    let (acme, alice) = ("acme".parse().unwrap(), "alice@acme.example".parse().unwrap());
    let mut heard = two.changes();
    for whole in [Whole::of_user(&acme, &alice), Whole::of_tenant(acme)] {
        let hold = Hold { source: Source::Scim, by: "scim".to_owned(), since: Timestamp::UNIX_EPOCH };
        one.hold(&whole, hold).await.unwrap();
        told(&mut heard, &Change::Whole(whole.clone())).await;
        assert_eq!(two.holds_of(&whole).await.unwrap().len(), 1);
    }
    assert!(two.held(&key(NAME)).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_changed_by_hand_is_told_too() {
    let (dir, url, config) = made().await;
    let vault = open_at(&config, dir.path()).await.unwrap();
    let (mut heard, psql) = (vault.changes(), connect(&url).await);
    psql.batch_execute("UPDATE keybearer.accounts SET generation = 7").await.unwrap();
    told(&mut heard, &Change::Account(key(NAME))).await;
    psql.batch_execute("NOTIFY keybearer, 'something newer'").await.unwrap();
    told(&mut heard, &Change::Unknown).await;
    psql.batch_execute("DELETE FROM keybearer.accounts").await.unwrap();
    told(&mut heard, &Change::Account(key(NAME))).await;
}

#[tokio::test]
async fn of_many_that_come_first_one_makes_the_vault_and_its_key() {
    let (dirs, url) = ([(); 4].map(|()| tempfile::tempdir().unwrap()), Postgres::shared().database().await);
    let configs = dirs.each_ref().map(|dir| at_database(&url, dir.path()));
    let openings = configs.iter().zip(&dirs).map(|(config, dir)| init_at(config, dir.path()));
    let outcomes = futures_util::future::join_all(openings).await;
    let made = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).map(|(_, made)| *made);
    assert_eq!(made.collect::<Vec<_>>(), [Initialised { key: true, store: true }]);
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(matches!(refused, Error::KeyGone { .. }), "{refused}");
    }
    let keys: Vec<_> =
        dirs.iter().map(|dir| dir.path().join("vault.key")).filter(|file| file.exists()).collect();
    let [file] = keys.as_slice() else { panic!("{keys:?}") };
    let key = Some(KeySource::File(file.clone()));
    for config in configs {
        let config = Config { key: key.clone(), ..config };
        assert!(open_at(&config, file.parent().unwrap()).await.is_ok(), "with its key, everybody may");
    }
}

#[tokio::test]
async fn an_empty_database_is_no_vault_and_stays_empty() {
    let (dir, url) = (tempfile::tempdir().unwrap(), Postgres::shared().database().await);
    let config = at_database(&url, dir.path());
    let refused = open_at(&config, dir.path()).await.unwrap_err();
    assert!(matches!(refused, Error::NoVault(_)), "{refused}");
    assert!(refused.to_string().contains("there is no vault in PostgreSQL at /"), "{refused}");
    let psql = connect(&url).await;
    let schemas = "SELECT 1 FROM pg_namespace WHERE nspname = 'keybearer'";
    assert!(psql.query_opt(schemas, &[]).await.unwrap().is_none());
}

#[tokio::test]
async fn a_later_schema_is_refused_and_left_alone() {
    let (dir, url, config) = made().await;
    connect(&url).await.batch_execute("INSERT INTO keybearer.migrations VALUES (1000)").await.unwrap();
    for refused in [open_at(&config, dir.path()).await.err(), init_at(&config, dir.path()).await.err()] {
        let refused = refused.unwrap();
        assert!(matches!(refused, Error::Store(StoreError::Newer { found: 1000, .. })), "{refused}");
    }
}

/// The rights that docs/postgres.md asks for, and no more.
#[tokio::test]
async fn a_user_without_rights_to_make_tables_is_enough_for_a_vault_that_is_made() {
    let (dir, url, config) = made().await;
    let psql = connect(&url).await;
    psql.batch_execute(&format!(
        "CREATE ROLE plain_{0} LOGIN; GRANT USAGE ON SCHEMA keybearer TO plain_{0};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA keybearer TO plain_{0};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA keybearer TO plain_{0}",
        std::process::id()
    ))
    .await
    .unwrap();
    let plain = url.replace("keybearer@", &format!("plain_{}@", std::process::id()));
    let plain = Config { url: Some(Url::parse(&plain).unwrap()), ..config };
    let vault = init_at(&plain, dir.path()).await.unwrap().0;
    vault.freeze(&key(NAME), "alice").await.unwrap();
    let lease = vault.lease(&key(NAME), "replica-1", Duration::from_mins(1)).await.unwrap().unwrap();
    vault.drop_intent(&lease, Some(b"note")).await.unwrap();
    assert_eq!(vault.outbox(1).await.unwrap().len(), 1);

    let empty =
        Postgres::shared().database().await.replace("keybearer@", &format!("plain_{}@", std::process::id()));
    let empty = Config { url: Some(Url::parse(&empty).unwrap()), ..plain };
    let refused = init_at(&empty, dir.path()).await.unwrap_err();
    assert!(refused.to_string().contains("refused: permission denied for database"), "{refused}");
}

/// Everybody but the superuser has to say a password.
const PASSWORDS: &str = "local all keybearer trust\nlocal all all scram-sha-256\n";

#[tokio::test]
async fn a_wrong_password_is_told_and_a_password_file_is_read() {
    let server = Postgres::start("", &[("pg_hba.conf", PASSWORDS)]);
    let psql = connect(&server.url("postgres")).await;
    psql.batch_execute("CREATE ROLE app LOGIN PASSWORD 'kb-canary-database-password'").await.unwrap();
    psql.batch_execute("CREATE DATABASE app OWNER app").await.unwrap();
    let (dir, url) = (tempfile::tempdir().unwrap(), server.url("app").replace("keybearer@", "app@"));
    let file = dir.path().join("password");
    let config = Config { password_file: Some(file.clone()), ..at_database(&url, dir.path()) };
    let refused = init_at(&config, dir.path()).await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::Password { .. })), "{refused}");
    fs::write(&file, "hunter2\n").unwrap();
    let refused = init_at(&config, dir.path()).await.unwrap_err().to_string();
    assert!(refused.contains("password authentication failed") && !refused.contains("hunter2"), "{refused}");
    fs::write(&file, "kb-canary-database-password\n").unwrap();
    assert!(init_at(&config, dir.path()).await.is_ok());
}

/// A server on a TCP port of loopback with this certificate, and its URL.
fn by_tcp(settings: &str, files: &[(&str, &str)]) -> (Postgres, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!("listen_addresses = '127.0.0.1'\nport = {port}\n{settings}");
    let all = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
    let server = Postgres::start(&settings, &[files, &[("pg_hba.conf", all)]].concat());
    (server, format!("postgres://keybearer@localhost:{port}/postgres"))
}

#[tokio::test]
async fn the_databases_certificate_is_verified() {
    let of = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = of(&["localhost"]);
    let settings = "ssl = on\nssl_cert_file = 'tls.crt'\nssl_key_file = 'tls.key'\n";
    let (_server, url) = by_tcp(settings, &[("tls.crt", &certificate), ("tls.key", &key)]);
    let trusting = |pem: &str, url: &str| {
        fs::write(dir.path().join("roots.pem"), pem).unwrap();
        let roots = crate::tls::Roots::File(dir.path().join("roots.pem"));
        Config { roots, ..at_database(url, dir.path()) }
    };
    let by_tls = format!("{url}?sslmode=verify-full");
    let refused =
        init_at(&trusting(&of(&["localhost"]).0, &by_tls), dir.path()).await.unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate") && refused.contains("vault.roots"), "{refused}");
    let by_address = by_tls.replace("localhost", "127.0.0.1");
    let refused = init_at(&trusting(&certificate, &by_address), dir.path()).await.unwrap_err().to_string();
    assert!(refused.contains("not valid for name"), "{refused}");
    init_at(&trusting(&certificate, &by_tls), dir.path()).await.unwrap();
    let psql = connect(&url).await;
    let encrypted = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'keybearer %'";
    assert!(psql.query(encrypted, &[]).await.unwrap().iter().all(|row| row.get(0)));

    let (_plain, url) = by_tcp("", &[]);
    let refused = init_at(&trusting(&certificate, &format!("{url}?sslmode=require")), dir.path()).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("does not support TLS") && refused.contains("sslmode=disable"), "{refused}");
}

#[tokio::test]
async fn a_stopped_database_is_told_and_found_again_by_itself() {
    let server = Postgres::start("", &[]);
    let dir = tempfile::tempdir().unwrap();
    let config = at_database(&server.database().await, dir.path());
    let vault = init_at(&config, dir.path()).await.unwrap().0;
    vault.add(new_account(NAME, "token-one")).await.unwrap();
    let mut heard = vault.changes();

    server.stop();
    assert!(is_unreachable(&vault.account(&key(NAME)).await));
    assert!(is_unreachable(&vault.freeze(&key(NAME), "alice").await));
    assert!(is_unreachable(&vault.list(None).await));
    let refused = open_at(&config, dir.path()).await.err().unwrap();
    assert!(refused.to_string().contains("cannot be reached"), "{refused}");

    server.resume();
    assert!(holds(&vault.account(&key(NAME)).await.unwrap().unwrap(), "token-one"));
    told(&mut heard, &Change::Unknown).await;
    let other = open_at(&config, dir.path()).await.unwrap();
    other.freeze(&key(NAME), "alice").await.unwrap();
    told(&mut heard, &Change::Account(key(NAME))).await;
}

#[tokio::test]
async fn who_does_not_hear_from_the_database_says_so_again_and_again() {
    let drain = Drain::default();
    let (dir, url) = (tempfile::tempdir().unwrap(), Postgres::shared().database().await);
    let relay = Relay::before(&url, &drain);
    let config =
        Config { offline_use: Some(Duration::from_millis(100)), ..at_database(&relay.url(&url), dir.path()) };
    let vault = init_at(&config, dir.path()).await.unwrap().0;
    let mut heard = vault.changes();
    assert!(vault.is_heard());
    relay.be_silent(true);
    for _ in 0..3 {
        told(&mut heard, &Change::Unknown).await;
    }
    assert!(!vault.is_heard());
    let other = open_at(&at_database(&url, dir.path()), dir.path()).await.unwrap();
    other.add(new_account(NAME, "token-one")).await.unwrap();
    relay.be_silent(false);
    told(&mut heard, &Change::Account(key(NAME))).await;
    soon(async {
        while !vault.is_heard() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_cut_while_a_change_waits_leaves_it_to_be_made_once() {
    let (dir, url, config) = made().await;
    let vault = open_at(&config, dir.path()).await.unwrap();
    let [mut holder, psql] = [connect(&url).await, connect(&url).await];
    let waits = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for generation in 2..5 {
        let held = holder.transaction().await.unwrap();
        held.query("SELECT 1 FROM keybearer.accounts FOR UPDATE", &[]).await.unwrap();
        let rotating = vault.0.drain.spawn({
            let vault = vault.clone();
            async move { vault.rotate(&key(NAME), fields("token-two")).await }
        });
        until(&psql, &format!("SELECT 1 {waits}")).await;
        until(&psql, &format!("SELECT pg_terminate_backend(pid) {waits}")).await;
        held.rollback().await.unwrap();
        assert_eq!(rotating.await.unwrap().unwrap().generation, generation);
    }
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_known_to_have_been_made() {
    let drain = Drain::default();
    let (dir, url, config) = made().await;
    let relay = Relay::before(&url, &drain);
    let by_relay = Config { url: Some(Url::parse(&relay.url(&url)).unwrap()), ..config };
    let vault = open_at(&by_relay, dir.path()).await.unwrap();

    relay.lose_answer_to("UPDATE keybearer.accounts");
    assert_eq!(vault.rotate(&key(NAME), fields("token-two")).await.unwrap().generation, 2);
    assert!(relay.has_lost());
    relay.lose_answer_to("INSERT INTO keybearer.accounts");
    vault.add(new_account("acme/slack/tenant", "token-slack")).await.unwrap();
    assert!(relay.has_lost());
    relay.lose_answer_to("DELETE FROM keybearer.accounts");
    vault.remove(&key("acme/slack/tenant")).await.unwrap();
    assert!(relay.has_lost());

    vault.connect(granted("acme/salesforce/writer", 1, "alice")).await.unwrap();
    let name = key("acme/salesforce/writer");
    relay.lose_answer_to("INSERT INTO keybearer.leases");
    let lease = vault.lease(&name, "replica-1", Duration::from_mins(1)).await.unwrap().unwrap();
    assert!(relay.has_lost());
    relay.lose_answer_to("INSERT INTO keybearer.leases");
    let other = vault.lease(&name, "replica-2", Duration::from_mins(1)).await.unwrap();
    assert!(relay.has_lost());
    assert_eq!(other, None, "it is replica 1's");
    let next = vault.account(&name).await.unwrap().unwrap();
    relay.lose_answer_to("INSERT INTO keybearer.outbox");
    let committed = vault.commit(&lease, 1, next, Some(b"refreshed")).await.unwrap();
    assert!(matches!(committed, Committed::Done(account) if account.generation == 2));
    assert!(relay.has_lost());
    assert_eq!(vault.outbox(10).await.unwrap().len(), 1, "it is told once");
}

/// Eight holders whose leases run out at once: whoever comes too late commits nothing.
#[tokio::test]
async fn of_many_holders_only_the_newest_commits() {
    let (dir, _, config) = made().await;
    let name = key("acme/salesforce/writer");
    let first = open_at(&config, dir.path()).await.unwrap();
    first.connect(granted("acme/salesforce/writer", 1, "alice")).await.unwrap();
    let mut holders = Vec::new();
    for number in 0..8 {
        let vault = open_at(&config, dir.path()).await.unwrap();
        let lease = vault.lease(&name, &format!("replica-{number}"), Duration::ZERO).await.unwrap().unwrap();
        holders.push((vault, lease));
    }
    assert!(holders.is_sorted_by(|(_, one), (_, other)| one.fence() < other.fence()));
    let next = first.account(&name).await.unwrap().unwrap();
    let commits =
        holders.iter().map(|(vault, lease)| vault.commit(lease, 1, next.clone(), Some(b"refreshed")));
    let outcomes = futures_util::future::join_all(commits).await;
    let (newest, late) = outcomes.split_last().unwrap();
    assert!(matches!(newest, Ok(Committed::Done(_))), "{newest:?}");
    for outcome in late {
        assert!(matches!(outcome, Ok(Committed::Fenced | Committed::Moved)), "{outcome:?}");
    }
    assert_eq!(first.account(&name).await.unwrap().unwrap().generation, 2);
}

/// The next holder must see what the former one began, or that one must not begin.
#[tokio::test]
async fn an_intent_and_the_next_lease_wait_for_each_other() {
    let (dir, url, config) = made().await;
    let name = key("acme/salesforce/writer");
    let [slow, next] =
        [open_at(&config, dir.path()).await.unwrap(), open_at(&config, dir.path()).await.unwrap()];
    slow.connect(granted("acme/salesforce/writer", 1, "alice")).await.unwrap();
    let intent = Intent {
        generation: 1,
        token_hash: [7; 32],
        started: Timestamp::UNIX_EPOCH,
        deadline: Timestamp::UNIX_EPOCH,
        replica: "replica-1".to_owned(),
    };
    let [mut holder, psql] = [connect(&url).await, connect(&url).await];
    let old = slow.lease(&name, "slow", Duration::ZERO).await.unwrap().unwrap();
    let held = holder.transaction().await.unwrap();
    held.query("SELECT 1 FROM keybearer.leases FOR UPDATE", &[]).await.unwrap();
    let leasing = next.lease(&name, "next", Duration::ZERO);
    let both = async { tokio::join!(leasing, slow.intend(&old, &intent)) };
    let waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' HAVING count(*) = 2";
    let release = async {
        until(&psql, waiting).await;
        held.rollback().await.unwrap();
    };
    let ((leased, intended), ()) = tokio::join!(both, release);
    let (leased, intended) = (leased.unwrap().unwrap(), intended.unwrap());
    assert_eq!(leased.orphan().is_some(), intended, "seen, or not begun");
}

#[tokio::test]
async fn notes_are_handed_on_by_their_writer_and_when_it_is_gone_by_others() {
    let (dir, _, config) = made().await;
    let [writer, other] =
        [open_at(&config, dir.path()).await.unwrap(), open_at(&config, dir.path()).await.unwrap()];
    let lease = writer.lease(&key(NAME), "replica-1", Duration::from_mins(1)).await.unwrap().unwrap();
    writer.drop_intent(&lease, Some(b"note")).await.unwrap();
    assert_eq!(writer.outbox(10).await.unwrap().len(), 1);
    assert_eq!(other.outbox(10).await.unwrap().len(), 0);
    drop(writer);
    let handed_on = async {
        while other.outbox(10).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(handed_on).await;
}

/// It was not given the new key before the vault was sealed with it. Nothing is torn, and nothing may be taken for that.
#[tokio::test]
async fn a_process_that_has_only_the_old_key_says_so_and_leaves_everything_as_it_is() {
    let (dir, url, config) = made().await;
    let of = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("vault.key"), of.path().join("vault.key")).unwrap();
    let [one, writer] =
        [open_at(&config, dir.path()).await.unwrap(), open_at(&config, dir.path()).await.unwrap()];
    let two = open_at(&at_database(&url, of.path()), of.path()).await.unwrap();
    let (name, whole) = (key(NAME), Whole::of_tenant("acme".parse().unwrap()));
    let lease = writer.lease(&name, "replica-1", Duration::ZERO).await.unwrap().unwrap();
    writer.drop_intent(&lease, Some(b"note")).await.unwrap();
    let hold = Hold { source: Source::Scim, by: "scim".to_owned(), since: Timestamp::UNIX_EPOCH };
    one.hold(&whole, hold).await.unwrap();
    one.rotate_key(&key_of(9)).await.unwrap();
    drop(writer);

    let is_told = |refused: Error| assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
    is_told(two.account(&name).await.unwrap_err());
    is_told(two.list(None).await.unwrap_err());
    is_told(two.status().await.unwrap_err());
    is_told(two.rotate(&name, fields("token-two")).await.unwrap_err());
    is_told(two.add(new_account("initech/github/writer", "token-one")).await.unwrap_err());
    is_told(two.held(&name).await.unwrap_err());
    is_told(two.lift(&whole, &Lift::All).await.unwrap_err());
    let handed_on = async {
        loop {
            match two.outbox(10).await {
                Ok(notes) => assert!(notes.is_empty(), "{notes:?}"),
                Err(refused) => return is_told(refused),
            }
        }
    };
    soon(handed_on).await;

    let KeySource::Value(new) = key_of(9) else { panic!("it is a value") };
    #[expect(clippy::disallowed_methods, reason = "an operator copies it")]
    fs::write(of.path().join("vault.key"), new.expose()).unwrap();
    assert!(holds(&two.account(&name).await.unwrap().unwrap(), "token-one"));
    assert!(two.held(&name).await.unwrap().is_some());
    let notes = two.outbox(10).await.unwrap();
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].text.as_ref().unwrap(), b"note");
}
