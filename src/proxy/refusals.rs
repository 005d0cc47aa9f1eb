//! Every error of the modules below as a [`Refusal`], in one place.

use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::{
    Proxy,
    refusal::{Code, Refusal},
};
use crate::{
    cause::Cause,
    credential::{self, Closed, Trouble, principal_kind},
    host::Host,
    id::{AccountKey, Scope},
    identity,
    policy::{Denial, NoRole, Permit, RuleId, Why},
};

impl From<identity::Error> for Refusal {
    fn from(error: identity::Error) -> Self {
        use identity::Error;
        let sentence = |code: Code| format!("{}: {error}", code.as_str());
        match &error {
            Error::Required => Self::new(Code::IdentityRequired, sentence(Code::IdentityRequired)),
            Error::Invalid(_) => Self::new(Code::IdentityInvalid, sentence(Code::IdentityInvalid)),
            Error::Duplicate(_) => Self::bad_request(&error),
            Error::NotAllowed { subject, .. } => {
                Self::new(Code::IdentityNotAllowed, sentence(Code::IdentityNotAllowed))
                    .with("tenant", subject.tenant.as_str())
                    .with("role", subject.role.as_str())
            }
            Error::Drift { chain, pinned } => Self::new(Code::IdentityDrift, sentence(Code::IdentityDrift))
                .with("chain", chain.as_str())
                .with("pinned", json!({"tenant": pinned.tenant, "user": pinned.user})),
            Error::Unavailable => Self::new(Code::PolicyUnavailable, sentence(Code::PolicyUnavailable)),
        }
    }
}

impl From<NoRole> for Refusal {
    fn from(error: NoRole) -> Self {
        Self::new(Code::PolicyDenied, format!("policy_denied: {error}"))
            .with("rule", RuleId::by_default().to_string())
    }
}

impl Refusal {
    /// The policy's no, but for what was asked.
    #[must_use]
    pub(super) fn of_denial(denial: &Denial) -> Self {
        let code = match denial.why() {
            Why::InsufficientScope(_) => Code::InsufficientScope,
            Why::OperationUnknown => Code::OperationUnknown,
            Why::NoRole | Why::NotGranted | Why::Denied | Why::OperationNotGranted | Why::UserRequired => {
                Code::PolicyDenied
            }
        };
        let sentence = denial.to_string();
        let detail = if sentence.starts_with(code.as_str()) {
            sentence
        } else {
            format!("{}: {sentence}", code.as_str())
        };
        let mut refusal = Self::new(code, detail).with("connector", denial.connector().as_str());
        if let Some(operation) = denial.operation() {
            refusal = refusal.with("operation", operation.as_str());
        }
        match denial.why() {
            Why::InsufficientScope(shortfall) => {
                let lists = (&shortfall.required[..], &shortfall.granted[..], &shortfall.missing[..]);
                refusal.scopes(lists, "role")
            }
            Why::OperationUnknown => refusal,
            _ => refusal.with("rule", denial.rule().to_string()),
        }
    }

    fn scopes(self, (required, granted, missing): (&[Scope], &[Scope], &[Scope]), missing_in: &str) -> Self {
        let list = |scopes: &[Scope]| Value::from(scopes.iter().map(Scope::as_str).collect::<Vec<_>>());
        let spaced = required.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{spaced}\"");
        let refusal = self
            .with("required", list(required))
            .with("granted", list(granted))
            .with("missing", list(missing))
            .with("missing_in", missing_in);
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => refusal.with_header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => refusal,
        }
    }
}

impl Proxy {
    /// Why there is no credential, as the agent is told it.
    pub(super) fn credential_refusal(
        &self,
        error: &credential::Error,
        permit: &Permit,
        host: &Host,
    ) -> Refusal {
        use credential::Error;
        let key = permit.account();
        match error {
            Error::Missing(_) => self.reconnect(
                Code::AccountMissing,
                key,
                &format!(
                    "account_missing: tenant {} has no {} account connected for {}; ask an operator to connect one",
                    key.tenant, key.connector, key.principal
                ),
            ),
            Error::Revoked(_) => self.reconnect(
                Code::AuthRevoked,
                key,
                &format!("auth_revoked: the {} account for {} was revoked; ask an operator to connect it again", key.connector, key.principal),
            ),
            Error::Closed { account, closed } => self.closed(account, *closed),
            Error::NoToken { trouble: Trouble::Seed, .. }
            | Error::Field(_)
            | Error::Unminted(_)
            | Error::Unwritable(_) => self.unusable(key, error),
            Error::NoToken { host, trouble } => no_token(key, host, *trouble),
            Error::Frozen { by } => {
                let detail = format!("account_frozen: the {} account for {} was frozen by {by}; stop until it is released", key.connector, key.principal);
                Refusal::new(Code::AccountFrozen, detail).with("by", by.as_str())
            }
            Error::Scopes { account, required, granted } => {
                let granted: Vec<Scope> = granted.iter().cloned().collect();
                let missing: Vec<Scope> = required.iter().filter(|scope| !granted.contains(scope)).cloned().collect();
                let names = missing.iter().map(Scope::as_str).collect::<Vec<_>>().join(", ");
                let detail = format!(
                    "insufficient_scope: {names} required, which the connected {} account does not have; ask an operator to connect it with this scope",
                    account.connector
                );
                self.reconnect(Code::InsufficientScope, account, &detail).scopes((required, &granted, &missing), "account")
            }
            Error::Host { name, expected } => {
                let own = expected.as_ref().map_or_else(|| "has none".to_owned(), |own| format!("is {own}"));
                let detail = format!("destination_denied: {host} is not this account's host: its {name} {own}");
                Refusal::new(Code::DestinationDenied, detail).with("host", host.to_string()).with("why", "no_connector")
            }
            Error::Vault(error) => {
                tracing::error!(error = super::forward::error_chain(error), "the vault cannot be read");
                unread()
            }
            Error::Broker(error) => {
                tracing::error!(%error, "the broker gives no credential");
                unread()
            }
            Error::NotAllowed(subject) => {
                let detail = format!(
                    "identity_not_allowed: the broker gives this workload no {} account for role {} in tenant {}; ask an operator for a Binding and a grant that do",
                    key.connector, subject.role, subject.tenant
                );
                Refusal::new(Code::IdentityNotAllowed, detail)
                    .with("tenant", subject.tenant.as_str())
                    .with("role", subject.role.as_str())
            }
        }
    }

