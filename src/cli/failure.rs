//! Why a command did not do it, for the person who typed it.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use crate::{admin, admission, app, audit, config, redirect, ruleset::LoadError, tls, vault};

/// The exit status of a failure.
pub(super) const FAILED: u8 = 1;
/// The exit status of wrong arguments.
pub(super) const USAGE: u8 = 2;
/// The exit status of an audit log that is not intact.
pub(super) const NOT_INTACT: u8 = 3;

/// Why a command did not do it: `error: ...`, then what to do about it, a `hint: ...` a line.
#[derive(Debug)]
pub(super) struct Failure {
    message: Option<String>,
    hints: Vec<String>,
    status: u8,
}

impl Failure {
    /// A failure that says itself what to do.
    pub(super) fn new(message: impl fmt::Display) -> Self {
        Self { message: Some(message.to_string()), hints: Vec::new(), status: FAILED }
    }

    /// The arguments parse and still make no sense.
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self { status: USAGE, ..Self::new(message) }
    }

    /// Everything was said already.
    pub(super) const fn silent(status: u8) -> Self {
        Self { message: None, hints: Vec::new(), status }
    }

    /// Gives it an exit status of its own.
    #[must_use]
    pub(super) const fn status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// Adds what to do.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// A message with the causes that it does not name itself.
    fn of(error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = inner.source();
        }
        Self::new(message)
    }

    /// Tells it on standard error, and gives the exit status.
    pub(super) fn report(self) -> ExitCode {
        let mut err = io::stderr().lock();
        // Nobody is left to tell where this fails.
        if let Some(message) = &self.message {
            let _ = writeln!(err, "error: {message}");
        }
        for hint in &self.hints {
            let _ = writeln!(err, "hint: {hint}");
        }
        ExitCode::from(self.status)
    }
}

/// Most of our sentences end in `: what to do` or `; what to do`; the whole is the message, as it stands.
macro_rules! told {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::of(&error)
            }
        })+
    };
}

told!(admission::Error, app::Error, audit::Error, config::Error, redirect::Error, tls::Error);

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let count = error.findings().len();
        let failure = Self::new(error);
        if count > 1 {
            failure.hint(format!("{count} problems in all; none of these files is in use"))
        } else {
            failure
        }
    }
}

impl From<vault::Error> for Failure {
    fn from(error: vault::Error) -> Self {
        let failure = Self::of(&error);
        match error {
            vault::Error::Missing(_) => failure.hint("`keybearer account list` shows what there is"),
            vault::Error::WrongKey { .. } => {
                failure.hint("after `keybearer vault rotate-key`, the new key is to be named in `vault.key:`")
            }
            vault::Error::Unopened { .. } => {
                failure.hint("`keybearer vault status` names all accounts that do not open")
            }
            _ => failure,
        }
    }
}

impl From<admin::Error> for Failure {
    fn from(error: admin::Error) -> Self {
        match error {
            admin::Error::Vault(error) => error.into(),
            admin::Error::Unfit(misfit @ admin::Misfit::Connector { .. }) => {
                Self::new(misfit).hint("`keybearer connector list` shows those of the policy files")
            }
            admin::Error::Unfit(admin::Misfit::Scope { ref connector, .. }) => {
                let hint = format!("`keybearer connector show {connector}` shows its scopes");
                Self::of(&error).hint(hint)
            }
            admin::Error::Consented(_) => Self::of(&error).status(USAGE),
            admin::Error::Refused(ref fault) if fault.error == "account_consented" => {
                Self::of(&error).status(USAGE)
            }
            admin::Error::Refused(ref fault) if fault.error == "account_missing" => {
                Self::of(&error).hint("`keybearer account list` shows what there is")
            }
            other => Self::of(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read it")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_are_told_once() {
        let failure = Failure::of(&Outer(io::Error::other("disk on fire")));
        assert_eq!(failure.message.as_deref(), Some("cannot read it: disk on fire"));
        let named = Failure::of(&Outer(io::Error::other("cannot read it")));
        assert_eq!(named.message.as_deref(), Some("cannot read it"));
    }
}
