//! The cache between the vault and the requests.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

use super::{Credential, Error, Needles, Permit, Signer};
use crate::{
    catalog::{AuthType, Connector, Injection, Template},
    id::AccountKey,
    secret::Secret,
    vault::{Account, Status, Vault, Whole},
};

/// Resolves permits to credentials. Cloning is cheap.
#[derive(Clone)]
pub struct Resolver {
    vault: Arc<Vault>,
    cache: Arc<Cache>,
}

/// Read without a lock; written whole, under one.
#[derive(Default)]
struct Cache {
    entries: ArcSwap<HashMap<AccountKey, Entry>>,
    /// What tells an account's streams of their end, as long as it may be used: a stream may have begun under an
    /// older secret than the one that is remembered. Whoever writes the entries has this.
    ends: Mutex<HashMap<AccountKey, CancellationToken>>,
    /// Counts what was forgotten, so that what was read before is not remembered after.
    forgotten: AtomicU64,
}

#[derive(Clone)]
struct Entry {
    account: Arc<Account>,
    /// The connector as it was when the headers were made: another policy set makes them anew.
    connector: Arc<Connector>,
    credential: Arc<Credential>,
}

impl Resolver {
    /// A resolver that reads accounts from this vault when they are first used.
    #[must_use]
    pub fn new(vault: Arc<Vault>) -> Self {
        Self { vault, cache: Arc::default() }
    }

    /// The credential of the permit's account. `captured` is what the request's host left open in the
    /// connector's pattern, and must be what the account's metadata says.
    ///
    /// # Errors
    /// [`Error`], each a refusal of its own; nothing is ever injected in place of what is missing.
    pub async fn resolve(
        &self,
        permit: &Permit,
        connector: &Arc<Connector>,
        captured: Option<(&str, &str)>,
    ) -> Result<Arc<Credential>, Error> {
        self.look(permit, connector, captured).await
    }

    /// As [`Resolver::resolve`], with what the vault holds and nothing else: no provider is asked.
    pub(super) async fn look(
        &self,
        permit: &Permit,
        connector: &Arc<Connector>,
        captured: Option<(&str, &str)>,
    ) -> Result<Arc<Credential>, Error> {
        if connector.auth.kind == AuthType::None {
            return Ok(Arc::new(nothing(connector)));
        }
        let (account, credential) = self.entry(permit.account(), connector).await?;
        check(&account, permit, captured)?;
        Ok(credential)
    }

    /// Forgets every account: some have changed, and nobody knows which.
    pub async fn all_changed(&self) {
        for key in self.forget(|_| true) {
            self.end_unless_usable(&key).await;
        }
    }

    /// Forgets an account that has changed; if it may no longer be used, ends its open streams.
    pub async fn changed(&self, key: &AccountKey) {
        for key in self.forget(|known| known == key) {
            self.end_unless_usable(&key).await;
        }
    }

    /// Forgets all accounts of a tenant or user that was frozen or unfrozen as a whole; ends their open streams if it
    /// is frozen, or nobody can tell.
    pub async fn whole_changed(&self, whose: &Whole) {
        let known = self.forget(|known| whose.has(known));
        if !matches!(self.vault.holds_of(whose).await, Ok(holds) if holds.is_empty()) {
            self.end(&known);
        }
    }

    /// Forgets accounts, in one step, and names those that may have open streams.
    fn forget(&self, is_meant: impl Fn(&AccountKey) -> bool) -> Vec<AccountKey> {
        let ends = self.cache.ends();
        self.cache.forgotten.fetch_add(1, Ordering::SeqCst);
        let mut entries = HashMap::clone(&self.cache.entries.load());
        entries.retain(|key, _| !is_meant(key));
        self.cache.entries.store(Arc::new(entries));
        ends.keys().filter(|key| is_meant(key)).cloned().collect()
    }

    async fn end_unless_usable(&self, key: &AccountKey) {
        let active = matches!(self.vault.account(key).await, Ok(Some(now)) if now.status == Status::Active);
        if !active || !matches!(self.vault.held(key).await, Ok(None)) {
            self.end(std::slice::from_ref(key));
        }
    }

    /// Ends the open streams of accounts. Whoever has become usable meanwhile begins anew.
    fn end(&self, keys: &[AccountKey]) {
        let mut ends = self.cache.ends();
        self.cache.forgotten.fetch_add(1, Ordering::SeqCst);
        let mut entries = HashMap::clone(&self.cache.entries.load());
        for key in keys {
            entries.remove(key);
            if let Some(ended) = ends.remove(key) {
                ended.cancel();
            }
        }
        self.cache.entries.store(Arc::new(entries));
    }

