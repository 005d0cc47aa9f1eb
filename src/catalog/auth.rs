//! How a provider authenticates, as data: what an account must hold, and where its tokens come from.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::SigningScope;
use crate::{
    document::{Place, Problem},
    oauth::{Dialect, Pkce, Provider, Revocation, UrlTemplate},
};

/// What an account of [`AuthType::AwsSigv4`] holds; the last only for temporary keys.
const AWS_KEYS: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];

/// `spec.auth` of a `Connector`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSpec {
    /// The kind of credential.
    pub r#type: AuthType,
    /// The names of a static credential's fields; `[token]` where this is left out.
    pub fields: Option<Vec<String>>,
    /// Where a person consents.
    pub authorize_url: Option<UrlTemplate>,
    /// Where tokens are obtained and refreshed; for [`AuthType::AwsSigv4`], AWS's Security Token Service.
    pub token_url: Option<UrlTemplate>,
    /// What a token is minted for, in the provider's scopes, whatever the roles' grants need.
    pub scopes: Option<Vec<String>>,
    /// Where they are revoked.
    pub revoke_url: Option<UrlTemplate>,
    /// Proof key for code exchange (RFC 7636).
    pub pkce: Option<Pkce>,
    /// Where the provider departs from the standards.
    pub dialect: Option<Dialect>,
    /// For which service requests are signed, where the host does not say.
    pub service: Option<String>,
    /// For which region requests are signed, where the host does not say.
    pub region: Option<String>,
}

/// The kind of credential that a connector takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthType {
    /// Values that a person pastes.
    Static,
    /// Authorization code, then refresh (RFC 6749 §4.1, §6).
    Oauth2,
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// RFC 7523 §2.1.
    JwtBearer,
    /// RFC 8693.
    TokenExchange,
    /// A GitHub App's installation tokens.
    GithubApp,
    /// AWS Signature Version 4.
    AwsSigv4,
    /// No credential at all.
    None,
}

/// How a provider authenticates, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// The kind of credential.
    pub kind: AuthType,
    /// What an account holds, by name. `token` alone for everything but static credentials with named fields;
    /// nothing for [`AuthType::None`].
    pub fields: Vec<String>,
    /// Its authorization server; `None` for [`AuthType::Static`] and [`AuthType::None`], and for
    /// [`AuthType::AwsSigv4`] where keys are pasted and nothing else.
    pub provider: Option<Arc<Provider>>,
    /// What a token is minted for; `None`: what the roles' grants need.
    pub asked: Option<Vec<String>>,
    /// What requests are signed for whatever their host; `None` where the host says it.
    pub scope: Option<SigningScope>,
}

impl Auth {
    pub(super) fn compile(spec: AuthSpec, cleartext: bool, at: &Place, problems: &mut Vec<Problem>) -> Self {
        check_keys(&spec, at, problems);
        for (key, url) in spec.urls() {
            if let Some(url) = url {
                url.check(cleartext, &at.key(key), problems);
            }
        }
        if let Some(dialect) = &spec.dialect {
            dialect.check(cleartext, &at.key("dialect"), problems);
        }
        let kind = spec.r#type;
        let token = || vec!["token".to_owned()];
        let keys = || AWS_KEYS[..2].iter().map(|name| (*name).to_owned()).collect();
        let fields = match kind {
            AuthType::None => Vec::new(),
            // An empty list was told already.
            AuthType::Static => spec.fields.filter(|fields| !fields.is_empty()).unwrap_or_else(token),
            AuthType::AwsSigv4 => spec.fields.unwrap_or_else(keys),
            _ => token(),
        };
        let is_sts = kind == AuthType::AwsSigv4 && spec.token_url.is_some();
        let provider = (kind.has_provider() || is_sts).then(|| {
            Arc::new(Provider {
                authorize_url: spec.authorize_url,
                token_url: spec.token_url,
                revoke_url: spec.revoke_url,
                pkce: spec.pkce,
                dialect: spec.dialect.unwrap_or_default(),
            })
        });
        let scope = spec.service.zip(spec.region).map(|(service, region)| SigningScope { service, region });
        Self { kind, fields, provider, asked: spec.scopes, scope }
    }

    /// Whether an account may hold what its tokens are minted from.
    #[must_use]
    pub const fn may_mint(&self) -> bool {
        self.kind.mints() || matches!(self.kind, AuthType::AwsSigv4) && self.provider.is_some()
    }
}

