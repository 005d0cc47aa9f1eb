//! One JSON Web Key Set (RFC 7517): the public keys that sign identities.

use std::sync::Arc;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use tokio::time::Instant;

/// The largest set, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// One reading of the source.
pub(super) struct KeySet {
    keys: Arc<[Key]>,
    bytes: Vec<u8>,
    /// Counts readings.
    pub(super) reading: u64,
    /// Counts changes: what was believed under another generation must be checked again.
    pub(super) generation: u64,
    pub(super) read_at: Instant,
}

/// One public key, fit for one algorithm.
pub(super) struct Key {
    kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) public: DecodingKey,
}

impl KeySet {
    /// The key that the token names. A token that names none is checked with the only key of its algorithm.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }

    /// The set that was read after `last`. The same bytes are the same generation.
    pub(super) fn following(last: Option<&Self>, bytes: Vec<u8>) -> Result<Self, String> {
        let read_at = Instant::now();
        match last {
            Some(last) if last.bytes == bytes => {
                let keys = Arc::clone(&last.keys);
                Ok(Self { keys, bytes, reading: last.reading + 1, generation: last.generation, read_at })
            }
            last => {
                let keys = parse(&bytes)?.into();
                let (reading, generation) =
                    last.map_or((0, 0), |last| (last.reading + 1, last.generation + 1));
                Ok(Self { keys, bytes, reading, generation, read_at })
            }
        }
    }
}

/// Reads a set. Keys of kinds that are not believed are left out, as RFC 7517 §5 asks; a set without any other
/// is an error.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    if bytes.len() > MAX_BYTES {
        return Err(format!("the key set is larger than {MAX_BYTES} bytes"));
    }
    let set: Set =
        serde_json::from_slice(bytes).map_err(|error| format!("not a JSON Web Key Set: {error}"))?;
    let keys: Vec<Key> = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
        .filter_map(Key::of)
        .collect();
    if keys.is_empty() {
        return Err("the key set has no signing key for EdDSA (Ed25519), ES256 or RS256".to_owned());
    }
    Ok(keys)
}

impl Key {
    fn of(jwk: Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            _ => return None,
        };
        let common = &jwk.common;
        let signs = may_sign(common.public_key_use.as_ref())
            && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify))
            && common.key_algorithm.is_none_or(|own| own == KeyAlgorithm::from(algorithm));
        if !signs {
            return None;
        }
        let public = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { kid: jwk.common.key_id, algorithm, public })
    }
}

/// A SPIFFE bundle says `jwt-svid` of the keys that sign tokens (SPIFFE Trust Domain and Bundle §4.2).
fn may_sign(said: Option<&PublicKeyUse>) -> bool {
    match said {
        None | Some(PublicKeyUse::Signature) => true,
        Some(PublicKeyUse::Other(other)) => other == "jwt-svid",
        Some(PublicKeyUse::Encryption) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::fixture::{Signer, jwks},
        *,
    };

    fn set(keys: &[Value]) -> Result<KeySet, String> {
        KeySet::following(None, jwks(keys))
    }

    fn changed(jwk: &Value, member: &str, value: Value) -> Value {
        let mut jwk = jwk.clone();
        jwk[member] = value;
        jwk
    }

    #[test]
    fn a_key_is_found_by_its_name_and_algorithm() {
        let (ed, es) = (Signer::new(Algorithm::EdDSA, "one"), Signer::new(Algorithm::ES256, "two"));
        let set = set(&[ed.jwk(), es.jwk()]).unwrap();
        assert!(set.find(Some("one"), Algorithm::EdDSA).is_some());
        assert!(set.find(Some("two"), Algorithm::ES256).is_some());
        assert!(set.find(Some("one"), Algorithm::ES256).is_none());
        assert!(set.find(Some("three"), Algorithm::EdDSA).is_none());
        assert!(set.find(Some(""), Algorithm::EdDSA).is_none());
    }

    #[test]
    fn a_token_without_a_key_name_is_checked_only_where_one_key_can_be_meant() {
        let one = Signer::new(Algorithm::EdDSA, "one");
        let two = Signer::new(Algorithm::EdDSA, "two");
        let es = Signer::new(Algorithm::ES256, "es");
        assert!(set(&[one.jwk(), es.jwk()]).unwrap().find(None, Algorithm::EdDSA).is_some());
        assert!(set(&[one.jwk(), two.jwk()]).unwrap().find(None, Algorithm::EdDSA).is_none());
        assert!(set(&[es.jwk()]).unwrap().find(None, Algorithm::EdDSA).is_none());
    }

    #[test]
    fn keys_for_other_purposes_are_left_out_and_the_rest_of_the_set_stays() {
        let good = Signer::new(Algorithm::ES256, "good").jwk();
        let odd = [
            json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "good"}),
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "good"}),
            json!({"kty": "EC", "crv": "P-256", "kid": "good"}),
            json!({"kid": "good"}),
            json!("good"),
            changed(&good, "use", json!("enc")),
            changed(&good, "use", json!("x509-svid")),
            changed(&good, "key_ops", json!(["sign"])),
            changed(&good, "alg", json!("ES384")),
            changed(&good, "crv", json!("P-384")),
            changed(&good, "crv", json!("secp256k1")),
        ];
        for odd in odd {
            assert!(set(std::slice::from_ref(&odd)).is_err(), "{odd}");
            let set = set(&[odd.clone(), good.clone()]).unwrap();
            assert_eq!(set.keys.len(), 1, "{odd}");
        }
        let full = changed(&changed(&good, "use", json!("sig")), "key_ops", json!(["verify"]));
        assert!(set(&[full]).is_ok());
        assert!(set(&[changed(&good, "use", json!("jwt-svid"))]).is_ok());
    }

    #[test]
    fn what_is_no_key_set_is_an_error() {
        for bad in ["", "{}", "[]", r#"{"keys": []}"#, r#"{"keys": {}}"#, "<html>", r#"{"keys": [{}]}"#] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(&vec![b' '; MAX_BYTES + 1]).err().unwrap().contains("larger"));
    }

    #[test]
    fn an_unchanged_set_keeps_its_generation() {
        let one = Signer::new(Algorithm::EdDSA, "one");
        let first = set(&[one.jwk()]).unwrap();
        let same = KeySet::following(Some(&first), jwks(&[one.jwk()])).unwrap();
        assert_eq!((same.reading, same.generation), (1, 0));
        let other = Signer::new(Algorithm::EdDSA, "two");
        let next = KeySet::following(Some(&same), jwks(&[other.jwk()])).unwrap();
        assert_eq!((next.reading, next.generation), (2, 1));
    }
}
