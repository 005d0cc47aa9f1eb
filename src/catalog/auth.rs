//! How a provider authenticates, as data: what an account must hold, and where its tokens come from.

use serde::{Deserialize, Serialize};

use crate::document::{Place, Problem};

/// `spec.auth` of a `Connector`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSpec {
    /// The kind of credential.
    pub r#type: AuthType,
    /// The names of a static credential's fields; `[token]` where this is left out.
    pub fields: Option<Vec<String>>,
    /// Where a person consents.
    pub authorize_url: Option<String>,
    /// Where tokens are obtained and refreshed.
    pub token_url: Option<String>,
    /// Where they are revoked.
    pub revoke_url: Option<String>,
    /// Proof key for code exchange (RFC 7636).
    pub pkce: Option<Pkce>,
    /// Where the provider departs from the standards; read by the flow, whatever its shape.
    pub dialect: Option<serde_json::Value>,
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

/// How the code challenge is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pkce {
    /// SHA-256.
    S256,
    /// The verifier itself.
    #[serde(rename = "plain")]
    Plain,
}

/// How a provider authenticates, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// The kind of credential.
    pub kind: AuthType,
    /// What an account holds, by name. `token` alone for everything but static credentials with named fields;
    /// nothing for [`AuthType::None`].
    pub fields: Vec<String>,
    /// Where a person consents.
    pub authorize_url: Option<String>,
    /// Where tokens are obtained and refreshed.
    pub token_url: Option<String>,
    /// Where they are revoked.
    pub revoke_url: Option<String>,
    /// Proof key for code exchange.
    pub pkce: Option<Pkce>,
    /// Where the provider departs from the standards.
    pub dialect: serde_json::Value,
}

impl Auth {
    pub(super) fn compile(spec: AuthSpec, cleartext: bool, at: &Place, problems: &mut Vec<Problem>) -> Self {
        check_keys(&spec, at, problems);
        for (key, url) in spec.urls() {
            if let Some(url) = url
                && !(url.starts_with("https://") || (cleartext && url.starts_with("http://")))
            {
                problems.push(at.key(key).problem("begin the URL with https://"));
            }
        }
        let token = || vec!["token".to_owned()];
        Self {
            kind: spec.r#type,
            fields: match spec.r#type {
                AuthType::None => Vec::new(),
                AuthType::Static => spec.fields.unwrap_or_else(token),
                _ => token(),
            },
            authorize_url: spec.authorize_url,
            token_url: spec.token_url,
            revoke_url: spec.revoke_url,
            pkce: spec.pkce,
            dialect: spec.dialect.unwrap_or_default(),
        }
    }
}

impl AuthSpec {
    fn urls(&self) -> [(&'static str, Option<&String>); 3] {
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
        if spec.r#type != AuthType::Static {
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
    if matches!(spec.r#type, AuthType::Static | AuthType::None) {
        let written = spec.urls().into_iter().filter_map(|(key, url)| url.map(|_| key));
        let others = [("pkce", spec.pkce.is_some()), ("dialect", spec.dialect.is_some())];
        for key in written.chain(others.into_iter().filter_map(|(key, is_written)| is_written.then_some(key)))
        {
            problems
                .push(at.key(key).problem(format!("{key} has no meaning for static credentials or none")));
        }
    }
}

pub(super) fn is_field_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
