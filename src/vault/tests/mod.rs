//! What holds over every store (`suite`, `refresh`, `rotation`), what holds of opening (`opening`), and what the disk
//! (`disk`) and a shared database (`database`) may do.

/// Makes a test of each fact for each store.
macro_rules! over_every_store {
    ($($fact:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $fact() {
                super::$fact(&super::Vault::in_memory(&super::Drain::default()).await.unwrap()).await;
            })*
        }
        mod sled {
            $(#[tokio::test] async fn $fact() {
                let (_dir, vault) = super::on_disk().await;
                super::$fact(&vault).await;
            })*
        }
        mod postgres {
            $(#[tokio::test] async fn $fact() {
                let (_dir, vault) = super::in_database().await;
                super::$fact(&vault).await;
            })*
        }
    };
}

mod database;
mod disk;
mod opening;
#[path = "../../../tests/it/support/postgres.rs"]
mod postgres;
mod refresh;
mod relay;
mod rotation;
mod suite;

use std::{collections::BTreeMap, path::Path, time::Duration};

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::{drain::Drain, id::Principal, secret::Secret};

fn key(text: &str) -> AccountKey {
    let mut parts = text.split('/');
    let mut part = || parts.next().unwrap();
    let (tenant, connector) = (part().parse().unwrap(), part().parse().unwrap());
    let principal = match part() {
        "developer" => Principal::Developer,
        "tenant" => Principal::Tenant,
        role => Principal::Role(role.parse().unwrap()),
    };
    AccountKey { tenant, connector, principal }
}

fn fields(token: &str) -> BTreeMap<String, Secret> {
    [("token".to_owned(), Secret::new(token.as_bytes().to_vec()))].into()
}

fn new_account(name: &str, token: &str) -> NewAccount {
    NewAccount {
        key: key(name),
        material: Material::Static { fields: fields(token) },
        scopes: None,
        metadata: BTreeMap::new(),
        authorization: None,
    }
}

/// An account of a consent: tokens of this number, for this subject.
fn granted(name: &str, number: u32, subject: &str) -> NewAccount {
    let token = |what: &str| Secret::new(format!("{what}-{number:04}").into_bytes());
    let now = Timestamp::UNIX_EPOCH;
    let grant = Grant {
        access: Some(Access { token: token("access"), expires: None, obtained: now }),
        refresh: Some(token("refresh")),
        refresh_expires: None,
        deadline: None,
        subject: Some(subject.to_owned()),
        provider_scopes: Vec::new(),
        used: None,
        state: GrantState::Fresh,
    };
    NewAccount { material: Material::Oauth(Box::new(grant)), ..new_account(name, "") }
}

fn holds(account: &Account, token: &str) -> bool {
    *account.material.fields() == fields(token)
}

fn claim() -> Claim {
    Claim { command: "keybearer test".to_owned(), admin_socket: None }
}

async fn init(data_dir: &Path) -> Vault {
    Vault::init(&Config::default(), data_dir, &claim(), &Drain::default()).await.unwrap().0
}

async fn open(data_dir: &Path) -> Result<Vault, Error> {
    Vault::open(&Config::default(), data_dir, &claim(), &Drain::default()).await
}

/// A key of one byte only.
fn key_of(byte: u8) -> KeySource {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    KeySource::Value(Secret::new(text.into_bytes()))
}

fn value_key(byte: u8) -> Config {
    Config { key: Some(key_of(byte)), ..Config::default() }
}

async fn open_with(config: &Config, dir: &Path) -> Result<Vault, Error> {
    Vault::open(config, dir, &claim(), &Drain::default()).await
}

async fn init_with(config: &Config, dir: &Path) -> Result<Initialised, Error> {
    Vault::init(config, dir, &claim(), &Drain::default()).await.map(|(_, made)| made)
}

/// A vault in a directory of its own.
async fn on_disk() -> (TempDir, Vault) {
    let dir = tempfile::tempdir().unwrap();
    let vault = init(dir.path()).await;
    (dir, vault)
}

/// A vault in a database of its own.
async fn in_database() -> (TempDir, Vault) {
    let dir = tempfile::tempdir().unwrap();
    let config = at_database(&postgres::Postgres::shared().database().await, dir.path());
    let vault = Vault::init(&config, dir.path(), &claim(), &Drain::default()).await.unwrap().0;
    (dir, vault)
}

/// The configuration of a vault in this database, with its key in `dir`.
fn at_database(url: &str, dir: &Path) -> Config {
    crate::tls::init_crypto();
    Config {
        backend: Backend::Postgres,
        url: Some(Url::parse(url).unwrap()),
        key: Some(KeySource::File(dir.join("vault.key"))),
        // Or a busy machine makes it doubt.
        timeout: Duration::from_mins(1),
        offline_use: Some(Duration::from_mins(10)),
        ..Config::default()
    }
}

/// sled without the vault around it. Its threads may hold its lock for an instant after a vault was dropped.
fn bare_sled(dir: &Path) -> sled::Result<sled::Db> {
    loop {
        match sled::open(dir) {
            Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock") => {
                std::thread::yield_now();
            }
            opened => return opened,
        }
    }
}