    async fn entry(
        &self,
        key: &AccountKey,
        connector: &Arc<Connector>,
    ) -> Result<(Arc<Account>, Arc<Credential>), Error> {
        if let Some(entry) = self.cache.entries.load().get(key)
            && Arc::ptr_eq(&entry.connector, connector)
        {
            return Ok((Arc::clone(&entry.account), Arc::clone(&entry.credential)));
        }
        loop {
            let before = self.cache.forgotten.load(Ordering::SeqCst);
            // Nothing that is held gets into the cache, so that a request finds it out there, without a lock.
            if let Some(hold) = self.vault.held(key).await? {
                return Err(Error::Frozen { by: hold.by });
            }
            let account = self.vault.account(key).await?.ok_or_else(|| Error::Missing(key.clone()))?;
            usable(&account)?;
            let credential = render(&account, connector)?;
            let account = Arc::new(account);
            if let Some(entry) = self.remember(account, connector, credential, before) {
                return Ok((entry.account, entry.credential));
            }
        }
    }

    /// Keeps what was read, unless an account changed since: then it must be read again. Who comes second
    /// takes what the first one kept, so that all requests share one credential, and one end of it.
    fn remember(
        &self,
        account: Arc<Account>,
        connector: &Arc<Connector>,
        mut credential: Credential,
        before: u64,
    ) -> Option<Entry> {
        let mut ends = self.cache.ends();
        if self.cache.forgotten.load(Ordering::SeqCst) != before {
            return None;
        }
        let entries = self.cache.entries.load();
        if let Some(entry) = entries.get(&account.key)
            && Arc::ptr_eq(&entry.connector, connector)
        {
            return Some(entry.clone());
        }
        credential.ended = ends.entry(account.key.clone()).or_default().clone();
        let entry = Entry { account, connector: Arc::clone(connector), credential: Arc::new(credential) };
        let mut entries = HashMap::clone(&entries);
        entries.insert(entry.account.key.clone(), entry.clone());
        self.cache.entries.store(Arc::new(entries));
        Some(entry)
    }
}

impl Cache {
    /// No holder can panic half-way, so what a poisoned lock guards is whole.
    fn ends(&self) -> MutexGuard<'_, HashMap<AccountKey, CancellationToken>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn usable(account: &Account) -> Result<(), Error> {
    match &account.status {
        Status::Active => Ok(()),
        Status::Frozen { by } => Err(Error::Frozen { by: by.clone() }),
        Status::Revoked => Err(Error::Revoked(account.key.clone())),
    }
}

fn check(account: &Account, permit: &Permit, captured: Option<(&str, &str)>) -> Result<(), Error> {
    if let Some((name, value)) = captured {
        let expected = account.metadata.get(name);
        if expected.is_none_or(|expected| !expected.eq_ignore_ascii_case(value)) {
            return Err(Error::Host { name: name.to_owned(), expected: expected.cloned() });
        }
    }
    match &account.scopes {
        Some(granted) if !permit.scopes().iter().all(|s| granted.contains(s)) => Err(Error::Scopes {
            account: account.key.clone(),
            required: permit.scopes().to_vec(),
            granted: granted.clone(),
        }),
        _ => Ok(()),
    }
}

/// The credential of a connector that takes none: everything of the agent's is stripped, nothing is put in.
fn nothing(connector: &Connector) -> Credential {
    Credential {
        label: None,
        generation: None,
        authorization: None,
        headers: Vec::new(),
        query: Vec::new(),
        signer: None,
        target: connector.target(&BTreeMap::new()),
        needles: Arc::new(Needles::new([])),
        ended: CancellationToken::new(),
    }
}

fn render(account: &Account, connector: &Connector) -> Result<Credential, Error> {
    let fields = account.material.fields();
    let mut echoes: Vec<Secret> = fields.values().cloned().collect();
    let mut headers = Vec::new();
    let mut query = Vec::new();
    for injection in &connector.inject {
        match injection {
            Injection::Header(name, template) => {
                let value = fill(template, &fields, &mut echoes)?;
                headers.push((name.clone(), header(name, &value)?));
            }
            Injection::Query(name, template) => {
                query.push((name.clone(), fill(template, &fields, &mut echoes)?));
            }
        }
    }
    let signer = match connector.auth.kind {
        AuthType::AwsSigv4 => Some(Signer::new(&fields)?),
        _ => None,
    };
    Ok(Credential {
        label: Some(account.key.to_string().into()),
        generation: Some(account.generation),
        authorization: account.authorization.as_deref().map(Arc::from),
        headers,
        query,
        signer,
        target: connector.target(&account.metadata),
        needles: Arc::new(Needles::new(&echoes)),
        ended: CancellationToken::new(),
    })
}

#[expect(clippy::disallowed_methods, reason = "this is where a header credential is made")]
fn header(name: &HeaderName, value: &Secret) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_bytes(value.expose()).map_err(|_| Error::Unwritable(name.clone()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Fills a template. The last word of what it gives joins what is looked for in answers: it may be an encoding
/// of a secret, as in `Basic dXNlcjpwYXNz`.
#[expect(clippy::disallowed_methods, reason = "this is where a credential is put together")]
fn fill(
    template: &Template,
    fields: &BTreeMap<String, Secret>,
    echoes: &mut Vec<Secret>,
) -> Result<Secret, Error> {
    let value = template.render(|name| fields.get(name).map(Secret::expose))?;
    let last = value.rsplit(|byte| *byte == b' ').next().unwrap_or(&value);
    echoes.push(Secret::new(last.to_vec()));
    Ok(Secret::new(value.to_vec()))
}
