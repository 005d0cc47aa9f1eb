//! Who signs tokens: issuers of agents' identities, of service accounts and of workloads, and transmitters of events.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _};
use serde_json::{Value, json};

/// An Ed25519 key made on the spot.
pub(crate) struct Signer {
    key: KeyPair,
    id: String,
}

impl Signer {
    pub(crate) fn new(id: &str) -> Self {
        Self { key: KeyPair::generate_for(&PKCS_ED25519).unwrap(), id: id.to_owned() }
    }

    /// A key set with the public half.
    pub(crate) fn keys(&self) -> Value {
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.key.der_bytes());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": self.id, "x": x}]})
    }

    /// What says that a token of this type is signed with this key.
    pub(crate) fn header(&self, typ: &str) -> Value {
        json!({"alg": "EdDSA", "kid": self.id, "typ": typ})
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header("JWT"), claims)
    }

    /// Whatever the header says, signed with this key.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let parts = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let key = EncodingKey::from_ed_der(&self.key.serialize_der());
        let signature = jsonwebtoken::crypto::sign(parts.as_bytes(), &key, Algorithm::EdDSA).unwrap();
        format!("{parts}.{signature}")
    }
}
