//! Connections to the database, and what they fail with.

use std::{error::Error as _, io, path::Path, sync::Arc, time::Duration};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use tokio::time::timeout;
use tokio_postgres::{
    Client, Config, Connection, Error as Fault, Row, Socket,
    error::SqlState,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use super::{
    DatabaseUrl, Error,
    reach::{Lost, Reach},
};
use crate::{
    names::Names,
    regular,
    secret::Secret,
    tls::{self, Alpn},
    vault::Config as VaultConfig,
};

/// A parameter with its type, so that a statement needs no round trip to be prepared, and no session to stay in.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// What every session is told. An acknowledged commit is on disk whatever the server's default is; where it is more
/// than that, it stays. A statement that its caller no longer waits for ends by itself.
fn session(origin: &str, limit: Duration) -> String {
    let limit = limit.as_millis();
    format!(
        "SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') IN ('off', 'local'); \
         SET keybearer.origin = '{origin}'; SET statement_timeout = {limit}; \
         SET idle_in_transaction_session_timeout = {limit}"
    )
}

/// A database with a pool of connections. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Database(Arc<Inner>);

struct Inner {
    place: String,
    config: Config,
    reach: Reach,
    pool: Pool,
    limit: Duration,
    origin: String,
}

/// What a statement gave.
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    /// It was sent a second time, because the connection broke; the first time may have had its effect.
    pub(super) is_repeated: bool,
}

impl Database {
    /// Prepares to connect; nothing is connected yet.
    pub(super) fn new(url: &DatabaseUrl, config: &VaultConfig) -> Result<Self, Error> {
        let place = url.to_string();
        let password = config.password_file.as_deref().map(read_password).transpose()?;
        let origin = Uuid::now_v7().to_string();
        #[expect(clippy::disallowed_methods, reason = "the database asks for it")]
        let connect = url.config(password.as_ref().map(Secret::expose), config.timeout, &origin);
        let reach = Reach { names: Names::system(), tls: connector(url, config)? };
        let limit = config.timeout;
        let pool = pool(&connect, &reach, config.connections.get(), limit, session(&origin, limit));
        let pool = pool.map_err(|why| Error::Database { database: place.clone(), why })?;
        Ok(Self(Arc::new(Inner { place, config: connect, reach, pool, limit, origin })))
    }

    /// For messages.
    pub(super) fn place(&self) -> &str {
        &self.0.place
    }

    /// What this process's changes are told with.
    pub(super) fn origin(&self) -> &str {
        &self.0.origin
    }

    /// How long one thing may take.
    pub(super) fn limit(&self) -> Duration {
        self.0.limit
    }

