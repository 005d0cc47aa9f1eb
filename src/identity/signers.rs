//! Tokens that are no identities, checked with the same care: key sets read and kept as theirs, the same algorithms.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{ConfigError, Error, FetchJwks, JwksSource, key_set::KeySet, keys::Keys, token::Token};
use crate::{drain::Drain, secret::Secret};

/// The keys of somebody who signs, such as a transmitter of security events. Cloning is cheap.
#[derive(Clone)]
pub struct Signers(Arc<Keys>);

/// A key set of which one reading is enough, for those who notice themselves that it changes.
pub struct KeyRing(KeySet);

/// What somebody said and signed. Whether it is for us, of now, and to be acted upon is the caller's to check.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedClaims {
    /// What the token says it is, such as `secevent+jwt`.
    pub typ: Option<String>,
    /// What it claims.
    pub claims: Map<String, Value>,
}

/// Why nothing of a token is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// It is no JWT, has `crit`, or is signed with another algorithm than `EdDSA`, `ES256` and `RS256`.
    #[error("it is no JWT signed with EdDSA, ES256 or RS256")]
    Form,
    /// Its key is not in the key set.
    #[error("its key is not in the key set (kid)")]
    UnknownKey,
    /// Its key signed something else.
    #[error("its signature does not match its key")]
    Forged,
    /// The keys cannot be had now: nothing is wrong with the token.
    #[error("the keys that it is checked with cannot be had now")]
    Unavailable,
}

impl Signers {
    /// Reads a key file at once; an address is fetched when the first token comes.
    ///
    /// # Errors
    /// A file that holds no keys, an address that would be fetched unprotected.
    pub fn open(source: JwksSource, fetch: FetchJwks, drain: Drain) -> Result<Self, ConfigError> {
        Keys::open(source, fetch, drain).map(Self)
    }

    /// What the token claims, if one of these keys signed it.
    ///
    /// # Errors
    /// [`Unverified`].
    pub async fn verify(&self, token: Secret) -> Result<SignedClaims, Unverified> {
        let token = Token::read(token).map_err(|_| Unverified::Form)?;
        let kid = token.kid.as_deref();
        let set = self.0.having(kid, token.algorithm).await.map_err(|error| match error {
            Error::Unavailable => Unverified::Unavailable,
            _ => Unverified::UnknownKey,
        })?;
        verified(token, &set)
    }
}

impl KeyRing {
    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// Why it is none, or that it has no key that signs.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        KeySet::following(None, bytes.to_vec()).map(Self)
    }

    /// What the token claims, if one of these keys signed it.
    ///
    /// # Errors
    /// [`Unverified`], but never [`Unverified::Unavailable`].
    pub fn verify(&self, token: Secret) -> Result<SignedClaims, Unverified> {
        verified(Token::read(token).map_err(|_| Unverified::Form)?, &self.0)
    }
}

fn verified(token: Token, keys: &KeySet) -> Result<SignedClaims, Unverified> {
    let key = keys.find(token.kid.as_deref(), token.algorithm).ok_or(Unverified::UnknownKey)?;
    let claims = token.claims(key).map_err(|_| Unverified::Forged)?;
    Ok(SignedClaims { typ: token.typ, claims })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::Algorithm;
    use serde_json::json;

    use super::{
        super::fixture::{Signer, no_fetch},
        *,
    };

    async fn verified(trusted: &Signer, token: &str) -> Result<SignedClaims, Unverified> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), trusted.jwks()).unwrap();
        let source = JwksSource::File(file.path().to_owned());
        let signers = Signers::open(source, no_fetch(), Drain::default()).unwrap();
        signers.verify(Secret::new(token.into())).await
    }

    #[tokio::test]
    async fn claims_are_handed_over_as_they_were_signed_whoever_they_are_for() {
        for algorithm in [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256] {
            let ours = Signer::new(algorithm, "k1");
            let claims = json!({"aud": ["somebody"], "iss": "https://idp.example", "exp": 1, "iat": "x"});
            let signed = verified(&ours, &ours.sign(&claims)).await.unwrap();
            assert_eq!(Value::from(signed.claims), claims);
            assert_eq!(signed.typ.as_deref(), Some("JWT"));
        }
    }

    #[test]
    fn a_key_ring_believes_what_its_keys_signed_and_nothing_else() {
        let (ours, theirs) = (Signer::new(Algorithm::EdDSA, "k1"), Signer::new(Algorithm::EdDSA, "k1"));
        let ring = KeyRing::parse(&ours.jwks()).unwrap();
        let claims = json!({"iat": 1});
        let verify = |token: String| ring.verify(Secret::new(token.into()));
        assert_eq!(Value::from(verify(ours.sign(&claims)).unwrap().claims), claims);
        assert_eq!(verify(theirs.sign(&claims)), Err(Unverified::Forged));
        assert_eq!(verify(Signer::new(Algorithm::EdDSA, "k2").sign(&claims)), Err(Unverified::UnknownKey));
        assert_eq!(verify(String::new()), Err(Unverified::Form));
        assert!(KeyRing::parse(b"{}").is_err());
    }

    #[tokio::test]
    async fn nothing_is_believed_without_its_signature() {
        let (ours, theirs) = (Signer::new(Algorithm::ES256, "k1"), Signer::new(Algorithm::ES256, "k1"));
        let claims = json!({"iss": "https://idp.example"});
        assert_eq!(verified(&ours, &theirs.sign(&claims)).await, Err(Unverified::Forged));
        let other = Signer::new(Algorithm::ES256, "k2");
        assert_eq!(verified(&ours, &other.sign(&claims)).await, Err(Unverified::UnknownKey));
        let none = Signer::unsigned(&json!({"alg": "none", "kid": "k1"}), &claims);
        for bad in [none.as_str(), "", "a.b.c", "{}"] {
            assert_eq!(verified(&ours, bad).await, Err(Unverified::Form), "{bad}");
        }
    }
}
