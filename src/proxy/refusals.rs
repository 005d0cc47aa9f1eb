//! Every error of the modules below as a [`Refusal`], in one place.

use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::{
    Proxy,
    refusal::{Code, Refusal},
};
use crate::{
    credential::{self, principal_kind},
    host::Host,
    id::{AccountKey, Scope},
    identity,
    policy::{Denial, Permit, Why},
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
            Error::Field(_) | Error::Unwritable(_) => {
                tracing::error!(account = %key, %error, "the account does not have what its connector injects");
                let detail = format!("account_missing: the {} account does not hold what the connector needs; ask an operator to rotate it", key.connector);
                self.reconnect(Code::AccountMissing, key, &detail)
            }
            Error::Vault(error) => {
                tracing::error!(error = super::forward::error_chain(error), "the vault cannot be read");
                Refusal::new(Code::VaultUnavailable, "vault_unavailable: the credential could not be read, so nothing was sent; try again")
            }
        }
    }

    fn reconnect(&self, code: Code, key: &AccountKey, detail: &str) -> Refusal {
        let refusal = Refusal::new(code, detail)
            .with("connector", key.connector.as_str())
            .with("principal", principal_kind(&key.principal));
        match self.admin {
            Some(admin) => refusal.with("reconnect_url", reconnect_url(admin, key)),
            None => refusal,
        }
    }
}

/// Where a person reads how to connect this account.
fn reconnect_url(admin: std::net::SocketAddr, key: &AccountKey) -> String {
    format!("http://{admin}/connect/{}/{}?as={}", key.tenant, key.connector, key.principal)
}
