//! The vault: an account opened (its tenant's data key, then the account), and sealed anew with a next
//! generation. In memory, so that the figures are the cipher's and the record's, not the disk's.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use criterion::Criterion;
use keybearer::{
    drain::Drain,
    id::{AccountKey, ConnectorName, Principal, RoleName, TenantId},
    secret::Secret,
    vault::{Material, NewAccount, Vault},
};

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let key = AccountKey {
        tenant: TenantId::new("acme")?,
        connector: ConnectorName::new("bench")?,
        principal: Principal::Role(RoleName::new("bench")?),
    };
    let vault = runtime.block_on(vault_with(&key))?;
    let opened = runtime.block_on(vault.account(&key))?.context("no account")?;
    ensure!(*opened.material.fields() == fields(), "the account does not hold what was put in");

    let mut group = criterion.benchmark_group("seal");
    group.bench_function("open", |bencher| bencher.iter(|| runtime.block_on(vault.account(&key))));
    // Also opens the account that it replaces.
    group.bench_function("rotate", |bencher| {
        bencher.iter(|| runtime.block_on(vault.rotate(&key, fields())));
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}

async fn vault_with(key: &AccountKey) -> Result<Vault> {
    let vault = Vault::in_memory(&Drain::default()).await?;
    let account = NewAccount {
        key: key.clone(),
        material: Material::Static { fields: fields() },
        scopes: None,
        metadata: BTreeMap::new(),
        authorization: None,
    };
    vault.add(account).await?;
    Ok(vault)
}

/// As long as a GitHub token.
fn fields() -> BTreeMap<String, Secret> {
    let token = Secret::new(b"ghp_0123456789abcdefghijklmnopqrstuvwxyz".to_vec());
    BTreeMap::from([("token".to_owned(), token)])
}
