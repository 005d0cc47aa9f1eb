//! What all accounts of an app, and all apps at a token host, have in common: a bucket, a pause, a breaker.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{breaker::Breaker, bucket::Bucket};
use crate::id::{AccountKey, ConnectorName};

/// A paused app is tried again after so long, by one of its accounts: the operator may have mended it at the
/// provider, which nobody here is told of.
const PAUSE: Duration = Duration::from_mins(5);
/// At most after so long, twice as long each time.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum AppKey {
    /// Of the configuration: a connector and the client id that accounts of it were consented to.
    Shared { connector: ConnectorName, client: String },
    /// An account's own, whoever else calls theirs the same.
    Own(AccountKey),
}

/// All apps and token hosts that were used.
#[derive(Debug)]
pub(super) struct Apps {
    per_second: NonZeroU32,
    known: Mutex<HashMap<AppKey, Arc<App>>>,
    hosts: Mutex<HashMap<(ConnectorName, String), Breaker>>,
}

/// What the accounts of an app share.
#[derive(Debug)]
pub(super) struct App {
    pub(super) bucket: Bucket,
    pause: Mutex<Pause>,
}

#[derive(Debug, Default)]
struct Pause {
    times: u32,
    until: Option<Instant>,
}

impl Apps {
    /// None yet; each will have so many attempts a second.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, known: Mutex::default(), hosts: Mutex::default() }
    }

    /// The app.
    pub(super) fn app(&self, key: &AppKey) -> Arc<App> {
        let mut apps = lock(&self.known);
        if let Some(app) = apps.get(key) {
            return Arc::clone(app);
        }
        let app = Arc::new(App { bucket: Bucket::new(self.per_second), pause: Mutex::default() });
        apps.insert(key.clone(), Arc::clone(&app));
        app
    }

    /// Forgets the app that is the account's own, if there is one.
    pub(super) fn forget(&self, account: &AccountKey) {
        lock(&self.known).remove(&AppKey::Own(account.clone()));
    }

    /// The same for all accounts that are meant.
    pub(super) fn forget_all(&self, is_meant: impl Fn(&AccountKey) -> bool) {
        lock(&self.known).retain(|key, _| !matches!(key, AppKey::Own(account) if is_meant(account)));
    }

    /// Works with the breaker of a connector's token host.
    pub(super) fn breaker<T>(
        &self,
        connector: &ConnectorName,
        host: &str,
        work: impl FnOnce(&mut Breaker) -> T,
    ) -> T {
        work(lock(&self.hosts).entry((connector.clone(), host.to_owned())).or_default())
    }
}

impl App {
    /// Whether an attempt may be made. When a pause has lasted long enough, whoever asks first may.
    ///
    /// # Errors
    /// How long the pause lasts yet.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut pause = lock(&self.pause);
        match pause.until {
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                pause.until = Some(now + pause.length());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether an attempt could be made now, without making one.
    ///
    /// # Errors
    /// How long the pause lasts yet.
    pub(super) fn peek(&self, now: Instant) -> Result<(), Duration> {
        lock(&self.pause).until.filter(|until| now < *until).map_or(Ok(()), |until| Err(until - now))
    }

    /// Pauses it: the provider refuses the app itself (F24). Says whether that is news.
    pub(super) fn pause(&self, now: Instant) -> bool {
        let mut pause = lock(&self.pause);
        pause.until = Some(now + pause.length());
        pause.times = pause.times.saturating_add(1);
        pause.times == 1
    }

    /// Ends the pause: the provider took the app for one of its own. Says whether there was one.
    pub(super) fn resume(&self) -> bool {
        std::mem::take(&mut *lock(&self.pause)).times > 0
    }
}

impl Pause {
    fn length(&self) -> Duration {
        PAUSE.saturating_mul(1 << self.times.min(8)).min(LONGEST_PAUSE)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_paused_app_is_tried_by_one_account_at_a_time_and_ever_more_rarely() {
        let app = Apps::new(NonZeroU32::MIN)
            .app(&AppKey::Shared { connector: "crm".parse().unwrap(), client: "id".into() });
        let now = Instant::now();
        assert_eq!(app.admit(now), Ok(()));
        assert!(app.pause(now), "the first time is news");
        assert_eq!(app.admit(now), Err(PAUSE));
        let later = now + PAUSE;
        assert_eq!((app.admit(later), app.admit(later)), (Ok(()), Err(PAUSE * 2)));
        assert!(!app.pause(later), "and the second is not");
        assert_eq!(app.admit(later + PAUSE), Err(PAUSE));
        assert!(app.resume());
        assert!(!app.resume());
        assert_eq!(app.admit(later), Ok(()));
    }
}
