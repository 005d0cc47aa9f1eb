//! Something between the vault and its database that stops or cuts a connection at a statement of the test's choice:
//! before it goes on, or when the server has done it and only the answer is missing.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use keybearer::drain::Drain;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What every statement of the vault's has in it, and nothing else that is sent.
const STATEMENT: &[u8] = b"keybearer.";
/// The server's last word on a statement, without its last byte (`ReadyForQuery`).
const READY: &[u8] = b"Z\0\0\0\x05";

/// On which side of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The server does not hear of it.
    Before,
    /// The server has done it, and nobody hears of that.
    After,
}

/// A socket before the database's own. When it is dropped, all connections are cut.
pub(crate) struct Relay {
    dir: TempDir,
    plan: Arc<Plan>,
    _open: DropGuard,
}

struct Plan {
    /// What becomes of the first connection that sends this.
    at: Mutex<Option<(&'static str, Fate)>>,
    /// A permit when the connection that was to be stopped stands still.
    stopped: Semaphore,
    /// Every so many statements a connection is cut, before and after one in turn; 0 is never.
    cut_every: AtomicUsize,
    statements: AtomicUsize,
    cuts: AtomicUsize,
    closed: CancellationToken,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Stops(Side),
    IsCut(Side),
}

impl Relay {
    /// Before the server of this database.
    pub(crate) fn before(url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let socket = Path::new(url.split_once("host=").unwrap().1).join(".s.PGSQL.5432");
        let plan = Arc::new(Plan {
            at: Mutex::default(),
            stopped: Semaphore::new(0),
            cut_every: AtomicUsize::new(0),
            statements: AtomicUsize::new(0),
            cuts: AtomicUsize::new(0),
            closed: CancellationToken::new(),
        });
        let (shared, spawner) = (Arc::clone(&plan), Drain::default());
        Drain::default().detach(async move {
            let accepting = async {
                while let Ok((near, _)) = listener.accept().await {
                    let Ok(far) = UnixStream::connect(&socket).await else { continue };
                    spawner.detach(pass(near, far, Arc::clone(&shared)));
                }
            };
            shared.closed.run_until_cancelled(accepting).await;
        });
        let open = plan.closed.clone().drop_guard();
        Self { dir, plan, _open: open }
    }

    /// The database's URL by this way.
    pub(crate) fn url(&self, url: &str) -> String {
        format!("{}?host={}", url.split_once('?').unwrap().0, self.dir.path().display())
    }

    /// The first connection that sends such a statement stands still there from then on.
    pub(crate) fn stop_at(&self, statement: &'static str, side: Side) {
        *self.plan.at.lock().unwrap() = Some((statement, Fate::Stops(side)));
    }

    /// The first connection that sends such a statement is cut there.
    pub(crate) fn cut_at(&self, statement: &'static str, side: Side) {
        *self.plan.at.lock().unwrap() = Some((statement, Fate::IsCut(side)));
    }

    /// Waits until it does.
    pub(crate) async fn stopped(&self) {
        self.plan.stopped.acquire().await.unwrap().forget();
    }

    /// Cuts a connection at every so many statements; 0 ends that.
    pub(crate) fn cut_every(&self, statements: usize) {
        self.plan.cut_every.store(statements, Ordering::SeqCst);
    }

    /// How many connections were cut.
    pub(crate) fn cuts(&self) -> usize {
        self.plan.cuts.load(Ordering::SeqCst)
    }
}

impl Plan {
    /// What becomes of a connection that sends this.
    fn fate(&self, sent: &[u8]) -> Fate {
        let mut at = self.at.lock().unwrap();
        if let Some((statement, fate)) = *at
            && memchr::memmem::find(sent, statement.as_bytes()).is_some()
        {
            *at = None;
            self.cuts.fetch_add(usize::from(matches!(fate, Fate::IsCut(_))), Ordering::SeqCst);
            return fate;
        }
        let every = self.cut_every.load(Ordering::SeqCst);
        if every == 0 || memchr::memmem::find(sent, STATEMENT).is_none() {
            return Fate::Passes;
        }
        if !(self.statements.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(every) {
            return Fate::Passes;
        }
        let cuts = self.cuts.fetch_add(1, Ordering::SeqCst);
        Fate::IsCut(if cuts.is_multiple_of(2) { Side::Before } else { Side::After })
    }

    /// Stands still, or ends to be cut.
    async fn end(&self, fate: Fate) {
        if matches!(fate, Fate::Stops(_)) {
            self.stopped.add_permits(1);
            std::future::pending::<()>().await;
        }
    }
}

async fn pass(near: UnixStream, far: UnixStream, plan: Arc<Plan>) {
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let fate = watch::Sender::new(Fate::Passes);
    tokio::select! {
        () = requests(near_read, far_write, &plan, &fate) => {}
        () = answers(far_read, near_write, &plan, &fate) => {}
        () = plan.closed.cancelled() => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, plan: &Plan, fate: &watch::Sender<Fate>) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let now = plan.fate(&buffer[..length]);
        if matches!(now, Fate::Stops(Side::Before) | Fate::IsCut(Side::Before)) {
            return plan.end(now).await;
        }
        if now != Fate::Passes {
            fate.send_replace(now);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, plan: &Plan, fate: &watch::Sender<Fate>) {
    let (mut buffer, mut withheld) = (vec![0; 65536], Vec::new());
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let now = *fate.borrow();
        if now == Fate::Passes {
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
            continue;
        }
        withheld.extend_from_slice(&buffer[..length]);
        if withheld.len() > READY.len() && withheld[..withheld.len() - 1].ends_with(READY) {
            return plan.end(now).await;
        }
    }
}
