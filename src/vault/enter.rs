//! Opening and making a vault: the directory, the key, the store, in this order.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{broadcast, mpsc};

use super::{
    Backend, Change, Claim, Config, Error, Fingerprint, Inner, KeyError, KeySource, StoreError, Vault,
    lock::Lock,
    seal::{Bound, Key},
    store::{MemoryStore, SledStore, Store},
};
use crate::drain::Drain;

/// The store's directory in the data directory.
const DIR: &str = "vault";
/// The key's file in the data directory, where the configuration names none.
const KEY_FILE: &str = "vault.key";

/// What [`Vault::init`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initialised {
    /// It made the key file.
    pub key: bool,
    /// It made the store.
    pub store: bool,
}

/// How many changes a receiver may be behind before it is told that it missed some.
const CHANGES_KEPT: usize = 1024;

/// Whether a vault has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Existing,
    MakeMissing,
}

impl Vault {
    /// Takes the data directory, and opens the vault in it.
    ///
    /// # Errors
    /// Where there is none yet ([`Error::NoVault`]), another process has it, the key is not its key, or its
    /// files are torn.
    pub async fn open(config: &Config, data_dir: &Path, claim: &Claim, drain: &Drain) -> Result<Self, Error> {
        let made = Self::enter(config, data_dir, claim, drain, Entry::Existing).await?;
        Ok(made.0)
    }

    /// Like [`Vault::open`], and makes the key file and the store where there are none yet. It never makes a new
    /// key for a store that is there.
    ///
    /// # Errors
    /// As [`Vault::open`], or where something cannot be made.
    pub async fn init(
        config: &Config,
        data_dir: &Path,
        claim: &Claim,
        drain: &Drain,
    ) -> Result<(Self, Initialised), Error> {
        Self::enter(config, data_dir, claim, drain, Entry::MakeMissing).await
    }

    /// A vault that ends with the process, under a key that nobody else has.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub async fn in_memory(drain: &Drain) -> Result<Self, Error> {
        let kek = Key::generate().map_err(|_| KeyError::Random)?;
        Self::over(Box::new(MemoryStore::default()), kek, Backend::Memory, None, drain)
            .await
            .map(|(vault, _)| vault)
    }

    async fn enter(
        config: &Config,
        data_dir: &Path,
        claim: &Claim,
        drain: &Drain,
        entry: Entry,
    ) -> Result<(Self, Initialised), Error> {
        if config.backend != Backend::Sled {
            return Err(Error::NotSupported(config.backend));
        }
        let (data_dir, claim, opening) = (data_dir.to_owned(), claim.clone(), drain.clone());
        let source = config.key.clone().unwrap_or_else(|| KeySource::File(data_dir.join(KEY_FILE)));
        let dir = data_dir.join(DIR);
        let (store, kek, new_key) = drain
            .spawn_blocking(move || enter_blocking(&data_dir, &claim, &source, entry, opening))
            .await
            .map_err(|error| StoreError::from_join(&dir, &error))??;
        let store = Box::new(store);
        let (vault, new_store) = Self::over(store, kek, Backend::Sled, Some((dir, entry)), drain).await?;
        Ok((vault, Initialised { key: new_key, store: new_store }))
    }

    /// Checks the key against the store's header, or writes the header of a new store. Says whether it did.
    async fn over(
        store: Box<dyn Store>,
        kek: Key,
        backend: Backend,
        place: Option<(PathBuf, Entry)>,
        drain: &Drain,
    ) -> Result<(Self, bool), Error> {
        let header = store.header().await?;
        let is_new = header.is_none();
        match (header, &place) {
            (Some(header), _) => check_header(&kek, &header)?,
            (None, Some((dir, Entry::Existing))) => return Err(Error::NoVault(dir.clone())),
            (None, _) if !store.rows(None).await?.is_empty() => {
                return Err(Error::unopened("the vault's header", "it is missing"));
            }
            (None, _) => {
                let header = make_header(&kek)?;
                store.create_header(header).await?;
            }
        }
        let changes = broadcast::Sender::new(CHANGES_KEPT);
        if let Some(others) = store.changes() {
            drain.detach(tell(others, changes.clone()));
        }
        let dir = place.map(|(dir, _)| dir);
        Ok((Self(Arc::new(Inner { store, kek, backend, dir, drain: drain.clone(), changes })), is_new))
    }
}

/// Tells what other processes change, as long as the store does.
async fn tell(mut others: mpsc::Receiver<Change>, changes: broadcast::Sender<Change>) {
    while let Some(change) = others.recv().await {
        let _ = changes.send(change); // an error says that nobody listens
    }
}

/// Takes the directory first, so that nothing is read or made while another process is at it.
fn enter_blocking(
    data_dir: &Path,
    claim: &Claim,
    source: &KeySource,
    entry: Entry,
    drain: Drain,
) -> Result<(SledStore, Key, bool), Error> {
    let dir = data_dir.join(DIR);
    if entry == Entry::Existing && !SledStore::exists(&dir) {
        return Err(Error::NoVault(dir)); // and no directory made for a lock
    }
    let lock = Lock::acquire(data_dir, claim)?;
    let exists = SledStore::exists(&dir);
    let (kek, new_key) = match source.load() {
        Ok(kek) => (kek, false),
        Err(source @ (KeyError::NoFile(_) | KeyError::NoValue(_))) if exists => {
            return Err(Error::KeyGone { dir, source });
        }
        Err(KeyError::NoFile(_)) => source.load_or_create()?,
        Err(error) => return Err(error.into()),
    };
    if !exists {
        SledStore::make(&dir, &lock)?;
    }
    let store = SledStore::open(&dir, lock, drain)?;
    Ok((store, kek, new_key))
}

/// A new vault's header: the key's fingerprint, and a sealed text (with the format's version first) that only
/// the key opens.
fn make_header(kek: &Key) -> Result<Vec<u8>, Error> {
    let sealed = kek.seal(&Bound::verifier(), b"").map_err(|_| Error::CannotSeal("the header".to_owned()))?;
    Ok([kek.fingerprint().as_bytes(), sealed.as_slice()].concat())
}

fn check_header(kek: &Key, header: &[u8]) -> Result<(), Error> {
    let found = kek.fingerprint();
    let torn = |why: &str| Error::unopened("the vault's header", why);
    let (expected, sealed) = header.split_first_chunk().ok_or_else(|| torn("it is too short"))?;
    let expected = Fingerprint::from_bytes(*expected);
    if expected != found {
        return Err(Error::WrongKey { expected, found });
    }
    kek.open(&Bound::verifier(), sealed).map(drop).map_err(|error| torn(&error.to_string()))
}
