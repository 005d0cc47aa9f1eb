//! Opening and making a vault: the directory, the key, the store, in this order.

use std::{path::Path, sync::Arc};

use tokio::sync::{broadcast, mpsc};

use super::{
    Backend, Change, Claim, Config, Error, Inner, KeyError, Place, StoreError, Url, Vault,
    keys::{HEADER, Header, Keys, Sources},
    lock::Lock,
    seal::Key,
    store::{MemoryStore, PostgresStore, SledStore, Store},
};
use crate::drain::Drain;

/// The store's directory in the data directory.
const DIR: &str = "vault";

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
        Self::over(Box::new(MemoryStore::default()), (vec![kek], None), Backend::Memory, None, drain)
            .await
            .map(|(vault, _)| vault)
    }

    /// One in memory that fails when it is told to.
    #[cfg(test)]
    pub(crate) async fn faulty(drain: &Drain) -> (Self, super::Faults) {
        let (faults, keys) = (super::Faults::default(), (vec![Key::generate().unwrap()], None));
        let store = super::store::FaultyStore::new(faults.clone());
        let vault = Self::over(Box::new(store), keys, Backend::Memory, None, drain).await.unwrap().0;
        (vault, faults)
    }

    async fn enter(
        config: &Config,
        data_dir: &Path,
        claim: &Claim,
        drain: &Drain,
        entry: Entry,
    ) -> Result<(Self, Initialised), Error> {
        let key = config.key_source(data_dir);
        let sources = Sources { key, next: config.next_key.clone() };
        match config.backend {
            Backend::Sled => Self::enter_directory(sources, data_dir, claim, drain, entry).await,
            Backend::Postgres => Self::enter_database(config, sources, drain, entry).await,
            Backend::Broker => Err(Self::elsewhere(config)),
            // No configuration names it.
            Backend::Memory => {
                Self::in_memory(drain).await.map(|vault| (vault, Initialised { key: true, store: true }))
            }
        }
    }

    /// What is asked of a vault here has to be asked of the broker's.
    fn elsewhere(config: &Config) -> Error {
        match config.at_broker() {
            Ok(broker) => Error::AtBroker(broker.map(|broker| broker.name()).unwrap_or_default()),
            Err(error) => error,
        }
    }

    async fn enter_directory(
        sources: Sources,
        data_dir: &Path,
        claim: &Claim,
        drain: &Drain,
        entry: Entry,
    ) -> Result<(Self, Initialised), Error> {
        let (data_dir, claim, opening) = (data_dir.to_owned(), claim.clone(), drain.clone());
        let dir = data_dir.join(DIR);
        let from = sources.clone();
        let (store, keys, new_key) = drain
            .spawn_blocking(move || enter_blocking(&data_dir, &claim, &from, entry, opening))
            .await
            .map_err(|error| StoreError::from_join(&dir, &error))??;
        let (keyring, place) = ((keys, Some(sources)), Some((Place::Dir(dir), entry)));
        let (vault, new_store) = Self::over(Box::new(store), keyring, Backend::Sled, place, drain).await?;
        Ok((vault, Initialised { key: new_key, store: new_store }))
    }

    /// Others may be at it, too, and only one of them may make the vault and its key: so that is done under the
    /// database's lock.
    async fn enter_database(
        config: &Config,
        sources: Sources,
        drain: &Drain,
        entry: Entry,
    ) -> Result<(Self, Initialised), Error> {
        let Some(Url::Database(url)) = &config.url else { return Err(Error::NoUrl) };
        let place = Place::Database(url.to_string());
        let store = PostgresStore::open(url, config, drain).await?;
        let exists = store.exists().await? && store.header().await?.is_some();
        if !exists && entry == Entry::Existing {
            return Err(Error::NoVault(place));
        }
        let entering = if exists { None } else { Some(store.enter().await?) };
        let is_sealed = exists || store.header().await?.is_some();
        let (from, at) = (sources.clone(), place.clone());
        let keyed = drain.spawn_blocking(move || load_keys(&from, is_sealed, &at)).await;
        let (keys, new_key) = keyed.map_err(|_| Error::Interrupted)??;
        let (keyring, place) = ((keys, Some(sources)), Some((place, entry)));
        let made = Self::over(Box::new(store), keyring, Backend::Postgres, place, drain).await;
        drop(entering);
        made.map(|(vault, new_store)| (vault, Initialised { key: new_key, store: new_store }))
    }

    /// Takes the one of these keys that the store's header is of, or writes the header of a new store with the first.
    /// Says whether it did.
    async fn over(
        store: Box<dyn Store>,
        (keys, sources): (Vec<Key>, Option<Sources>),
        backend: Backend,
        place: Option<(Place, Entry)>,
        drain: &Drain,
    ) -> Result<(Self, bool), Error> {
        let header = store.header().await?;
        let is_new = header.is_none();
        let keys = match (header, &place) {
            (Some(header), _) => Keys::fitting(&header, &keys, sources)?,
            (None, Some((place, Entry::Existing))) => return Err(Error::NoVault(place.clone())),
            (None, _) if !store.rows(None).await?.is_empty() => {
                return Err(Error::unopened(HEADER, "it is missing"));
            }
            (None, _) => {
                let key = keys.into_iter().next().ok_or(KeyError::Random)?;
                store.create_header(Header::make(&key)?).await?;
                Keys::new(key, sources)
            }
        };
        let changes = broadcast::Sender::new(CHANGES_KEPT);
        if let Some(others) = store.changes() {
            drain.detach(tell(others, changes.clone()));
        }
        let place = place.map(|(place, _)| place);
        Ok((Self(Arc::new(Inner { store, keys, backend, place, drain: drain.clone(), changes })), is_new))
    }
}

