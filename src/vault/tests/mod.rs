//! What holds over every store (`suite`), what holds of opening (`opening`), and what the disk may do (`disk`).

mod disk;
mod opening;
mod suite;

use std::{collections::BTreeMap, path::Path};

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

/// A vault in a directory of its own.
async fn on_disk() -> (TempDir, Vault) {
    let dir = tempfile::tempdir().unwrap();
    let vault = init(dir.path()).await;
    (dir, vault)
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
