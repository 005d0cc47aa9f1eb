//! Something between the vault and its database that can lose what it should pass on.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use super::Drain;

/// A socket before the database's own.
pub(super) struct Relay {
    dir: TempDir,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// What a request must hold for its answer to be lost, and the connection with it. Once.
    lose_answer_to: Mutex<Option<&'static str>>,
    /// Nothing is passed on, and nothing is closed.
    silent: watch::Sender<bool>,
}

impl Relay {
    /// Before the server of this database.
    pub(super) fn before(url: &str, drain: &Drain) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let (faults, socket) = (
            Arc::new(Faults::default()),
            Path::new(url.split_once("host=").unwrap().1).join(".s.PGSQL.5432"),
        );
        let (shared, tasks) = (Arc::clone(&faults), drain.clone());
        drain.detach(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = UnixStream::connect(&socket).await else { continue };
                tasks.detach(pass(near, far, Arc::clone(&shared)));
            }
        });
        Self { dir, faults }
    }

    /// The database's URL by this way.
    pub(super) fn url(&self, url: &str) -> String {
        format!("{}?host={}", url.split_once('?').unwrap().0, self.dir.path().display())
    }

    pub(super) fn lose_answer_to(&self, statement: &'static str) {
        *self.faults.lose_answer_to.lock().unwrap() = Some(statement);
    }

    /// Whether the answer was lost that was to be.
    pub(super) fn has_lost(&self) -> bool {
        self.faults.lose_answer_to.lock().unwrap().is_none()
    }

    pub(super) fn be_silent(&self, silent: bool) {
        self.faults.silent.send_replace(silent);
    }
}

async fn pass(near: UnixStream, far: UnixStream, faults: Arc<Faults>) {
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let is_lost = AtomicBool::new(false);
    tokio::select! {
        () = requests(near_read, far_write, &faults, &is_lost) => {}
        () = answers(far_read, near_write, &faults, &is_lost) => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults, is_lost: &AtomicBool) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut wanted = faults.lose_answer_to.lock().unwrap().take();
        if let Some(statement) = wanted
            && memchr::memmem::find(&buffer[..length], statement.as_bytes()).is_some()
        {
            is_lost.store(true, Ordering::SeqCst);
            wanted = None;
        }
        if let Some(later) = wanted {
            *faults.lose_answer_to.lock().unwrap() = Some(later);
        }
        faults.pass_on().await;
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults, is_lost: &AtomicBool) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        faults.pass_on().await;
        if is_lost.load(Ordering::SeqCst) || to.write_all(&buffer[..length]).await.is_err() {
            return; // the answer is here, so the server has done it
        }
    }
}

impl Faults {
    async fn pass_on(&self) {
        let mut silent = self.silent.subscribe();
        let _ = silent.wait_for(|silent| !silent).await;
    }
}
