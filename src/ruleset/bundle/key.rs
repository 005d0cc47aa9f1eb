//! The private key that signs bundles.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, ThumbprintHash},
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde::Serialize;
use serde_json::json;

use super::TYP;
use crate::secret::Secret;

/// Signs bundles.
pub struct BundleKey {
    private: EncodingKey,
    algorithm: Algorithm,
    public: Jwk,
    id: String,
}

/// The key is not of a kind that signs bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no private key for bundles: make one with `openssl genpkey -algorithm ed25519`, or a P-256 key in PKCS #8 (PEM)"
)]
pub struct UnfitKey;

impl BundleKey {
    /// Reads a PEM text (PKCS #8): Ed25519, which signs `EdDSA`, or P-256, which signs `ES256`. `id` is what key sets
    /// call it (`kid`): its thumbprint (RFC 7638), where none is given.
    ///
    /// # Errors
    /// [`UnfitKey`].
    #[expect(clippy::disallowed_methods, reason = "the key is read where it signs")]
    pub fn from_pem(pem: &Secret, id: Option<String>) -> Result<Self, UnfitKey> {
        let pem = std::str::from_utf8(pem.expose()).map_err(|_| UnfitKey)?;
        let pair = KeyPair::from_pem(pem).map_err(|_| UnfitKey)?;
        let (public, encode) = (pair.public_key_raw(), |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes));
        let (algorithm, private, public) = if pair.is_compatible(&PKCS_ED25519) {
            let private = EncodingKey::from_ed_der(pair.serialized_der());
            (Algorithm::EdDSA, private, json!({"kty": "OKP", "crv": "Ed25519", "x": encode(public)}))
        } else if pair.is_compatible(&PKCS_ECDSA_P256_SHA256) {
            // SEC 1 §2.3.3: 4, then both coordinates.
            let (x, y) = public.get(1..).and_then(|point| point.split_at_checked(32)).ok_or(UnfitKey)?;
            let private = EncodingKey::from_ec_der(pair.serialized_der());
            (Algorithm::ES256, private, json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)}))
        } else {
            return Err(UnfitKey);
        };
        let mut public: Jwk = serde_json::from_value(public).map_err(|_| UnfitKey)?;
        let thumbprint = || public.thumbprint(ThumbprintHash::SHA256).map_err(|_| UnfitKey);
        let id = id.map_or_else(thumbprint, Ok)?;
        public.common.key_id = Some(id.clone());
        public.common.key_algorithm = Some(algorithm.into());
        let key = Self { private, algorithm, public, id };
        // What is read is not always what can sign.
        key.sign(&()).map(|_| key).ok_or(UnfitKey)
    }

    /// The public half, for a key set.
    #[must_use]
    pub const fn public(&self) -> &Jwk {
        &self.public
    }

    /// What key sets call it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The claims as a compact JWS.
    pub(super) fn sign(&self, claims: &impl Serialize) -> Option<String> {
        let header =
            Header { typ: Some(TYP.to_owned()), kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.private).ok()
    }
}

impl fmt::Debug for BundleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BundleKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}
