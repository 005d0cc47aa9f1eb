//! `vault.url`: where the accounts are, if not here.

use serde::{Deserialize, Deserializer, de};

use super::{DatabaseUrl, UrlError};
use crate::fetch;

/// Where the accounts are. Its `Debug` hides a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Url {
    /// In a database.
    Database(DatabaseUrl),
    /// At a broker.
    Broker(fetch::Url),
}

/// Why a text says neither. It may hold a password, so it is never quoted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "vault.url is neither a database's nor a broker's URL: write it as in postgres://keybearer@db.example/keybearer, or https://keybearer-broker.keybearer.svc:7443"
    )]
    Scheme,
    #[error("vault.url names a broker by http://: credentials come from there, so write https://")]
    Cleartext,
    #[error(
        "vault.url names a broker by more than its host and port: write it as in https://keybearer-broker.keybearer.svc:7443"
    )]
    Path,
    #[error("vault.url names no broker: {0}")]
    Broker(fetch::Error),
    #[error(transparent)]
    Database(#[from] UrlError),
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        match text.split_once("://").map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => Ok(Self::Database(DatabaseUrl::parse(text)?)),
            Some("http") => Err(Error::Cleartext),
            Some("https") => {
                let url = fetch::Url::parse(text).map_err(Error::Broker)?;
                if url.is_whole_host() { Ok(Self::Broker(url)) } else { Err(Error::Path) }
            }
            _ => Err(Error::Scheme),
        }
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_and_a_broker_are_told_apart() {
        assert!(matches!(Url::parse("postgresql://u@db.example/kb"), Ok(Url::Database(_))));
        for text in ["https://broker.test:7443", "https://broker.test/", "https://[::1]:7443"] {
            assert!(matches!(Url::parse(text), Ok(Url::Broker(_))), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_write_and_never_quoted() {
        for (text, says) in [
            ("http://broker.test:7443", "write https://"),
            ("https://broker.test:7443/v1", "host and port"),
            ("https://broker.test:7443/?x=hunter2", "host and port"),
            ("https://u:hunter2@broker.test:7443", "names no broker"),
            ("broker.test:7443", "https://keybearer-broker.keybearer.svc:7443"),
            ("mysql://u:hunter2@db.example/x", "postgres://keybearer@db.example/keybearer"),
            ("postgres://u:hunter2@db.example:port/x", "no PostgreSQL URL"),
        ] {
            let refused = Url::parse(text).unwrap_err().to_string();
            assert!(refused.contains(says) && !refused.contains("hunter2"), "{text}: {refused}");
        }
    }
}
