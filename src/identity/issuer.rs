//! Who signs the tokens by which workloads prove themselves, and where their keys are.

use std::{path::PathBuf, sync::Arc};

use futures_util::FutureExt;
use serde::Deserialize;

use super::{ConfigError, FetchJwks, JwksSource, Workload, keys::check_url};
use crate::tls::Roots;

/// One issuer of workload tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// What a token's `iss` must be; for SPIFFE the trust domain, `spiffe://example.org`.
    pub issuer: String,
    /// Whose tokens these are.
    pub kind: IssuerKind,
    /// Where the discovery document is, if not at `issuer`: the address before `/.well-known/openid-configuration`.
    #[serde(default)]
    pub discovery: Option<String>,
    /// The keys themselves, instead of those that a discovery document names. SPIFFE needs them.
    #[serde(default)]
    pub jwks: Option<JwksSource>,
    /// Whom the server's certificate is checked by.
    #[serde(default)]
    pub roots: Roots,
    /// A file with the bearer token that the server wants, as an API server does. Read for each fetch.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

/// Whose tokens an issuer signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerKind {
    /// Service-account tokens of a Kubernetes cluster.
    Kubernetes,
    /// JWT-SVIDs of a SPIFFE trust domain.
    Spiffe,
}

/// Why an issuer cannot be used. Says what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{issuer}: {why}")]
pub struct IssuerError {
    issuer: String,
    why: String,
}

impl IssuerConfig {
    /// The files that it names, to be made absolute.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let jwks = match &mut self.jwks {
            Some(JwksSource::File(path)) => Some(path),
            Some(JwksSource::Url(_)) | None => None,
        };
        let roots = match &mut self.roots {
            Roots::File(path) => Some(path),
            _ => None,
        };
        [jwks, roots, self.token_file.as_mut()].into_iter().flatten()
    }

    /// Where the keys are, and how they are fetched: by way of the discovery document, where nothing else is said.
    pub(super) fn keys(&self, fetch: FetchJwks) -> Result<(JwksSource, FetchJwks), IssuerError> {
        match (self.kind, &self.jwks, &self.discovery) {
            (_, Some(_), Some(_)) => {
                Err(self.error("name either jwks or discovery: a discovery document names the keys itself"))
            }
            (_, Some(jwks), None) => Ok((jwks.clone(), fetch)),
            (IssuerKind::Spiffe, None, _) => Err(self.error(
                "a trust domain needs jwks: {file: ...} or {url: ...}, the keys of its bundle that sign JWT-SVIDs",
            )),
            (IssuerKind::Kubernetes, None, at) => {
                let at = at.as_deref().unwrap_or(&self.issuer).trim_end_matches('/');
                let document = format!("{at}/.well-known/openid-configuration");
                check_url(&document).map_err(|_| {
                    self.error("its discovery document must be at an https:// URL; name another with discovery, or its keys with jwks")
                })?;
                Ok((JwksSource::Url(document), discovering(self.issuer.clone().into(), fetch)))
            }
        }
    }

    /// The trust domain, of an issuer that is one.
    pub(super) fn trust_domain(&self) -> Result<&str, IssuerError> {
        let domain = self.issuer.strip_prefix("spiffe://").filter(|domain| !domain.contains('/'));
        domain
            .filter(|_| Workload::spiffe(&self.issuer).is_ok())
            .ok_or_else(|| self.error("a trust domain is written spiffe://example.org, without a path"))
    }

    pub(super) fn error(&self, why: impl Into<String>) -> IssuerError {
        IssuerError { issuer: self.issuer.clone(), why: why.into() }
    }

    /// What is wrong with its keys.
    pub(super) fn keys_error(&self, error: &ConfigError) -> IssuerError {
        match error {
            ConfigError::File { path, why } => self.error(format!("jwks {}: {why}", path.display())),
            ConfigError::Url | ConfigError::NoKeys => {
                self.error("jwks must be at an https:// URL (http:// is taken for loopback addresses only)")
            }
        }
    }
}

/// Fetches a discovery document (`OpenID` Connect Discovery §4), and then the key set that it names. Both are read again
/// each time, so that keys are followed to wherever they move.
fn discovering(issuer: Arc<str>, fetch: FetchJwks) -> FetchJwks {
    Arc::new(move |document| {
        let (issuer, fetch) = (Arc::clone(&issuer), Arc::clone(&fetch));
        async move {
            let jwks_uri = named_keys(&fetch(document).await?, &issuer)?;
            fetch(jwks_uri).await
        }
        .boxed()
    })
}

/// Where the document says that the keys are. One that speaks for another issuer says nothing (§4.3).
fn named_keys(document: &[u8], issuer: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let document: Document = serde_json::from_slice(document)
        .map_err(|error| format!("the discovery document cannot be read: {error}"))?;
    if document.issuer != issuer {
        return Err(format!("the discovery document is of another issuer, {:?}", document.issuer));
    }
    check_url(&document.jwks_uri)
        .map_err(|_| "the discovery document's jwks_uri is no https:// URL".to_owned())?;
    Ok(document.jwks_uri)
}
