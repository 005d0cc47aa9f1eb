//! Who a workload is, by a token of the cluster's or of its trust domain's: service-account tokens and JWT-SVIDs.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jsonwebtoken::get_current_timestamp;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Error, FetchJwks, IssuerConfig, IssuerError, Workload,
    issuer::IssuerKind,
    keys::Keys,
    token::{Expected, LEEWAY, Token, within},
};
use crate::{drain::Drain, secret::Secret};

/// How Kubernetes names a service account in `sub`.
const ACCOUNT: &str = "system:serviceaccount:";
const UNREADABLE: &str = "the token's claims cannot be read: iss and sub are texts, exp and nbf numbers";
/// No token is believed for longer than that at once, whatever its `exp`.
const LONGEST: u64 = 366 * 24 * 60 * 60;

/// Checks workload tokens. Cloning is cheap.
#[derive(Clone)]
pub struct Workloads(Arc<Issuers>);

struct Issuers {
    /// By `iss`.
    clusters: HashMap<String, Issuer>,
    /// By trust domain.
    domains: HashMap<String, Issuer>,
}

struct Issuer {
    keys: Arc<Keys>,
    expected: Expected,
}

/// A workload that has proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Who it is; never [`Workload::Local`].
    pub workload: Workload,
    /// From when on its token is not believed any more.
    pub until: SystemTime,
}

/// Why nobody is believed to have sent a token. No message repeats any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Of this token. The text says what is wrong with it.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// Its issuer's keys cannot be had now: nothing is wrong with the token.
    #[error("the keys that workload tokens are checked with cannot be had now")]
    Unavailable,
}

impl Workloads {
    /// Each issuer with what fetches from it. Key files are read at once, so that a mistake shows at start; an address is
    /// fetched when the first token comes. `audience` is what each token must name.
    ///
    /// # Errors
    /// [`IssuerError`], with what to write instead.
    pub fn open(
        issuers: Vec<(IssuerConfig, FetchJwks)>,
        audience: &str,
        drain: &Drain,
    ) -> Result<Self, IssuerError> {
        let (mut clusters, mut domains) = (HashMap::new(), HashMap::new());
        for (config, fetch) in issuers {
            let (by_name, name, iss) = match config.kind {
                IssuerKind::Kubernetes => (&mut clusters, config.issuer.clone(), Some(&*config.issuer)),
                // Its tokens need no `iss`, and where they have one it is whatever the server is called.
                IssuerKind::Spiffe => (&mut domains, config.trust_domain()?.to_owned(), None),
            };
            let (source, fetch) = config.keys(fetch)?;
            let keys = Keys::open(source, fetch, drain.clone()).map_err(|error| config.keys_error(&error))?;
            let issuer = Issuer { keys, expected: Expected::new(Some(audience), iss) };
            if by_name.insert(name, issuer).is_some() {
                return Err(config.error("is there twice"));
            }
        }
        Ok(Self(Arc::new(Issuers { clusters, domains })))
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`Unproven`].
    pub async fn verify(&self, token: Secret) -> Result<Proven, Unproven> {
        self.verify_at(token, get_current_timestamp()).await
    }

