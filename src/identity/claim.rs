//! What one message says about who asks, before any of it is believed.

use std::fmt;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AsHeaderName, PROXY_AUTHORIZATION},
};
use sha2::{Digest, Sha256};

use super::{
    Error, Identity,
    credentials::{Credentials, user_name},
    dictionary,
};
use crate::secret::Secret;

/// The header in which an agent names itself: an RFC 9651 dictionary, or a JWT in mode `signed`.
pub static AGENT_IDENTITY: HeaderName = HeaderName::from_static("agent-identity");

/// The longest statement in bytes: every member at its longest, with room to spare.
const MAX_STATEMENT: usize = 2048;
/// The longest token in bytes, and with it the longest claim that is looked at.
const MAX_TOKEN: usize = 16 * 1024;

/// What one message, or the CONNECT that opened its tunnel, says about who asks. Not believed yet: that is
/// [`super::Gate::identify`]. Cloning is cheap. Its `Debug` is opaque, for it may hold a token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    carrier: Carrier,
    value: HeaderValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Carrier {
    AgentIdentity,
    ProxyAuthorization,
}

/// Takes the claim out of a message's headers, unread. `Agent-Identity` wins over `Proxy-Authorization`: the
/// first is said for this request, the second often by a client's proxy setting.
///
/// A request's own claim wins over its tunnel's: `claimed(headers)?.or(tunnel)`.
///
/// # Errors
/// [`Error::Duplicate`] when either header is there twice, since two readers could take two identities from it.
pub fn claimed(headers: &HeaderMap) -> Result<Option<Claim>, Error> {
    let agent = single(headers, &AGENT_IDENTITY, "Agent-Identity")?;
    let proxy = single(headers, &PROXY_AUTHORIZATION, "Proxy-Authorization")?;
    let said = agent
        .map(|value| (Carrier::AgentIdentity, value))
        .or_else(|| proxy.map(|value| (Carrier::ProxyAuthorization, value)));
    Ok(said.map(|(carrier, value)| Claim { carrier, value: value.clone() }))
}

fn single<'a>(
    headers: &'a HeaderMap,
    name: impl AsHeaderName,
    shown: &'static str,
) -> Result<Option<&'a HeaderValue>, Error> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Error::Duplicate(shown));
    }
    Ok(first)
}

impl Claim {
    /// The same claim in memory of its own. A header value shares the connection's read buffer; whoever keeps
    /// a claim longer than the message (a tunnel, a memo) would keep that buffer too.
    #[must_use]
    pub fn detached(&self) -> Self {
        let value = HeaderValue::from_bytes(self.value.as_bytes()).unwrap_or_else(|_| self.value.clone());
        Self { carrier: self.carrier, value }
    }

    /// Reads a claim that is believed as it stands: the dictionary, or the proxy user name.
    pub(super) fn stated(&self) -> Result<Identity, Error> {
        if self.value.len() > MAX_STATEMENT {
            return Err(Error::invalid("the identity is longer than 2048 bytes"));
        }
        match self.carrier {
            Carrier::AgentIdentity if looks_like_jwt(self.value.as_bytes()) => {
                Err(Error::invalid("this proxy believes a signed identity only with identity.mode: signed"))
            }
            Carrier::AgentIdentity => dictionary::read(self.value.as_bytes()),
            Carrier::ProxyAuthorization => match Credentials::read(&self.value)? {
                Credentials::Basic { user, .. } => user_name(&user),
                Credentials::Bearer(_) => {
                    Err(Error::invalid("Proxy-Authorization: Bearer needs identity.mode: signed"))
                }
            },
        }
    }

    /// The token of a claim that must be signed: the header itself, the bearer token, or the password. The
    /// user name beside a password says nothing then.
    pub(super) fn token(&self) -> Result<Secret, Error> {
        if self.value.len() > MAX_TOKEN {
            return Err(Error::invalid("the identity is longer than 16384 bytes"));
        }
        let token = match self.carrier {
            Carrier::AgentIdentity => Secret::new(self.value.as_bytes().to_vec()),
            Carrier::ProxyAuthorization => match Credentials::read(&self.value)? {
                Credentials::Basic { password, .. } => password,
                Credentials::Bearer(token) => token,
            },
        };
        Ok(token)
    }