/// Tells what other processes change, as long as the store does.
async fn tell(mut others: mpsc::Receiver<Change>, changes: broadcast::Sender<Change>) {
    while let Some(change) = others.recv().await {
        let _ = changes.send(change); // an error says that nobody listens
    }
}

/// The keys of a vault that is there, or a new one's. Says whether one was made. Blocks.
fn load_keys(sources: &Sources, exists: bool, place: &Place) -> Result<(Vec<Key>, bool), Error> {
    let next = sources.load_next()?;
    let (key, new_key) = match sources.key.load() {
        Ok(key) => (Some(key), false),
        // The key before the next one may be gone when the next one is the vault's.
        Err(KeyError::NoFile(_) | KeyError::NoValue(_)) if exists && next.is_some() => (None, false),
        Err(source @ (KeyError::NoFile(_) | KeyError::NoValue(_))) if exists => {
            return Err(Error::KeyGone { place: place.clone(), source });
        }
        Err(KeyError::NoFile(_)) => {
            let (key, is_new) = sources.key.load_or_create()?;
            (Some(key), is_new)
        }
        Err(error) => return Err(error.into()),
    };
    Ok((key.into_iter().chain(next).collect(), new_key))
}

/// Takes the directory first, so that nothing is read or made while another process is at it.
fn enter_blocking(
    data_dir: &Path,
    claim: &Claim,
    sources: &Sources,
    entry: Entry,
    drain: Drain,
) -> Result<(SledStore, Vec<Key>, bool), Error> {
    let dir = data_dir.join(DIR);
    if entry == Entry::Existing && !SledStore::exists(&dir) {
        return Err(Error::NoVault(Place::Dir(dir))); // and no directory made for a lock
    }
    let lock = Lock::acquire(data_dir, claim)?;
    let exists = SledStore::exists(&dir);
    let (keys, new_key) = load_keys(sources, exists, &Place::Dir(dir.clone()))?;
    if !exists {
        SledStore::make(&dir, &lock)?;
    }
    let store = SledStore::open(&dir, lock, drain)?;
    Ok((store, keys, new_key))
}