    /// The same, at `now` in Unix seconds.
    async fn verify_at(&self, token: Secret, now: u64) -> Result<Proven, Unproven> {
        let token =
            Token::read(token).map_err(|_| invalid("it is no JWT signed with EdDSA, ES256 or RS256"))?;
        // A token of another kind is none of a workload's, whoever signed it (RFC 8725 §3.11; JWT-SVID §2.3).
        if token.typ.as_deref().is_some_and(|typ| !matches!(typ, "JWT" | "JOSE")) {
            return Err(invalid("it is a token of another kind (typ)"));
        }
        // Nobody vouches for these yet: they only say whose keys to ask.
        let hint: Hint = token.unverified(UNREADABLE)?;
        let (workload, expires) = if let Some(rest) = hint.sub.strip_prefix("spiffe://") {
            let domain = rest.split('/').next().unwrap_or_default();
            let issuer = self.0.domains.get(domain);
            let issuer = issuer.ok_or_else(|| invalid("its trust domain is none of ours (sub)"))?;
            issuer.workload::<Svid>(&token, now).await?
        } else {
            let iss = hint.iss.ok_or_else(|| invalid("it names no issuer (iss)"))?;
            let issuer = self.0.clusters.get(&iss);
            let issuer = issuer.ok_or_else(|| invalid("its issuer is none of ours (iss)"))?;
            issuer.workload::<ServiceAccount>(&token, now).await?
        };
        let until = expires.saturating_add(LEEWAY).min(now.saturating_add(LONGEST));
        Ok(Proven { workload, until: SystemTime::UNIX_EPOCH + Duration::from_secs(until) })
    }
}

impl Issuer {
    async fn workload<C: Claims>(&self, token: &Token, now: u64) -> Result<(Workload, u64), Unproven> {
        let kid = token.kid.as_deref();
        let set = self.keys.having(kid, token.algorithm).await?;
        let key = set
            .find(kid, token.algorithm)
            .ok_or_else(|| invalid("it is signed with a key that is not in its issuer's key set (kid)"))?;
        let claims: C = token.verified(key, &self.expected, C::UNREADABLE)?;
        let (exp, nbf) = claims.times();
        let expires = within(exp, nbf, now)?;
        Ok((claims.workload()?, expires))
    }
}

#[derive(Deserialize)]
struct Hint {
    iss: Option<String>,
    sub: String,
}

/// What a kind of token says of a workload.
trait Claims: DeserializeOwned {
    const UNREADABLE: &str;
    /// `exp` and `nbf`.
    fn times(&self) -> (Option<f64>, Option<f64>);
    fn workload(self) -> Result<Workload, Unproven>;
}

/// A Kubernetes service-account token.
#[derive(Deserialize)]
struct ServiceAccount {
    sub: String,
    exp: Option<f64>,
    nbf: Option<f64>,
    #[serde(rename = "kubernetes.io")]
    bound: Option<Bound>,
}

/// What Kubernetes says once more, beside `sub`.
#[derive(Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Claims for ServiceAccount {
    const UNREADABLE: &str = "the token's claims cannot be read: sub is a text, exp and nbf are numbers, kubernetes.io has \
                              a namespace and a serviceaccount";

    fn times(&self) -> (Option<f64>, Option<f64>) {
        (self.exp, self.nbf)
    }

    fn workload(self) -> Result<Workload, Unproven> {
        let named = self.sub.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
        let (namespace, name) = named.ok_or_else(|| invalid("its sub is no service account"))?;
        let agrees = |bound: &Bound| bound.namespace == namespace && bound.serviceaccount.name == name;
        if !self.bound.as_ref().is_none_or(agrees) {
            return Err(invalid("its sub and its kubernetes.io claim name different service accounts"));
        }
        Workload::service_account(&format!("{namespace}/{name}"))
            .map_err(|_| invalid("its sub is no service account"))
    }
}

/// A JWT-SVID. That its `sub` is in the trust domain whose keys it was checked with, those who chose the keys by it know.
#[derive(Deserialize)]
struct Svid {
    sub: String,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Claims for Svid {
    const UNREADABLE: &str = UNREADABLE;

    fn times(&self) -> (Option<f64>, Option<f64>) {
        (self.exp, self.nbf)
    }

    fn workload(self) -> Result<Workload, Unproven> {
        Workload::spiffe(&self.sub).map_err(|_| invalid("its sub is no SPIFFE id"))
    }
}

fn invalid(why: &'static str) -> Unproven {
    Unproven::Invalid(Cow::Borrowed(why))
}

impl From<Error> for Unproven {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable => Self::Unavailable,
            other => Self::Invalid(other.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests;