    /// What stands for the claim where a token must not be kept.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update([self.carrier as u8]);
        hash.update(self.value.as_bytes());
        hash.finalize().into()
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({:?}, …)", self.carrier)
    }
}

/// `eyJ` is `{"` in base64url: how every JWT begins, and a text that is no dictionary with a member we know.
fn looks_like_jwt(value: &[u8]) -> bool {
    value.starts_with(b"eyJ")
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::{super::fixture::subject, *};

    fn headers(lines: &[(&HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| ((*name).clone(), value.parse().unwrap())).collect()
    }

    fn stated(name: &HeaderName, value: &str) -> Result<Identity, Error> {
        claimed(&headers(&[(name, value)]))?.unwrap().stated()
    }

    #[test]
    fn agent_identity_wins_over_proxy_authorization() {
        let both = headers(&[
            (&PROXY_AUTHORIZATION, "Basic Z2xvYmV4L3dyaXRlcjp4"), // globex/writer:x
            (&AGENT_IDENTITY, "tenant=acme, role=researcher"),
        ]);
        let identity = claimed(&both).unwrap().unwrap().stated().unwrap();
        assert_eq!(identity.subject, subject("acme", "researcher", None));
    }

    #[test]
    fn a_malformed_own_header_is_not_made_good_by_the_other_one() {
        let both = headers(&[
            (&PROXY_AUTHORIZATION, "Basic Z2xvYmV4L3dyaXRlcjp4"), // globex/writer:x
            (&AGENT_IDENTITY, "tenant=acme, role="),
        ]);
        assert!(matches!(claimed(&both).unwrap().unwrap().stated(), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_message_without_either_header_claims_nothing() {
        assert_eq!(claimed(&headers(&[(&COOKIE, "tenant=acme")])).unwrap(), None);
    }

    #[test]
    fn twice_the_same_header_is_refused_even_when_both_agree_or_the_other_header_wins() {
        let same = "tenant=acme, role=writer";
        let twice = headers(&[(&AGENT_IDENTITY, same), (&AGENT_IDENTITY, same)]);
        assert_eq!(claimed(&twice), Err(Error::Duplicate("Agent-Identity")));
        let proxy = "Basic YTpi";
        let twice =
            headers(&[(&AGENT_IDENTITY, same), (&PROXY_AUTHORIZATION, proxy), (&PROXY_AUTHORIZATION, proxy)]);
        assert_eq!(claimed(&twice), Err(Error::Duplicate("Proxy-Authorization")));
    }

    #[test]
    fn a_claim_longer_than_any_identity_is_not_read() {
        let long = format!("tenant=acme, role={}", "x".repeat(MAX_STATEMENT));
        assert!(stated(&AGENT_IDENTITY, &long).unwrap_err().to_string().contains("2048"));
        let claim = claimed(&headers(&[(&AGENT_IDENTITY, &"x".repeat(MAX_TOKEN + 1))])).unwrap().unwrap();
        assert!(claim.token().unwrap_err().to_string().contains("16384"));
    }

    #[test]
    fn debug_shows_no_token_and_detached_means_the_same() {
        let claim = claimed(&headers(&[(&AGENT_IDENTITY, "eyJh.e30.c2ln")])).unwrap().unwrap();
        assert_eq!(format!("{claim:?}"), "Claim(AgentIdentity, …)");
        assert_eq!(claim.detached(), claim);
        let other = claimed(&headers(&[(&PROXY_AUTHORIZATION, "eyJh.e30.c2ln")])).unwrap().unwrap();
        assert_ne!(other, claim);
        assert_ne!(other.digest(), claim.digest());
    }
}
