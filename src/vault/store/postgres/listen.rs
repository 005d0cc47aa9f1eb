//! Hearing of changes that others make.
//!
//! What this process keeps in memory is true only as long as it would hear of a change. So the server is asked again
//! and again whether it is there, and whoever has not heard from it for `vault.offline_use` is told that everything
//! may have changed: then every use of an account has to ask the database, and is refused where that is away.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_postgres::{AsyncMessage, Client, Connection, Error as Fault, Socket, tls::TlsStream};

use super::{Error, database::Database};
use crate::vault::{Change, FactKey, FactKind, Whole};

/// Where changes are told.
type Tell = mpsc::Sender<Change>;

/// Between attempts to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// How often the server is asked whether it is there, at most and at least.
const BEATS: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(10)];

/// Whom to say that it has begun, or why it cannot.
type Begun = oneshot::Sender<Result<(), Error>>;

/// When the database was last asked something that it has answered since.
pub(super) type Heard = watch::Sender<Instant>;

/// Tells of every change until the caller stops it. Gives up only where it cannot begin.
pub(super) async fn follow(
    database: Database,
    tell: Tell,
    heard: Heard,
    offline_use: Duration,
    begun: Begun,
) {
    tokio::select! {
        () = listen(&database, &tell, &heard, offline_use, begun) => {}
        () = doubt(&tell, &heard, offline_use) => {}
    }
}

async fn listen(database: &Database, tell: &Tell, heard: &Heard, offline_use: Duration, begun: Begun) {
    let mut begun = Some(begun);
    let mut is_away = false;
    loop {
        let why = match database.connect().await {
            Ok((client, connection)) => {
                let ear = Ear { database, tell, heard, beat: (offline_use / 2).clamp(BEATS[0], BEATS[1]) };
                ear.hear(&client, connection, &mut begun, &mut is_away).await
            }
            Err(error) => error,
        };
        if let Some(begun) = begun.take() {
            let _ = begun.send(Err(why)); // whoever asked may be gone
            return;
        }
        if !is_away {
            tracing::warn!(error = %why, "the database cannot tell of changes; trying to connect again");
            is_away = true;
        }
        sleep(PAUSE).await;
    }
}

/// One connection that listens.
struct Ear<'a> {
    database: &'a Database,
    tell: &'a Tell,
    heard: &'a Heard,
    beat: Duration,
}

impl Ear<'_> {
    /// Listens until the connection breaks.
    async fn hear<S: TlsStream + Unpin>(
        &self,
        client: &Client,
        mut connection: Connection<Socket, S>,
        begun: &mut Option<Begun>,
        is_away: &mut bool,
    ) -> Error {
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        let mut asking = pin!(self.ask(client, begun, is_away));
        loop {
            tokio::select! {
                // What was told before an answer is taken before it.
                biased;
                message = messages.next() => match message {
                    Some(Ok(message)) => self.told(&message).await,
                    Some(Err(fault)) => return Error::of_database(self.database.place(), &fault),
                    None => return self.broken("the connection was closed"),
                },
                broken = &mut asking => return broken,
            }
        }
    }

    /// Begins to listen, and then asks whether the server is there, until it is not.
    async fn ask(&self, client: &Client, begun: &mut Option<Begun>, is_away: &mut bool) -> Error {
        if let Err(broken) = self.answered(client.batch_execute("LISTEN keybearer")).await {
            return broken;
        }
        if let Some(begun) = begun.take() {
            let _ = begun.send(Ok(()));
        } else {
            let _ = self.tell.send(Change::Unknown).await; // what changed meanwhile was not heard of
        }
        if std::mem::take(is_away) {
            tracing::info!("the database tells of changes again");
        }
        loop {
            if let Err(broken) = self.answered(client.check_connection()).await {
                return broken;
            }
            sleep(self.beat).await;
        }
    }

    /// Waits for the server's answer, which says that everything from before the question has been heard.
    async fn answered(&self, question: impl Future<Output = Result<(), Fault>>) -> Result<(), Error> {
        let asked = Instant::now();
        match timeout(self.database.limit(), question).await {
            Ok(Ok(())) => {
                self.heard.send_replace(asked);
                Ok(())
            }
            Ok(Err(fault)) => Err(Error::of_database(self.database.place(), &fault)),
            Err(_) => Err(self.broken("it does not answer in time")),
        }
    }

    async fn told(&self, message: &AsyncMessage) {
        let AsyncMessage::Notification(told) = message else { return };
        let (origin, what) = told.payload().split_once(' ').unwrap_or_default();
        if origin == self.database.origin() {
            return; // the vault has told of it when it was made
        }
        let _ = self.tell.send(read(what)).await; // an error says that the vault is closed
    }

    fn broken(&self, why: &str) -> Error {
        Error::Unreachable { database: self.database.place().to_owned(), why: why.to_owned() }
    }
}

/// Reads what the triggers write. Another version may say something that is not known here.
fn read(what: &str) -> Change {
    let (kind, name) = what.split_once(' ').unwrap_or_default();
    let change = match kind {
        "account" => name.parse().ok().map(Change::Account),
        "hold" => hold(name).map(Change::Whole),
        _ => None,
    };
    change.unwrap_or(Change::Unknown)
}

fn hold(name: &str) -> Option<Whole> {
    let (tenant, name) = name.split_once('/')?;
    Whole::of_fact(&FactKey { tenant: tenant.parse().ok()?, kind: FactKind::Hold, name: name.to_owned() })
}

/// Tells that everything may have changed, again and again, as long as nothing is heard.
async fn doubt(tell: &Tell, heard: &Heard, offline_use: Duration) {
    loop {
        let last = *heard.borrow();
        sleep_until(last + offline_use).await;
        if *heard.borrow() == last {
            let _ = tell.send(Change::Unknown).await;
            sleep(offline_use.max(BEATS[0])).await;
        }
    }
}
