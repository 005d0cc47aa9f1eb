//! AWS Signature Version 4: the credential signs a request instead of being put into it.
//!
//! What is signed is what is sent: the method, the path and query, `Host`, every `x-amz-*` header, and what stands
//! for the body. The steps are those of AWS's "Create a signed AWS API request"; its test suite is run in `tests`.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::{Timestamp, tz::TimeZone};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Error;
use crate::{
    catalog::{MissingField, SigningScope},
    secret::Secret,
};

/// All but RFC 3986's unreserved characters is encoded, as AWS does before it compares.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
/// For S3, which reads a path once: what is encoded already stays so.
const PATH_ONCE: &AsciiSet = &PATH.remove(b'%');

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// An account's AWS keys.
pub struct Signer {
    key_id: String,
    /// `AWS4` and the secret access key: what the chain of keys begins with.
    secret: Secret,
    token: Option<HeaderValue>,
}

/// A request as its signature covers it, but for the headers.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'a> {
    /// The method.
    pub method: &'a Method,
    /// `Host` as it will be sent.
    pub authority: &'a str,
    /// The path as it will be sent.
    pub path: &'a str,
    /// The query as it will be sent.
    pub query: Option<&'a str>,
    /// What stands for the body: its SHA-256 in hexadecimal digits, or a word for one that is not signed.
    pub payload: &'a str,
    /// For which service and region.
    pub scope: &'a SigningScope,
}

/// A header has bytes that a signature cannot cover.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header {0} has bytes that cannot be signed: write it in visible ASCII")]
pub struct Unsignable(pub HeaderName);

impl Signer {
    /// Keys by the names of their fields.
    pub(super) fn new(fields: &BTreeMap<String, Secret>) -> Result<Self, Error> {
        let field = |name: &str| fields.get(name).ok_or_else(|| MissingField(name.to_owned()));
        #[expect(clippy::disallowed_methods, reason = "this is where the keys become ready to sign with")]
        let (key_id, secret, token) = (
            field("access_key_id")?.expose(),
            field("secret_access_key")?.expose(),
            fields.get("session_token").map(Secret::expose),
        );
        let header = |bytes| {
            let mut value = HeaderValue::from_bytes(bytes).map_err(|_| Error::Unwritable(TOKEN))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        Ok(Self {
            key_id: String::from_utf8(key_id.to_vec())
                .map_err(|_| Error::Unwritable(header::AUTHORIZATION))?,
            secret: Secret::new([b"AWS4", secret].concat()),
            token: token.map(header).transpose()?,
        })
    }

    /// Signs a request: adds the date, the session token and `Authorization`.
    ///
    /// # Errors
    /// [`Unsignable`].
    pub fn sign(
        &self,
        unsigned: &Unsigned<'_>,
        headers: &mut HeaderMap,
        now: Timestamp,
    ) -> Result<(), Unsignable> {
        let time = now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &time[..8];
        if let Ok(value) = HeaderValue::try_from(&time) {
            headers.insert(DATE, value);
        }
        if let Some(token) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
        let (canonical, signed) = unsigned.canonical(headers)?;
        let SigningScope { service, region } = unsigned.scope;
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let signature = hex(&*mac(&*self.key(day, unsigned.scope), text.as_bytes()));
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
            self.key_id
        );
        let unsignable = |_| Unsignable(header::AUTHORIZATION);
        let mut value = HeaderValue::try_from(value).map_err(unsignable)?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
        Ok(())
    }

    /// The key of a day, a region and a service.
    fn key(&self, day: &str, SigningScope { service, region }: &SigningScope) -> Zeroizing<[u8; 32]> {
        #[expect(clippy::disallowed_methods, reason = "this is where a request is signed")]
        let of_day = mac(self.secret.expose(), day.as_bytes());
        let of_service = mac(&*mac(&*of_day, region.as_bytes()), service.as_bytes());
        mac(&*of_service, b"aws4_request")
    }
}

impl Unsigned<'_> {
    /// The canonical request, and the names of the headers in it.
    fn canonical(&self, headers: &HeaderMap) -> Result<(String, String), Unsignable> {
        let covered = self.covered(headers)?;
        let names: Vec<&str> = covered.keys().copied().collect();
        let names = names.join(";");
        let path = if self.scope.is_s3() { PATH_ONCE } else { PATH };
        let mut text = format!(
            "{}\n{}\n{}\n",
            self.method,
            utf8_percent_encode(self.path, path),
            canonical_query(self.query.unwrap_or_default())
        );
        for (name, value) in &covered {
            let _ = writeln!(text, "{name}:{value}");
        }
        let _ = write!(text, "\n{names}\n{}", self.payload);
        Ok((text, names))
    }

    /// The headers that are signed, by name: `Host`, those of AWS, and those that say how the body is read. Others
    /// may be changed on the way.
    fn covered<'a>(&'a self, headers: &'a HeaderMap) -> Result<BTreeMap<&'a str, Cow<'a, str>>, Unsignable> {
        let mut covered = BTreeMap::from([("host", Cow::Borrowed(self.authority))]);
        let is_covered = |name: &&HeaderName| {
            name.as_str().starts_with("x-amz-")
                || matches!(name.as_str(), "content-type" | "content-md5" | "content-encoding")
        };
        for name in headers.keys().filter(is_covered) {
            let mut values = Vec::new();
            for value in headers.get_all(name) {
                values.push(plain(value.to_str().map_err(|_| Unsignable(name.clone()))?));
            }
            covered.insert(name.as_str(), Cow::Owned(values.join(",")));
        }
        Ok(covered)
    }
}

/// A header's value with its spaces trimmed and no two of them in a row.
fn plain(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Names and values encoded in the one way, then sorted. `+` is a space, as AWS reads it.
fn canonical_query(query: &str) -> String {
    let encoded = |text: &str| {
        let text = text.replace('+', " ");
        let bytes: Vec<u8> = percent_decode_str(&text).collect();
        percent_encode(&bytes, UNRESERVED).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// The SHA-256 of a body, as the signature and `x-amz-content-sha256` have it.
#[must_use]
pub fn payload_hash(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

fn mac(key: &[u8], text: &[u8]) -> Zeroizing<[u8; 32]> {
    // HMAC takes a key of any length (RFC 2104 §2).
    let keyed = Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(text).finalize().into_bytes());
    Zeroizing::new(keyed.map(Into::into).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
