//! What this module's tests share: names, claims, and an issuer's keys made on the spot.

use std::{fmt::Debug, str::FromStr, sync::LazyLock};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, HeaderName, header::PROXY_AUTHORIZATION};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::{AGENT_IDENTITY, Claim, FetchJwks, claimed};
use crate::id::Subject;

/// The time at which the tests' tokens are checked, in Unix seconds.
pub(super) const NOW: u64 = 1_800_000_000;

/// Any of the names.
pub(super) fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(super) fn subject(tenant: &str, role: &str, user: Option<&str>) -> Subject {
    Subject { tenant: name(tenant), role: name(role), user: user.map(name) }
}

pub(super) fn agent_identity(value: &str) -> Claim {
    claim(&AGENT_IDENTITY, value)
}

pub(super) fn bearer_claim(token: &str) -> Claim {
    proxy_authorization(&format!("Bearer {token}"))
}

pub(super) fn basic_claim(user: &str, password: &str) -> Claim {
    proxy_authorization(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

pub(super) fn proxy_authorization(value: &str) -> Claim {
    claim(&PROXY_AUTHORIZATION, value)
}

fn claim(name: &HeaderName, value: &str) -> Claim {
    let mut headers = HeaderMap::new();
    headers.insert(name.clone(), value.parse().unwrap());
    claimed(&headers).unwrap().unwrap()
}

/// For gates that must not fetch.
pub(super) fn no_fetch() -> FetchJwks {
    std::sync::Arc::new(|url| Box::pin(async move { panic!("fetched {url}") }))
}

/// A full set of claims, good for five minutes from [`NOW`].
pub(super) fn claims() -> Value {
    json!({
        "tenant": "acme", "role": "researcher", "user": "alice", "sub": "planner", "chain": "run-42",
        "exp": NOW + 300,
    })
}

/// `act`, so many deep.
pub(super) fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({"sub": "innermost"}), |act, n| json!({"sub": format!("actor-{n}"), "act": act}))
}

pub(super) fn jwks(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

/// One signing key of an issuer.
pub(crate) struct Signer {
    kid: String,
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

impl Signer {
    pub(crate) fn new(algorithm: Algorithm, kid: &str) -> Self {
        // An RSA key takes long to make; one serves all.
        static RSA: LazyLock<String> =
            LazyLock::new(|| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem());
        let (private, public) = match algorithm {
            Algorithm::EdDSA => {
                let made = KeyPair::generate_for(&PKCS_ED25519).unwrap();
                let x = URL_SAFE_NO_PAD.encode(made.public_key_raw());
                let public = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x});
                (EncodingKey::from_ed_der(&made.serialize_der()), public)
            }
            Algorithm::ES256 => {
                let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
                let private = EncodingKey::from_ec_der(&made.serialize_der());
                let public = Jwk::from_encoding_key(&private, algorithm).unwrap();
                (private, json!(public))
            }
            Algorithm::RS256 => {
                let private = EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap();
                let public = Jwk::from_encoding_key(&private, algorithm).unwrap();
                (private, json!(public))
            }
            other => panic!("no signer for {other:?}"),
        };
        Self { kid: kid.to_owned(), algorithm, private, public }
    }

    /// The public half.
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = self.public.clone();
        jwk["kid"] = json!(self.kid);
        jwk
    }

    /// A key set of this key alone.
    pub(crate) fn jwks(&self) -> Vec<u8> {
        jwks(&[self.jwk()])
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_text(&claims.to_string())
    }

    /// Signs claims that need not be proper JSON.
    pub(super) fn sign_text(&self, claims: &str) -> String {
        self.sign_header("JWT", claims)
    }

    /// Signs a token that says it is of another kind.
    pub(super) fn sign_as(&self, typ: &str, claims: &Value) -> String {
        self.sign_header(typ, &claims.to_string())
    }

    fn sign_header(&self, typ: &str, claims: &str) -> String {
        let header =
            Header { kid: Some(self.kid.clone()), typ: Some(typ.to_owned()), ..Header::new(self.algorithm) };
        let header = serde_json::to_string(&header).unwrap();
        let signed = Self::encode(&[&header, claims]);
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.private, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }

    /// A token with the given header and a signature of no key.
    pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
        Self::encode(&[&header.to_string(), &claims.to_string(), ""])
    }

    /// Parts of a token, as they stand in it.
    pub(super) fn encode(parts: &[&str]) -> String {
        parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect::<Vec<_>>().join(".")
    }
}
