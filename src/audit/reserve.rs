//! The log as those see it who record: room first, then the event.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{
    Config, Durability, Error, Event, Metrics,
    files::{Files, open_private},
    journal::{self, Journal},
    log::Rotation,
    place::Place,
    queue::{Ack, Entry, Shared},
    recover,
    writer::Writer,
};
use crate::id::ActionId;

/// The audit log of this process. Cloning shares it; when the last clone and [`Slot`] are dropped, the rest
/// is written and synchronised, which blocks for a moment ([`Audit::flush`] first where that matters).
#[derive(Clone)]
pub struct Audit(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
    place: Arc<Place>,
    path: PathBuf,
    durability: Durability,
    patience: Duration,
    room: usize,
    writer: Mutex<Option<JoinHandle<()>>>,
    _lock: File,
}

impl Audit {
    /// Opens the log for writing: takes its lock, recovers from a crash, records what that found, and starts
    /// the writer. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Locked`] where another process writes it, [`Error::Damaged`] where the file is something
    /// else, [`Error::Open`], [`Error::Read`] and [`Error::Unwritable`] where the disk says no.
    pub fn open(config: &Config, data_dir: &Path, metrics: &Metrics) -> Result<Self, Error> {
        config.check()?;
        let path = config.path(data_dir);
        let files = Files::of(&path);
        let open = |source| Error::Open { path: path.clone(), source };
        fs::create_dir_all(files.folder()).map_err(open)?;
        let lock = lock(&files)?;
        let rotation = Rotation { bytes: config.rotate_bytes, keep: config.keep };
        let mut log = recover::open(files.clone(), rotation)?;
        journal::orphans(&files)?.into_iter().for_each(|event| log.append(&stamped(event)));
        log.commit(true).map_err(|error| Error::Unwritable(error.to_string().into()))?;
        let after = log.last().seq;
        let journal = match config.durability {
            Durability::Sync => Some(Journal::begin(&files, after).map_err(open)?),
            Durability::Batch => {
                journal::discard(&files).map_err(open)?;
                None
            }
        };
        let shared = Arc::new(Shared::new(config.room, metrics.clone()));
        let place = Arc::clone(&log.place);
        let writer = Writer::new(Arc::clone(&shared), log, journal).spawn().map_err(open)?;
        Ok(Self(Arc::new(Owner {
            shared,
            place,
            path: path.clone(),
            durability: config.durability,
            patience: config.patience,
            room: config.room,
            writer: Mutex::new(Some(writer)),
            _lock: lock,
        })))
    }

    /// How many events may be under way or waiting to be written.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.room
    }

    /// Takes room for one event, waiting for it where there is none.
    ///
    /// # Errors
    /// [`Error::Unwritable`] at once while the log cannot be written; [`Error::Overloaded`] when there was no
    /// room for as long as `patience` says.
    pub async fn reserve(&self) -> Result<Slot, Error> {
        let shared = &self.0.shared;
        if let Some(reason) = shared.trouble() {
            return Err(Error::Unwritable(reason));
        }
        if let Ok(room) = shared.room.try_acquire() {
            room.forget(); // the slot gives it back
        } else {
            self.wait_for_room().await?;
        }
        Ok(Slot { audit: self.clone(), begun: None, is_open: true })
    }

    async fn wait_for_room(&self) -> Result<(), Error> {
        let shared = &self.0.shared;
        tokio::select! {
            biased;
            reason = shared.in_trouble() => Err(Error::Unwritable(reason)),
            room = shared.room.acquire() => {
                room.map_err(|closed| Error::Unwritable(closed.to_string().into()))?.forget();
                Ok(())
            }
            () = tokio::time::sleep(self.0.patience) => Err(Error::Overloaded(self.0.patience)),
        }
    }

    /// Records an event and waits until it is on the disk.
    ///
    /// # Errors
    /// As [`Audit::reserve`]; [`Error::Unwritable`] also when the disk fails meanwhile. The event may then be
    /// recorded later all the same.
    pub async fn record(&self, event: Event) -> Result<(), Error> {
        let slot = self.reserve().await?;
        let (ack, done) = oneshot::channel();
        slot.hand_over(|_| Entry::Awaited(Box::new(stamped(event)), ack));
        self.0.wait(done).await
    }

    /// The file may be elsewhere because it is being rotated: the writer knows, and says so to everybody if not.
    async fn must_be_in_place(&self) -> Result<(), Error> {
        if self.0.place.held_the_file_just_now() { Ok(()) } else { self.flush().await }
    }

    /// Waits until everything emitted before is on the disk.
    ///
    /// # Errors
    /// [`Error::Unwritable`] when the disk does not take it.
    pub async fn flush(&self) -> Result<(), Error> {
        let (ack, done) = oneshot::channel();
        self.0.ask(Entry::Flush, ack, done).await
    }

    /// Whether the log could be written the last time.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.trouble().is_none()
    }

    /// Why the log cannot be written, while it cannot.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.0.shared.trouble()
    }

    /// The file that is written, for [`query`](super::query()), [`Tail`](super::Tail) and
    /// [`verify_log`](super::verify_log).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Audit").field(&self.0.path).finish()
    }
}

