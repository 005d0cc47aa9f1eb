//! A token request as it arrived, read as strictly as RFC 6749 §3.2 allows: no parameter twice, none in a URL.

use std::collections::BTreeMap;

use axum::body::Bytes;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, Method, header, request::Parts};
use serde_json::Value;

use super::{profile::Takes, refusal::Why};

#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Parameters by name.
pub(super) type Params = BTreeMap<String, String>;

impl Asked {
    pub(super) fn new(head: Parts, body: Bytes) -> Self {
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
        Self { method: head.method, path, query, headers: head.headers, body }
    }

    /// The parameters, from where the provider takes them and from nowhere else.
    pub(super) fn params(&self, takes: Takes) -> Result<Params, Why> {
        if takes == Takes::Query {
            return form(&self.query);
        }
        if !self.query.is_empty() {
            return Err(Why::Request("no parameter belongs into the URL"));
        }
        match (takes, self.content_type()) {
            (Takes::Form | Takes::Either, "application/x-www-form-urlencoded") => {
                form(std::str::from_utf8(&self.body).map_err(|_| Why::Request("not UTF-8"))?)
            }
            (Takes::Json | Takes::Either, "application/json") => json(&self.body),
            _ => Err(Why::Request("a content type that this endpoint does not take")),
        }
    }

    pub(super) fn content_type(&self) -> &str {
        self.header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
    }

    pub(super) fn accepts_json(&self) -> bool {
        self.header(header::ACCEPT).contains("application/json")
    }

    /// User and password as RFC 6749 §2.3.1 has them: form-encoded before they are base64.
    pub(super) fn basic(&self) -> Option<(String, String)> {
        let (user, password) = self.plain_basic()?;
        Some((decode(&user)?, decode(&password)?))
    }

    /// User and password as they are (RFC 7617).
    pub(super) fn plain_basic(&self) -> Option<(String, String)> {
        let credentials = self.credentials()?;
        let (user, password) = credentials.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }

    /// What Basic carries: user, a colon, and password.
    pub(super) fn credentials(&self) -> Option<String> {
        let encoded = self.header(header::AUTHORIZATION).strip_prefix("Basic ")?;
        String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        self.header(header::AUTHORIZATION).strip_prefix("Bearer ")
    }

    /// A path at the host that was asked, as an absolute URL.
    pub(super) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.header(header::HOST))
    }

    pub(super) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub(super) fn form(text: &str) -> Result<Params, Why> {
    let mut params = Params::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(Why::Request("a parameter without a value"))?;
        let (name, value) = decode(name).zip(decode(value)).ok_or(Why::Request("not UTF-8"))?;
        if params.insert(name, value).is_some() {
            return Err(Why::Request("a parameter stands twice"));
        }
    }
    Ok(params)
}

fn json(body: &[u8]) -> Result<Params, Why> {
    let value: BTreeMap<String, Value> =
        serde_json::from_slice(body).map_err(|_| Why::Request("not a JSON object"))?;
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(value.into_iter().map(|(name, value)| (name, text(value))).collect())
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&spaced).decode_utf8().ok()?.into_owned())
}
