//! A real PostgreSQL 15 of our own: in a directory that goes when we do, reached by a socket in it.
//!
//! Also compiled into the crate's unit tests, which run the vault's suite over it.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Where Debian's `postgresql-15` has its programs; `tests/setup.sh` installs it.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// The superuser, who needs no password on the socket.
const USER: &str = "keybearer";

/// No test needs what survives a power cut, and many connect.
const SETTINGS: &str = "listen_addresses = ''\nfsync = off\nfull_page_writes = off\nshared_buffers = 16MB\n\
                        max_connections = 300\nlog_min_messages = fatal\n";

/// A server. It ends with this value, or with the process, however that ends.
pub(crate) struct Postgres {
    dir: PathBuf,
    keeper: Child,
}

impl Postgres {
    /// The one that all tests of this program share, each with databases of its own.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("", &[]))
    }

    /// One for a test that stops it, or has its own settings, and files beside them.
    pub(crate) fn start(settings: &str, files: &[(&str, &str)]) -> Self {
        assert!(
            Path::new(PROGRAMS).join("initdb").exists(),
            "there is no {PROGRAMS}/initdb: run tests/setup.sh"
        );
        let dir = TempDir::with_prefix("keybearer-postgres-").unwrap().keep();
        give_away(&dir);
        let server = Self { keeper: keeper(&dir), dir: dir.clone() };
        let data = dir.join("data");
        run(program("initdb")
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username", USER])
            .arg(&data));
        let mut file = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        let sockets = format!("unix_socket_directories = '{}'\n", dir.display());
        file.write_all(format!("{SETTINGS}{sockets}{settings}").as_bytes()).unwrap();
        for (name, text) in files {
            let path = data.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            give_away(&path);
        }
        server.resume();
        server
    }

    /// Starts a server that was stopped.
    pub(crate) fn resume(&self) {
        let log = self.dir.join("data/log");
        run(self.control().arg("start").arg("-w").arg("-s").arg("-l").arg(log));
    }

    /// Stops the server as its package does for an upgrade: whoever is connected is thrown out.
    pub(crate) fn stop(&self) {
        self.stop_by("fast");
    }

    /// Stops it in one of `pg_ctl`'s modes: `immediate` is as good as `kill -9`.
    pub(crate) fn stop_by(&self, mode: &str) {
        run(self.control().args(["stop", "-w", "-s", "-m", mode]));
    }

    fn control(&self) -> Command {
        let mut command = program("pg_ctl");
        command.arg("-D").arg(self.dir.join("data"));
        command
    }

    /// Makes an empty database, and returns its URL.
    pub(crate) async fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("vault_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let postgres = connect(&self.url("postgres")).await;
        postgres.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        self.url(&name)
    }

    /// The URL of a database over the socket.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@/{database}?host={}", self.dir.display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Stops the server and removes its directory when we close our end of the pipe, which a killed process does, too. What
/// kills us as a group does not reach it.
fn keeper(dir: &Path) -> Child {
    let stop = format!("{PROGRAMS}/pg_ctl -D \"$1/data\" -m immediate -s stop");
    let mut command = as_other_user("sh");
    command.args(["-c", &format!("cat; {stop} 2>/dev/null; rm -rf \"$1\""), "sh"]).arg(dir);
    command.process_group(0).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn program(name: &str) -> Command {
    as_other_user(&format!("{PROGRAMS}/{name}"))
}

/// PostgreSQL refuses to run as root, and then runs as the user that its package made.
fn as_other_user(program: &str) -> Command {
    let Some((user, group)) = other_user() else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--init-groups", program]);
    command
}

fn other_user() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let user = nix::unistd::User::from_name("postgres").unwrap().expect("Debian's package makes this user");
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

fn give_away(path: &Path) {
    if let Some((user, group)) = other_user() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.current_dir("/").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Connects as the superuser, past everything that a vault does.
#[expect(
    clippy::disallowed_methods,
    reason = "the crate that has a drain is another one in each use of this file"
)]
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await; // a test may cut it
    });
    client
}
