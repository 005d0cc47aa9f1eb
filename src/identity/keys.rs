//! Where the key set comes from, how long it is believed, and when it is read again.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use http::Uri;
use jsonwebtoken::Algorithm;
use tokio::{sync::Mutex, time::Instant};

use super::{ConfigError, Error, JwksSource, key_set::KeySet};
use crate::{
    drain::Drain,
    host::{Authority, Host},
    regular,
};

/// How a key set is fetched: an address to the body of its 200 answer, bounded in bytes and time by whoever
/// makes this. The text of an error goes to the log only.
pub type FetchJwks = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync>;

/// A set older than this is read again, in the background, when a token comes. That token is still checked with
/// the old set; those after the reading are not, and a key that its issuer withdrew is gone.
const REFRESH_AFTER: Duration = Duration::from_mins(5);
/// A set that could not be read again for this long is not believed any more.
const TRUST_FOR: Duration = Duration::from_hours(1);
/// An unknown key is looked for at most this often, or any client could make us call the issuer at will.
const UNKNOWN_KEY_EVERY: Duration = Duration::from_mins(1);
/// After a failure the source is left alone for a while: longer where there are keys to go on with.
const RETRY_AGED_AFTER: Duration = Duration::from_mins(1);
const RETRY_MISSING_AFTER: Duration = Duration::from_secs(5);
/// Far more than any file of keys has, in bytes.
const LARGEST: u64 = 1 << 20;

/// The current key set and how to get the next one.
pub(super) struct Keys {
    source: Source,
    drain: Drain,
    current: ArcSwapOption<KeySet>,
    /// Held through a reading: whoever comes meanwhile waits for its outcome instead of asking again.
    history: Mutex<History>,
}

/// Why the source is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// There is no set that is believed.
    Missing,
    /// The set is old.
    Aged,
    /// A token names a key that the set does not have.
    UnknownKey,
}

#[derive(Default)]
struct History {
    failed: Option<Instant>,
    unknown_key: Option<Instant>,
}

enum Source {
    File(PathBuf),
    Url(String, FetchJwks),
}

impl Keys {
    /// Reads a key file at once, so that a mistake shows at start. An address is fetched when the first token
    /// comes: its issuer may start after us.
    pub(super) fn open(source: JwksSource, fetch: FetchJwks, drain: Drain) -> Result<Arc<Self>, ConfigError> {
        let (source, first) = match source {
            JwksSource::File(path) => {
                let wrong = |why| ConfigError::File { path: path.clone(), why };
                let bytes = regular::read(&path, LARGEST).map_err(|e| wrong(e.to_string()))?;
                let set = KeySet::following(None, bytes).map_err(wrong)?;
                (Source::File(path), Some(Arc::new(set)))
            }
            JwksSource::Url(url) => {
                check_url(&url)?;
                (Source::Url(url, fetch), None)
            }
        };
        let current = ArcSwapOption::new(first);
        Ok(Arc::new(Self { source, drain, current, history: Mutex::default() }))
    }

    /// The set, if there is one that is believed. One that has aged is also read again, in the background.
    pub(super) fn trusted(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let set = self.current.load_full()?;
        let age = set.read_at.elapsed();
        if age >= TRUST_FOR {
            return None;
        }
        if age >= REFRESH_AFTER && self.history.try_lock().is_ok_and(|past| past.permits(Why::Aged)) {
            self.drain.spawn(Arc::clone(self).read_again(Some(set.reading), Why::Aged));
        }
        Some(set)
    }

    /// The set that should have a token's key: read again where the one that is believed does not have it.
    pub(super) async fn having(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<KeySet>, Error> {
        match self.trusted() {
            Some(set) if set.find(kid, algorithm).is_some() => Ok(set),
            Some(set) => self.newer(Some(&set), Why::UnknownKey).await,
            None => self.newer(None, Why::Missing).await,
        }
    }

    /// The set as it is after a reading, or as it was where a reading is not due.
    async fn newer(self: &Arc<Self>, seen: Option<&KeySet>, why: Why) -> Result<Arc<KeySet>, Error> {
        // A task of its own: the agent that waits for it may hang up, the others that wait may not.
        let reading = self.drain.spawn(Arc::clone(self).read_again(seen.map(|set| set.reading), why));
        reading.await.unwrap_or(Err(Error::Unavailable))
    }

    async fn read_again(self: Arc<Self>, seen: Option<u64>, why: Why) -> Result<Arc<KeySet>, Error> {
        let mut history = self.history.lock().await;
        let current = self.current.load_full();
        if let Some(set) = &current
            && Some(set.reading) != seen
            && set.read_at.elapsed() < TRUST_FOR
        {
            return Ok(Arc::clone(set)); // read while we waited for the lock
        }
        if !history.permits(why) {
            let answer = current.filter(|set| history.failed.is_none() && set.read_at.elapsed() < TRUST_FOR);
            return answer.ok_or(Error::Unavailable);
        }
        if why == Why::UnknownKey {
            history.unknown_key = Some(Instant::now());
        }
        match self.source.read().await.and_then(|bytes| KeySet::following(current.as_deref(), bytes)) {
            Ok(set) => {
                history.failed = None;
                let set = Arc::new(set);
                self.current.store(Some(Arc::clone(&set)));
                Ok(set)
            }
            Err(error) => {
                history.failed = Some(Instant::now());
                tracing::warn!(jwks = %self.source, %error, "a key set cannot be had");
                Err(Error::Unavailable)
            }
        }
    }
}

impl History {
    fn permits(&self, why: Why) -> bool {
        let (last, pause) = match why {
            Why::Missing => (self.failed, RETRY_MISSING_AFTER),
            Why::Aged => (self.failed, RETRY_AGED_AFTER),
            Why::UnknownKey => (self.unknown_key, UNKNOWN_KEY_EVERY),
        };
        last.is_none_or(|at| at.elapsed() >= pause)
    }
}

impl Source {
    async fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            // Small, and on this machine.
            Self::File(path) => regular::read(path, LARGEST).map_err(|error| error.to_string()),
            Self::Url(url, fetch) => fetch(url.clone()).await,
        }
    }
}

impl fmt::Display for Source {
    /// Without a query, which could hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url, _) => f.write_str(url.split('?').next().unwrap_or(url)),
        }
    }
}

/// Keys that came unprotected would let whoever is on the way sign identities.
pub(super) fn check_url(url: &str) -> Result<(), ConfigError> {
    let uri: Uri = url.parse().map_err(|_| ConfigError::Url)?;
    let authority = uri.authority().and_then(|authority| Authority::parse(authority.as_str()).ok());
    let loopback = |host: &Host| match host {
        Host::Name(name) => &**name == "localhost",
        Host::Ip(ip) => ip.is_loopback(),
    };
    match (uri.scheme_str(), authority) {
        (Some("https"), Some(_)) => Ok(()),
        (Some("http"), Some(authority)) if loopback(&authority.host) => Ok(()),
        _ => Err(ConfigError::Url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_protected_or_from_this_machine() {
        for good in [
            "https://idp.example/jwks?x=y",
            "http://127.0.0.1:9000/jwks",
            "http://localhost/",
            "http://[::1]/",
        ] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://idp.example/jwks",
            "https://user:pass@idp.example/",
            "ftp://127.0.0.1/",
            "https://",
            "/jwks",
            "",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