    /// Runs one statement, which is one transaction. Where the connection turns out to be broken, runs it once more
    /// over another one, so it must be such that a second time does no harm.
    pub(super) async fn ask(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Answer, Error> {
        match self.once(sql, parameters).await {
            Ok(rows) => Ok(Answer { rows, is_repeated: false }),
            Err(broken @ (Broken::Connection(_) | Broken::Race(_))) => {
                if matches!(broken, Broken::Connection(_)) {
                    self.0.pool.retain(|_, _| false); // what ended this one has most likely ended them all
                }
                let rows = self.once(sql, parameters).await.map_err(|broken| broken.told(self.place()))?;
                Ok(Answer { rows, is_repeated: true })
            }
            Err(other) => Err(other.told(self.place())),
        }
    }

    async fn once(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Broken> {
        let client = self.0.pool.get().await.map_err(Broken::of_pool)?;
        let answered = timeout(self.0.limit, client.query_typed(sql, parameters)).await;
        let outcome = answered.map_or(Err(Broken::Silent), |answered| answered.map_err(Broken::of_statement));
        if matches!(outcome, Err(Broken::Silent | Broken::Connection(_))) {
            drop(Object::take(client)); // it is busy with what nobody waits for any more, or about to be closed
        }
        outcome
    }

    /// A connection of the caller's own. Who drives it says what becomes of what it is told meanwhile.
    pub(super) async fn connect(
        &self,
    ) -> Result<(Client, Connection<Socket, impl tokio_postgres::tls::TlsStream + Send + Unpin + use<>>), Error>
    {
        let connecting = self.0.reach.connect(&self.0.config);
        match timeout(self.0.limit, connecting).await {
            Ok(connected) => connected.map_err(|fault| Error::of_database(self.place(), &fault)),
            Err(_) => Err(Broken::Silent.told(self.place())),
        }
    }

    /// A pooled connection for more than one statement. Closed when dropped, with all that its session holds.
    pub(super) async fn session(&self) -> Result<deadpool_postgres::ClientWrapper, Error> {
        let client = self.0.pool.get().await.map_err(|error| Broken::of_pool(error).told(self.place()))?;
        Ok(Object::take(client))
    }
}

/// Why a statement has no answer.
enum Broken {
    /// The connection is gone; another one may work.
    Connection(String),
    /// Another transaction was in the way, which is over now.
    Race(String),
    /// No connection can be had.
    Unreachable(String),
    /// It takes too long.
    Silent,
    /// The server refused.
    Refused(String),
}

impl Broken {
    fn of_pool(error: PoolError) -> Self {
        match error {
            PoolError::Backend(fault) | PoolError::PostCreateHook(HookError::Backend(fault)) => {
                match Self::of_statement(fault) {
                    Self::Connection(why) => Self::Unreachable(why),
                    other => other,
                }
            }
            PoolError::Timeout(_) => Self::Silent,
            other => Self::Refused(other.to_string()),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "an error ends here; as a function for `map_err`")]
    fn of_statement(fault: Fault) -> Self {
        let told = told(&fault);
        match fault.code() {
            Some(code) if *code == SqlState::QUERY_CANCELED => Self::Silent,
            Some(code) if is_about_the_server(code) => Self::Connection(told),
            Some(code) if is_a_race(code) => Self::Race(told),
            Some(_) => Self::Refused(told),
            None => Self::Connection(told),
        }
    }

    fn told(self, place: &str) -> Error {
        let database = place.to_owned();
        match self {
            Self::Connection(why) | Self::Unreachable(why) => Error::Unreachable { database, why },
            Self::Silent => Error::Unreachable { database, why: "it does not answer in time".to_owned() },
            Self::Race(why) | Self::Refused(why) => Error::Database { database, why },
        }
    }
}

/// The server stops, starts, has no connection left, or has just become a standby: not about the statement.
fn is_about_the_server(code: &SqlState) -> bool {
    let class = &code.code()[..2];
    class == "08"
        || class == "57"
        || *code == SqlState::TOO_MANY_CONNECTIONS
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// A deadlock, or an account that another one removed while this one wrote beside it.
fn is_a_race(code: &SqlState) -> bool {
    [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::FOREIGN_KEY_VIOLATION]
        .contains(code)
}

impl Error {
    /// The server's message and code, or the system's; never the server's `DETAIL`, which may quote a row.
    pub(super) fn of_database(place: &str, fault: &Fault) -> Self {
        let (database, why) = (place.to_owned(), told(fault));
        match fault.code() {
            Some(code) if !is_about_the_server(code) => Self::Database { database, why },
            _ => Self::Unreachable { database, why },
        }
    }
}

pub(super) fn told(fault: &Fault) -> String {
    if let Some(error) = fault.as_db_error() {
        return format!("{} ({})", error.message(), error.code().code());
    }
    if let Some(lost) = lost(fault) {
        return lost.to_string();
    }
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    if text.contains("invalid peer certificate") {
        text.push_str("; if its CA is a private one, name it in vault.roots");
    }
    if text.contains("server does not support TLS") {
        text.push_str(
            "; switch it on there, or write sslmode=disable in vault.url where the network is trusted",
        );
    }
    text
}

/// Whether a name in the URL leads nowhere.
fn lost(fault: &Fault) -> Option<&Lost> {
    fault.source()?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

fn pool(
    config: &Config,
    reach: &Reach,
    connections: usize,
    limit: Duration,
    session: String,
) -> Result<Pool, String> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_connect(config.clone(), reach.clone(), recycling);
    let session: Arc<str> = session.into();
    let prepare = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        let session = Arc::clone(&session);
        Box::pin(async move { client.batch_execute(&session).await.map_err(HookError::Backend) })
    });
    Pool::builder(manager)
        .max_size(connections)
        .runtime(Runtime::Tokio1)
        .timeouts(Timeouts { wait: Some(limit), create: Some(limit), recycle: Some(limit) })
        .post_create(prepare)
        .build()
        .map_err(|error| error.to_string())
}

fn connector(url: &DatabaseUrl, config: &VaultConfig) -> Result<MakeRustlsConnect, Error> {
    let roots = if url.is_by_tls() {
        config.roots.load().map_err(|error| Error::Roots(error.to_string()))?
    } else {
        Arc::new(rustls::RootCertStore::empty()) // nothing is verified, because nothing is asked
    };
    let mut tls = tls::upstream_config(&roots, Alpn::H1);
    tls.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(tls))
}

/// Far more than any password has, in bytes.
const LONGEST_PASSWORD: u64 = 64 << 10;

fn read_password(path: &Path) -> Result<Secret, Error> {
    let mut bytes = std::fs::File::open(path)
        .and_then(|file| regular::bounded(file, LONGEST_PASSWORD))
        .map_err(|source| Error::Password { path: path.to_owned(), why: source.to_string() })?;
    while bytes.last().is_some_and(u8::is_ascii_whitespace) {
        bytes.pop(); // an editor's or a shell's
    }
    if bytes.is_empty() {
        return Err(Error::Password { path: path.to_owned(), why: "it is empty".to_owned() });
    }
    Ok(Secret::new(bytes))
}