impl AuthType {
    /// Whether each account holds what its tokens are minted from, and nothing that could be injected.
    #[must_use]
    pub const fn mints(self) -> bool {
        match self {
            Self::ClientCredentials | Self::JwtBearer | Self::TokenExchange | Self::GithubApp => true,
            Self::Static | Self::Oauth2 | Self::AwsSigv4 | Self::None => false,
        }
    }

    /// Whether tokens come from an authorization server.
    const fn has_provider(self) -> bool {
        match self {
            Self::Oauth2
            | Self::ClientCredentials
            | Self::JwtBearer
            | Self::TokenExchange
            | Self::GithubApp => true,
            Self::Static | Self::AwsSigv4 | Self::None => false,
        }
    }
}

impl AuthSpec {
    fn urls(&self) -> [(&'static str, Option<&UrlTemplate>); 3] {
        [
            ("authorize_url", self.authorize_url.as_ref()),
            ("token_url", self.token_url.as_ref()),
            ("revoke_url", self.revoke_url.as_ref()),
        ]
    }
}

/// Keys that the type has no use for are mistakes, so they are not read over.
fn check_keys(spec: &AuthSpec, at: &Place, problems: &mut Vec<Problem>) {
    if let Some(fields) = &spec.fields {
        let at = at.key("fields");
        if spec.r#type == AuthType::AwsSigv4 {
            if *fields != AWS_KEYS {
                let says = "write [access_key_id, secret_access_key, session_token], or leave fields out for the first two";
                problems.push(at.problem(says));
            }
        } else if spec.r#type != AuthType::Static {
            problems.push(at.problem("only `type: static` has fields of its own; the others hold a `token`"));
        }
        if fields.is_empty() {
            problems.push(at.problem("name a field, or leave fields out for `token`"));
        }
        for (index, field) in fields.iter().enumerate() {
            if !is_field_name(field) {
                let says = "write a field's name with lower-case letters, digits and _, as in api_key";
                problems.push(at.index(index).problem(says));
            } else if fields[..index].contains(field) {
                problems.push(at.index(index).problem(format!("{field} is listed twice")));
            }
        }
    }
    check_scope(spec, at, problems);
    check_flow(spec, at, problems);
    if spec.scopes.is_some() && !spec.r#type.mints() {
        problems.push(at.key("scopes").problem("only tokens that are minted have scopes here"));
    }
    if !spec.r#type.has_provider() {
        let is_sts = |key: &str| spec.r#type == AuthType::AwsSigv4 && key == "token_url";
        let written = spec.urls().into_iter().filter_map(|(key, url)| url.map(|_| key));
        let written = written.filter(|key| !is_sts(key));
        let others = [("pkce", spec.pkce.is_some()), ("dialect", spec.dialect.is_some())];
        for key in written.chain(others.into_iter().filter_map(|(key, is_written)| is_written.then_some(key)))
        {
            problems
                .push(at.key(key).problem(format!("{key} has no meaning for static credentials or none")));
        }
    }
}

/// What a flow cannot do without. `oauth2` can do without all of it: its accounts are then pasted tokens.
fn check_flow(spec: &AuthSpec, at: &Place, problems: &mut Vec<Problem>) {
    let needed = spec.r#type != AuthType::Oauth2 || spec.authorize_url.is_some();
    if spec.r#type.has_provider() && needed && spec.token_url.is_none() {
        problems.push(at.problem("say where tokens come from: token_url"));
    }
    let revocation = spec.dialect.as_ref().map(|dialect| dialect.revocation).unwrap_or_default();
    if spec.revoke_url.is_none() && !matches!(revocation, Revocation::Rfc7009 | Revocation::None) {
        problems.push(at.key("dialect").key("revocation").problem("say where: revoke_url"));
    }
}

/// What AWS signs for is written whole or left to the host.
fn check_scope(spec: &AuthSpec, at: &Place, problems: &mut Vec<Problem>) {
    for (key, value) in [("service", &spec.service), ("region", &spec.region)] {
        let Some(value) = value else { continue };
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if spec.r#type != AuthType::AwsSigv4 {
            problems.push(at.key(key).problem(format!("{key} has a meaning for `type: aws_sigv4` only")));
        } else if value.is_empty() || !value.bytes().all(is_name) {
            problems.push(at.key(key).problem("write it with lower-case letters, digits and -"));
        } else if spec.service.is_none() || spec.region.is_none() {
            problems.push(at.key(key).problem("write both service and region, or leave both to the host"));
        }
    }
}

pub(super) fn is_field_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
