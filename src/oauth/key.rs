//! A private key that signs assertions.

use std::fmt;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// A private key, and what the provider calls it.
#[derive(Clone)]
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl SigningKey {
    /// Reads a PEM text: RSA (signs RS256), P-256 (ES256) or Ed25519 (`EdDSA`). `None` for anything else.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the key is read where it will sign for a token endpoint")]
    pub fn from_pem(pem: &Secret, key_id: Option<String>) -> Option<Self> {
        let pem = pem.expose();
        let rsa = EncodingKey::from_rsa_pem(pem).map(|key| (key, Algorithm::RS256));
        let any = rsa
            .or_else(|_| EncodingKey::from_ec_pem(pem).map(|key| (key, Algorithm::ES256)))
            .or_else(|_| EncodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA)));
        let (key, algorithm) = any.ok()?;
        let key = Self { key, algorithm, key_id };
        // What is read is not always what can sign, such as P-384 as ES256.
        key.sign(&()).map(|_| key)
    }

    /// The claims as a signed JWT.
    pub(super) fn sign(&self, claims: &impl Serialize) -> Option<Secret> {
        let header = Header { kid: self.key_id.clone(), ..Header::new(self.algorithm) };
        let mut text = Zeroizing::new(jsonwebtoken::encode(&header, claims, &self.key).ok()?);
        Some(Secret::new(std::mem::take(&mut *text).into_bytes()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}
