//! `keybearer run -- CMD...`: a command whose HTTP goes through a proxy of its own.
//!
//! The proxy lives as long as the command does. Where a running proxy has the vault already, that one is used.

use std::{
    ffi::{OsStr, OsString},
    fs::Permissions,
    io,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::Path,
    process::ExitStatus,
};

use clap::Args;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpgrp, tcgetpgrp},
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::{Failure, Global, private::Private};
use crate::{
    clients::{self, Trust, java},
    config::Config,
    id::{RoleName, Subject, TenantId, UserId},
    identity::{DefaultIdentity, Mode},
    tls::{Bundle, Format, STORE_PASSWORD},
};

/// The exit statuses of a command that could not be run (POSIX 2.8.2).
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Run a command with its HTTP going through a proxy of its own
///
/// The proxy and CA variables that clients read are set, `KEYBEARER_*` are removed, signals and the exit status are
/// passed on. Where a `keybearer proxy` over the same vault is running, that one is used.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  keybearer run --tenant acme --role researcher -- python3 agent.py")]
pub(super) struct Run {
    /// The tenant that the command acts for; without it, requests must name their identity themselves
    #[arg(long, value_name = "TENANT", requires = "role")]
    tenant: Option<TenantId>,
    /// The role in which it acts
    #[arg(long, value_name = "ROLE", requires = "tenant")]
    role: Option<RoleName>,
    /// The end user on whose behalf it acts
    #[arg(long, value_name = "USER", requires = "tenant")]
    user: Option<UserId>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Run {
    /// Runs the command. Its exit status is ours; one that a signal ended is 128 and the signal's number.
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut config = global.load()?;
        let subject = self.subject(&config)?;
        let secret_variables = config.secret_variables.clone();
        if let Some(Subject { tenant, role, user }) = subject.clone() {
            // For clients that send no user name to a proxy, such as Java's. A proxy that runs has its own default.
            config.identity.default = Some(DefaultIdentity { tenant, role, user });
        }
        let private = Private::start(config).await?;
        let trust = folder()?;
        let bundle = trust.path().join("bundle.pem");
        Bundle::with_roots(&private.ca_pem).publish(&bundle)?;
        let proxy = clients::proxy_url(&private.address.to_string(), subject.as_ref());
        let mut command = command(&self.command, &proxy, &bundle);
        for name in secret_variables {
            command.env_remove(name);
        }
        let ended = supervised(&mut command, &self.command[0]).await;
        private.stop().await;
        drop(trust);
        match code(ended?) {
            0 => Ok(()),
            code => Err(Failure::silent(code)),
        }
    }

    /// Who the command is, if that was said in a way that a proxy URL can carry.
    fn subject(&self, config: &Config) -> Result<Option<Subject>, Failure> {
        let (Some(tenant), Some(role)) = (&self.tenant, &self.role) else { return Ok(None) };
        if config.identity.mode == Mode::Signed {
            return Err(Failure::usage("identity.mode is signed, so who asks must be signed, too")
                .hint("leave --tenant and --role out, and have the command send its JWT in Agent-Identity"));
        }
        let subject = Subject { tenant: tenant.clone(), role: role.clone(), user: self.user.clone() };
        let names = [Some(tenant.as_str()), Some(role.as_str()), self.user.as_ref().map(UserId::as_str)];
        if names.iter().flatten().any(|name| name.contains(':')) {
            // RFC 7617 §2: a user name ends at the first colon.
            return Err(Failure::usage("a name with a colon cannot be sent as a proxy's user name")
                .hint("leave it out, and have the command send Agent-Identity"));
        }
        Ok(Some(subject))
    }
}

/// A folder that only we may read, for as long as the command runs.
fn folder() -> Result<TempDir, Failure> {
    let only_ours = Permissions::from_mode(0o700); // it would be what the umask leaves
    let made = tempfile::Builder::new().prefix("keybearer-").permissions(only_ours).tempdir();
    made.map_err(|error| Failure::new(format!("cannot make a folder for the trust bundle: {error}")))
}

fn command(words: &[OsString], proxy: &str, bundle: &Path) -> Command {
    let trust = Trust { pem: bundle, store: &Format::Pkcs12.beside(bundle), password: STORE_PASSWORD };
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    for name in std::env::vars_os().map(|(name, _)| name).filter(is_own) {
        command.env_remove(name);
    }
    for name in clients::REMOVED {
        command.env_remove(name);
    }
    command.envs(clients::environment(proxy, trust));
    if let Some(mut options) = std::env::var_os(java::VARIABLE) {
        // The last of two options counts.
        options.push(format!(" {}", java::options(&[java::trust(&trust), java::proxy(proxy)])));
        command.env(java::VARIABLE, options);
    }
    command
}

fn is_own(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(clients::OWN_PREFIX.as_bytes())
}

/// Starts the command and waits for its end, passing signals on.
async fn supervised(command: &mut Command, word: &OsStr) -> Result<ExitStatus, Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot run {}: {error}", word.display()));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut quit = signal(SignalKind::quit()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed(error).status(NOT_FOUND),
        io::ErrorKind::PermissionDenied => failed(error).status(NOT_EXECUTABLE),
        _ => failed(error),
    })?;
    loop {
        let received = tokio::select! {
            ended = child.wait() => return ended.map_err(failed),
            _ = interrupt.recv() => Signal::SIGINT,
            _ = quit.recv() => Signal::SIGQUIT,
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hang_up.recv() => Signal::SIGHUP,
        };
        let typed = matches!(received, Signal::SIGINT | Signal::SIGQUIT) && is_in_foreground();
        if !typed {
            pass_on(&child, received);
        }
    }
}

/// Whether a terminal sends us what is typed as Ctrl-C. Then it sends it to the command as well, and a second one
/// would tell many programs to stop without cleaning up.
fn is_in_foreground() -> bool {
    let ours = |foreground: nix::Result<Pid>| foreground.is_ok_and(|group| group == getpgrp());
    ours(tcgetpgrp(io::stdin())) || ours(tcgetpgrp(io::stdout())) || ours(tcgetpgrp(io::stderr()))
}

fn pass_on(child: &Child, signal: Signal) {
    // It has no id any more once it has ended, and then nobody is left to tell.
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(id) = id {
        let _ = kill(Pid::from_raw(id), signal);
    }
}

/// POSIX 2.8.2, as shells have it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_nobody_elses() {
        let folder = folder().unwrap_or_else(|failure| panic!("{failure:?}"));
        let mode = std::fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