    fn unusable(&self, key: &AccountKey, error: &credential::Error) -> Refusal {
        tracing::error!(account = %key, %error, "the account does not have what its connector injects");
        let detail = format!(
            "account_missing: the {} account does not hold what the connector needs; ask an operator to rotate it",
            key.connector
        );
        self.reconnect(Code::AccountMissing, key, &detail)
    }

    /// The authorization works no longer. Who is gone cannot be asked to consent again, and is not.
    fn closed(&self, account: &AccountKey, closed: Closed) -> Refusal {
        let (connector, principal) = (&account.connector, &account.principal);
        let (code, what) = match closed {
            Closed::SubjectGone(cause) => (
                Code::AuthRevoked,
                format!(
                    "the user or installation behind the {connector} account for {principal} is gone ({}); an operator has to connect another one",
                    cause.as_str()
                ),
            ),
            Closed::Reauthorize(cause @ (Cause::Revoked | Cause::UserDisabled | Cause::Uninstalled)) => (
                Code::AuthRevoked,
                format!(
                    "the authorization of the {connector} account for {principal} was taken back at the provider ({}); ask a person to connect it again",
                    cause.as_str()
                ),
            ),
            Closed::Reauthorize(cause) => (
                Code::AuthExpired,
                format!(
                    "the authorization of the {connector} account for {principal} has ended ({}); ask a person to connect it again",
                    cause.as_str()
                ),
            ),
            Closed::Refused(cause) => (
                match cause {
                    Cause::Revoked | Cause::UserDisabled | Cause::Uninstalled => Code::AuthRevoked,
                    _ => Code::AuthExpired,
                },
                format!(
                    "the provider gives no token for what the {connector} account for {principal} holds ({}); ask an operator to correct it there or to rotate the account",
                    cause.as_str()
                ),
            ),
            Closed::NeedsUser(cause) => (
                Code::AuthExpired,
                format!(
                    "the provider wants the user of the {connector} account for {principal} to sign in again ({}); ask them to",
                    cause.as_str()
                ),
            ),
        };
        let refusal = self.reconnect(code, account, &format!("{}: {what}", code.as_str()));
        refusal.with("cause", closed.cause().as_str())
    }

    fn reconnect(&self, code: Code, key: &AccountKey, detail: &str) -> Refusal {
        let refusal = Refusal::new(code, detail)
            .with("connector", key.connector.as_str())
            .with("principal", principal_kind(&key.principal));
        let url = self.resolver.reconnect_url(key).map(|url| url.to_string());
        match url.or_else(|| self.admin.map(|admin| reconnect_url(admin, key))) {
            Some(url) => refusal.with("reconnect_url", url),
            None => refusal,
        }
    }
}

/// Whoever has the accounts could not be asked.
fn unread() -> Refusal {
    const DETAIL: &str =
        "vault_unavailable: the credential could not be read, so nothing was sent; try again";
    Refusal::new(Code::VaultUnavailable, DETAIL)
}

/// There is no token at present, and nobody has to connect anything for that to change.
fn no_token(key: &AccountKey, host: &str, trouble: Trouble) -> Refusal {
    let what = match trouble {
        Trouble::Unreachable { .. } => format!(
            "{host}, which gives the {} account its tokens, cannot be reached or gives none",
            key.connector
        ),
        Trouble::AppPaused { .. } => format!(
            "{host} refuses the app of the {} account; an operator corrects it in oauth.apps",
            key.connector
        ),
        Trouble::NoApp => {
            format!("no app is configured to obtain a token from {host}; an operator adds it to oauth.apps")
        }
        Trouble::Unreadable => format!(
            "the last answer of {host} cannot be read; an operator corrects the dialect of the connector {}",
            key.connector
        ),
        Trouble::Slow | Trouble::Busy | Trouble::Seed => {
            format!("a token is being obtained from {host}, which takes its time")
        }
        Trouble::Interrupted => format!("obtaining a token from {host} was interrupted"),
        Trouble::Vault => {
            return Refusal::new(
                Code::VaultUnavailable,
                "vault_unavailable: a new token could not be kept, so none was obtained and nothing was sent; try again",
            );
        }
    };
    let asked = trouble.retry_after();
    let seconds = (asked.as_secs() + u64::from(asked.subsec_nanos() > 0)).max(1);
    let detail = format!("upstream_unreachable: {what}; nothing was sent, try again in {seconds} s");
    Refusal::new(Code::UpstreamUnreachable, detail)
        .with("host", host)
        .with("why", trouble.why())
        .with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
}

/// Where a person reads how to connect this account.
fn reconnect_url(admin: std::net::SocketAddr, key: &AccountKey) -> String {
    format!("http://{admin}/connect/{}/{}?as={}", key.tenant, key.connector, key.principal)
}
