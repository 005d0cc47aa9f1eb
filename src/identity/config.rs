//! The `identity:` section of the configuration.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::id::{RoleName, TenantId, UserId};

/// How much of what a client says about itself is believed, and what is needed to check it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is believed.
    pub mode: Mode,
    /// The keys that sign identities; needed in mode `signed`. A relative path is the caller's to resolve.
    pub jwks: Option<JwksSource>,
    /// What a token's `aud` must name. Left out, a token that names any audience is refused (RFC 7519 §4.1.3:
    /// a recipient that is not named must reject it).
    pub audience: Option<String>,
    /// What a token's `iss` must be. Left out, `iss` is not looked at.
    pub issuer: Option<String>,
    /// The identity of requests that carry none.
    pub default: Option<DefaultIdentity>,
}

/// What is believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The header as it is. For development.
    #[default]
    Open,
    /// The header, within what a binding gives the workload.
    Bound,
    /// A signed token only.
    Signed,
}

/// Where the JSON Web Key Set (RFC 7517) is: `{file: ...}`, `{url: ...}`, or a text that is taken as a URL if
/// it begins with `https://` or `http://` and as a file otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// A file, read again when it is old or a token names a key that it does not have.
    File(PathBuf),
    /// An address, fetched likewise.
    Url(String),
}

/// The identity of requests that carry none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultIdentity {
    /// The customer organisation.
    pub tenant: TenantId,
    /// The role.
    pub role: RoleName,
    /// The end user, where there is one.
    #[serde(default)]
    pub user: Option<UserId>,
}

/// Why the section cannot be used. The messages say what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Signed mode without keys.
    #[error("identity.mode is signed, but identity.jwks is missing: name a {{file: ...}} or a {{url: ...}}")]
    NoKeys,
    /// A key set address that would be fetched unprotected, or is none.
    #[error("identity.jwks.url must be an https:// URL (http:// is taken for loopback addresses only)")]
    Url,
    /// The key set file cannot be read or holds no usable key.
    #[error("identity.jwks.file {}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl<'de> Deserialize<'de> for JwksSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = JwksSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{file: PATH}, {url: URL}, a path or a URL")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<JwksSource, E> {
        let url = text.starts_with("https://") || text.starts_with("http://");
        Ok(if url { JwksSource::Url(text.to_owned()) } else { JwksSource::File(text.into()) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JwksSource, A::Error> {
        use serde::de::Error as _;

        let source = match map.next_key::<String>()?.as_deref() {
            Some("file") => JwksSource::File(map.next_value()?),
            Some("url") => JwksSource::Url(map.next_value()?),
            Some(other) => return Err(A::Error::unknown_field(other, &["file", "url"])),
            None => return Err(A::Error::custom("name a file or a url")),
        };
        match map.next_key::<String>()? {
            None => Ok(source),
            Some(_) => Err(A::Error::custom("name either a file or a url, not both")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> Result<Config, String> {
        serde_saphyr::from_str(yaml).map_err(|e| e.to_string())
    }

    #[test]
    fn everything_is_optional_and_the_default_is_open() {
        assert_eq!(config("{}").unwrap().mode, Mode::Open);
        assert!(config("mode: none").is_err());
        assert!(config("{mode: open, moed: signed}").is_err());
    }

    #[test]
    fn keys_are_named_by_file_or_url_or_a_text_that_tells() {
        let jwks = |yaml: &str| config(yaml).unwrap().jwks.unwrap();
        assert_eq!(jwks("jwks: {file: ./jwks.json}"), JwksSource::File("./jwks.json".into()));
        assert_eq!(jwks("jwks: ./jwks.json"), JwksSource::File("./jwks.json".into()));
        assert_eq!(jwks("jwks: {url: https://idp/jwks}"), JwksSource::Url("https://idp/jwks".into()));
        assert_eq!(jwks("jwks: https://idp/jwks"), JwksSource::Url("https://idp/jwks".into()));
        assert!(config("jwks: {file: a, url: b}").is_err());
        assert!(config("jwks: {uri: b}").is_err());
        assert!(config("jwks: {}").is_err());
    }

    #[test]
    fn the_default_identity_is_checked_when_it_is_read() {
        let default = config("default: {tenant: acme, role: writer}").unwrap().default.unwrap();
        assert_eq!((default.tenant.as_str(), default.role.as_str(), default.user), ("acme", "writer", None));
        assert!(config("default: {tenant: acme/x, role: writer}").is_err());
        assert!(config("default: {tenant: acme}").is_err());
    }
}