impl Owner {
    async fn ask(
        &self,
        entry: impl FnOnce(Ack) -> Entry,
        ack: Ack,
        done: oneshot::Receiver<()>,
    ) -> Result<(), Error> {
        if let Some(reason) = self.shared.trouble() {
            return Err(Error::Unwritable(reason)); // what asks again and again shall not queue up
        }
        self.shared.push(entry(ack));
        self.wait(done).await
    }

    async fn wait(&self, done: oneshot::Receiver<()>) -> Result<(), Error> {
        tokio::select! {
            biased;
            done = done => done.map_err(|_| Error::Unwritable("the audit writer has stopped".into())),
            reason = self.shared.in_trouble() => Err(Error::Unwritable(reason)),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the audit writer panicked");
        }
    }
}

/// Room for one event. Dropped without [`Slot::emit`], it gives the room back; where its action had
/// [begun](Slot::begin), an event with `error: interrupted` is recorded instead.
#[derive(Debug)]
#[must_use = "what is not emitted is not recorded"]
pub struct Slot {
    audit: Audit,
    begun: Option<ActionId>,
    is_open: bool,
}

impl Slot {
    /// To be awaited before the action is sent. With `durability: sync` it returns when the intent is on the
    /// disk, so that a crash leaves a trace of the action; with `batch` it sees whether the log is in its place.
    ///
    /// # Errors
    /// [`Error::Unwritable`]: do not send. [`Error::NoId`] for an event without `id`.
    pub async fn begin(&mut self, event: &Event) -> Result<(), Error> {
        if self.audit.0.durability == Durability::Batch {
            return self.audit.must_be_in_place().await;
        }
        let id = event.id.ok_or(Error::NoId)?;
        self.begun = Some(id);
        let (ack, done) = oneshot::channel();
        let intent = Box::new(stamped(event.clone()));
        self.audit.0.ask(|ack| Entry::Intent(id, intent, ack), ack, done).await
    }

    /// Hands the event over. Does not wait and cannot fail: the room was taken before.
    pub fn emit(self, event: Event) {
        let mut event = Box::new(stamped(event));
        self.hand_over(|begun| {
            event.id = event.id.or(begun);
            Entry::Event(event, begun)
        });
    }

    fn hand_over(mut self, entry: impl FnOnce(Option<ActionId>) -> Entry) {
        self.is_open = false;
        let shared = &self.audit.0.shared;
        shared.metrics.lag.inc();
        shared.push(entry(self.begun));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.audit.0.shared;
        match self.begun.filter(|_| self.is_open) {
            Some(id) => {
                shared.metrics.lag.inc();
                shared.push(Entry::Abandoned(id));
            }
            None if self.is_open => shared.room.add_permits(1),
            None => {}
        }
    }
}

fn stamped(mut event: Event) -> Event {
    event.time.get_or_insert_with(Timestamp::now);
    event
}

/// One process writes a log. The lock is on a file of its own, because the log's is renamed by rotation.
fn lock(files: &Files) -> Result<File, Error> {
    let open = |source| Error::Open { path: files.lock(), source };
    let mut file = open_private(&files.lock()).map_err(open)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner); // only for the message
            let by = if owner.is_empty() { "another process".to_owned() } else { owner };
            return Err(Error::Locked { path: files.current().to_owned(), by });
        }
        Err(TryLockError::Error(source)) => return Err(open(source)),
    }
    file.set_len(0).map_err(open)?;
    file.write_all(format!("process {}", std::process::id()).as_bytes()).map_err(open)?;
    Ok(file)
}
