//! A vault full of accounts, written through the library as `account connect` would, one after the other's consent.

use std::{path::Path, time::Duration};

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use keybearer::{
    drain::Drain,
    secret::Secret,
    vault::{Access, Claim, Config, Grant, GrantState, Material, NewAccount, Vault},
};

use super::account;
use crate::support::issuer::Issuer;

/// Written at the same time: one sync of the disk serves them all.
const AT_ONCE: usize = 256;
/// The vault is closed by then.
const STOPPING: Duration = Duration::from_secs(10);

/// Makes a vault with so many accounts, all connected and used just now, whose tokens live so long.
pub(super) async fn fill(issuer: &Issuer, data: &Path, accounts: usize, life: Duration) -> Result<()> {
    let claim = Claim { command: "the benchmark".to_owned(), admin_socket: None };
    let drain = Drain::default();
    let (vault, _) = Vault::init(&Config::default(), data, &claim, &drain).await?;
    let now = Timestamp::now();
    let added =
        stream::iter(0..accounts).map(|number| vault.add(connected(issuer, number, (now, now + life))));
    added.buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
    drop(vault);
    drain.finish(STOPPING).await;
    Ok(())
}

fn connected(issuer: &Issuer, number: usize, (now, end): (Timestamp, Timestamp)) -> NewAccount {
    let (key, _) = account(number);
    let sold = issuer.consent(&key.to_string(), &["read"]);
    let secret = |text: String| Secret::new(text.into_bytes());
    let grant = Grant {
        access: Some(Access { token: secret(sold.access), expires: Some(end), obtained: now }),
        refresh: sold.refresh.map(secret),
        refresh_expires: None,
        deadline: None,
        subject: Some("somebody".to_owned()),
        provider_scopes: sold.scopes,
        used: Some(now),
        state: GrantState::Fresh,
    };
    NewAccount {
        key,
        material: Material::Oauth(Box::new(grant)),
        scopes: Some(["items:read".parse().expect("a scope")].into()),
        metadata: [].into(),
        authorization: Some("the benchmark's consent".to_owned()),
    }
}
