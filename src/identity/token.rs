//! One signed identity: a JWT (RFC 7519) read by the rules of RFC 8725.

use std::time::Duration;

use jsonwebtoken::{
    Algorithm, Validation, dangerous::insecure_decode, decode, decode_header, errors::ErrorKind,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Error, Identity, key_set::Key};
use crate::{
    id::{AgentName, ChainId, MAX_NAME, RoleName, Subject, TenantId, UserId},
    secret::Secret,
};

/// The algorithms that are believed. Never `none`, and nothing symmetric: a public key must not verify what it
/// could have signed (RFC 8725 §3.1).
pub(super) const ALGORITHMS: [Algorithm; 3] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256];

/// How far clocks may be apart, in seconds.
pub(super) const LEEWAY: u64 = 60;

const UNREADABLE: &str = "the token's claims cannot be read: tenant, role, user, sub and chain are texts, exp and nbf \
                          numbers, act an object with its own sub";

/// The deepest `act` chain.
const MAX_ACTORS: usize = 10;

/// A token whose header was read, and nothing else.
pub(super) struct Token {
    text: Secret,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// What the token says it is (RFC 8725 §3.11).
    pub(super) typ: Option<String>,
}

/// What every token must say, whoever it is about.
pub(super) struct Expected {
    validation: Validation,
}

/// A believed token.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) identity: Identity,
    /// `exp`, in Unix seconds.
    pub(super) expires: u64,
}

impl Token {
    /// Reads the header, to know which key to look for.
    #[expect(clippy::disallowed_methods, reason = "a token is read where its signature is checked")]
    pub(super) fn read(text: Secret) -> Result<Self, Error> {
        const FORM: &str = "the identity must be a JWT, signed with EdDSA, ES256 or RS256";
        let header = decode_header(text.expose()).map_err(|_| Error::invalid(FORM))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Error::invalid(FORM));
        }
        // RFC 7515 §4.1.11: an extension that must be understood and is not.
        if header.crit.is_some() {
            return Err(Error::invalid("the token's header has crit, and no extension is understood here"));
        }
        Ok(Self { text, algorithm: header.alg, kid: header.kid, typ: header.typ })
    }

    /// Checks the signature, then the claims, at `now` in Unix seconds.
    pub(super) fn check(&self, key: &Key, expected: &Expected, now: u64) -> Result<Checked, Error> {
        let claims: Claims = self.verified(key, expected, UNREADABLE)?;
        let expires = within(claims.exp, claims.nbf, now)?;
        Ok(Checked { identity: claims.identity()?, expires })
    }

    /// Checks the signature, audience and issuer, and gives the claims; their times are the caller's to check
    /// ([`within`]), and `unreadable` is what it says of claims that are none.
    #[expect(clippy::disallowed_methods, reason = "a token is read where its signature is checked")]
    pub(super) fn verified<C: DeserializeOwned>(
        &self,
        key: &Key,
        expected: &Expected,
        unreadable: &'static str,
    ) -> Result<C, Error> {
        // The algorithm is the key's, whatever the token says (RFC 8725 §3.1).
        let validation = Validation { algorithms: vec![key.algorithm], ..expected.validation.clone() };
        let decoded = decode(self.text.expose(), &key.public, &validation);
        Ok(decoded.map_err(|error| refused(error, unreadable))?.claims)
    }

    /// What the token claims, though nobody vouches for it yet: only to know whose keys to look for.
    #[expect(clippy::disallowed_methods, reason = "a token is read where its signature is checked")]
    pub(super) fn unverified<C: DeserializeOwned>(&self, unreadable: &'static str) -> Result<C, Error> {
        let claims = insecure_decode(self.text.expose());
        Ok(claims.map_err(|error| refused(error, unreadable))?.claims)
    }

    /// Checks the signature and nothing else: for tokens that are no identities.
    #[expect(clippy::disallowed_methods, reason = "a token is read where its signature is checked")]
    pub(super) fn claims(&self, key: &Key) -> Result<Map<String, Value>, Error> {
        let mut validation = Expected::new(None, None).validation;
        validation.validate_aud = false;
        validation.algorithms = vec![key.algorithm];
        let decoded = decode(self.text.expose(), &key.public, &validation);
        Ok(decoded.map_err(|error| refused(error, UNREADABLE))?.claims)
    }
}

impl Expected {
    pub(super) fn new(audience: Option<&str>, issuer: Option<&str>) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Times are checked here, against the time that the caller gives.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.required_spec_claims.clear();
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Self { validation }
    }
}

fn refused(error: jsonwebtoken::errors::Error, unreadable: &'static str) -> Error {
    Error::invalid(match error.into_kind() {
        ErrorKind::InvalidSignature => "the token's signature does not match its key",
        ErrorKind::InvalidAudience => "the token is for another audience (aud)",
        ErrorKind::InvalidIssuer => "the token is from another issuer (iss)",
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => "the token names no audience (aud)",
        ErrorKind::MissingRequiredClaim(_) => "the token names no issuer (iss)",
        ErrorKind::Json(_) => unreadable,
        _ => "the token cannot be checked with its key",
    })
}

/// Whether the token is valid now, and until when.
pub(super) fn within(exp: Option<f64>, nbf: Option<f64>, now: u64) -> Result<u64, Error> {
    let seconds = |date: f64| {
        Duration::try_from_secs_f64(date)
            .map(|since| since.as_secs())
            .map_err(|_| Error::invalid("the token's exp or nbf is not a time"))
    };
    let expires = seconds(exp.ok_or_else(|| Error::invalid("the token never expires: it needs exp"))?)?;
    if now >= expires.saturating_add(LEEWAY) {
        return Err(Error::invalid("the token has expired: ask for a new one"));
    }
    if nbf.map(seconds).transpose()?.is_some_and(|from| from > now.saturating_add(LEEWAY)) {
        return Err(Error::invalid("the token is not valid yet (nbf)"));
    }
    Ok(expires)
}

#[derive(Deserialize)]
struct Claims {
    tenant: Option<String>,
    role: Option<String>,
    user: Option<String>,
    sub: Option<String>,
    chain: Option<String>,
    act: Option<Actor>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// RFC 8693 §4.1: who acts now, and inside it who acted before.
#[derive(Deserialize)]
struct Actor {
    sub: String,
    act: Option<Box<Self>>,
}

impl Claims {
    fn identity(self) -> Result<Identity, Error> {
        let missing = |name| Error::invalid(format!("the token names no {name}"));
        Ok(Identity {
            subject: Subject {
                tenant: TenantId::new(&self.tenant.ok_or_else(|| missing("tenant"))?)?,
                role: RoleName::new(&self.role.ok_or_else(|| missing("role"))?)?,
                user: self.user.map(|text| UserId::new(&text)).transpose()?,
            },
            agent: self.sub.map(|text| AgentName::new(&text)).transpose()?,
            delegation: delegation(self.act)?,
            chain: self.chain.map(|text| ChainId::new(&text)).transpose()?,
        })
    }
}

/// The actors, outermost first.
fn delegation(outermost: Option<Actor>) -> Result<Vec<String>, Error> {
    let mut actors = Vec::new();
    let mut next = outermost.map(Box::new);
    while let Some(actor) = next {
        if actors.len() == MAX_ACTORS {
            return Err(Error::invalid("the token's act is nested more than 10 deep"));
        }
        if actor.sub.is_empty() || actor.sub.len() > MAX_NAME || actor.sub.chars().any(char::is_control) {
            return Err(Error::invalid("a sub in the token's act is empty, too long or not printable"));
        }
        actors.push(actor.sub);
        next = actor.act;
    }
    Ok(actors)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::{
        super::{
            fixture::{NOW, Signer, claims, name, nested, subject},
            key_set,
        },
        *,
    };

    fn check_with(token: &str, signer: &Signer, expected: &Expected) -> Result<Checked, Error> {
        let keys = key_set::parse(&signer.jwks()).unwrap();
        Token::read(Secret::new(token.into()))?.check(&keys[0], expected, NOW)
    }

    fn check(claims: &Value) -> Result<Checked, Error> {
        let signer = Signer::new(Algorithm::EdDSA, "k1");
        check_with(&signer.sign(claims), &signer, &Expected::new(None, None))
    }

    fn refusal(claims: &Value) -> String {
        check(claims).unwrap_err().to_string()
    }

    fn with(more: &Value) -> Value {
        let mut all = claims();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    }

    fn without(claim: &str) -> Value {
        let mut all = claims();
        all.as_object_mut().unwrap().remove(claim);
        all
    }

    #[test]
    fn each_algorithm_is_believed_and_its_forgery_is_not() {
        for algorithm in ALGORITHMS {
            let signer = Signer::new(algorithm, "k1");
            let token = signer.sign(&claims());
            let checked = check_with(&token, &signer, &Expected::new(None, None)).unwrap();
            assert_eq!(checked.identity.subject, subject("acme", "researcher", Some("alice")));
            assert_eq!(checked.identity.agent, Some(name("planner")));
            assert_eq!(checked.identity.chain, Some(name("run-42")));
            assert_eq!(checked.expires, NOW + 300);

            let (head, signature) = token.rsplit_once('.').unwrap();
            let other = signer.sign(&with(&json!({"tenant": "globex"})));
            let (forged, _) = other.rsplit_once('.').unwrap();
            assert_ne!(head, forged);
            let error = check_with(&format!("{forged}.{signature}"), &signer, &Expected::new(None, None));
            assert!(error.unwrap_err().to_string().contains("signature"), "{algorithm:?}");
            let error = check_with(&format!("{head}."), &signer, &Expected::new(None, None));
            assert!(error.unwrap_err().to_string().contains("signature"), "{algorithm:?}");
        }
    }

    #[test]
    fn a_token_of_no_algorithm_or_a_symmetric_one_is_refused_before_any_key_is_looked_for() {
        let signer = Signer::new(Algorithm::RS256, "k1");
        let public = signer.jwk()["n"].as_str().unwrap().as_bytes().to_vec();
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header { kid: Some("k1".into()), ..Header::new(algorithm) };
            for key in [public.as_slice(), &signer.jwks()] {
                let token = encode(&header, &claims(), &EncodingKey::from_secret(key)).unwrap();
                assert!(Token::read(Secret::new(token.into())).is_err(), "{algorithm:?}");
            }
        }
        for alg in ["none", "None", "NONE", "", "HS256\0", "PS256", "RS384", "ES384"] {
            let token = Signer::unsigned(&json!({"alg": alg, "kid": "k1"}), &claims());
            assert!(Token::read(Secret::new(token.into())).is_err(), "{alg:?}");
        }
    }

    #[test]
    fn a_key_verifies_its_own_algorithm_only() {
        let ed = Signer::new(Algorithm::EdDSA, "k1");
        let es = Signer::new(Algorithm::ES256, "k1");
        let rs = Signer::new(Algorithm::RS256, "k1");
        for (signer, key) in [(&ed, &es), (&es, &rs), (&rs, &ed), (&rs, &es)] {
            assert!(check_with(&signer.sign(&claims()), key, &Expected::new(None, None)).is_err());
        }
    }

    #[test]
    fn crit_is_refused_and_texts_that_are_no_token_too() {
        let crit =
            Signer::unsigned(&json!({"alg": "EdDSA", "kid": "k1", "crit": ["b64"], "b64": false}), &claims());
        for bad in [crit.as_str(), "", ".", "..", "a.b.c", "tenant=acme, role=writer", "eyJ.eyJ", "é.é.é"]
        {
            assert!(Token::read(Secret::new(bad.into())).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_hold_with_a_minute_of_leeway() {
        assert!(check(&with(&json!({"exp": NOW - LEEWAY + 1}))).is_ok());
        assert!(refusal(&with(&json!({"exp": NOW - LEEWAY}))).contains("expired"));
        assert!(check(&with(&json!({"nbf": NOW + LEEWAY}))).is_ok());
        assert!(refusal(&with(&json!({"nbf": NOW + LEEWAY + 1}))).contains("not valid yet"));
        assert_eq!(check(&with(&json!({"exp": 4_102_444_800.7}))).unwrap().expires, 4_102_444_800);
        assert!(refusal(&without("exp")).contains("needs exp"));
        for bad in [json!(-1), json!(1e300)] {
            assert!(refusal(&with(&json!({"exp": bad}))).contains("not a time"), "{bad}");
        }
        for bad in [json!("4102444800"), json!(true), json!([])] {
            assert!(refusal(&with(&json!({"exp": bad}))).contains("cannot be read"), "{bad}");
        }
    }

    #[test]
    fn the_audience_must_be_ours_and_a_token_for_someone_else_is_not_for_whoever_asks_for_none() {
        let signer = Signer::new(Algorithm::ES256, "k1");
        let refusal = |aud: Option<Value>, audience: Option<&str>| {
            let claims = aud.map_or_else(claims, |aud| with(&json!({"aud": aud})));
            check_with(&signer.sign(&claims), &signer, &Expected::new(audience, None))
                .err()
                .map(|e| e.to_string())
        };
        assert_eq!(refusal(Some(json!("keybearer")), Some("keybearer")), None);
        assert_eq!(refusal(Some(json!(["x", "keybearer"])), Some("keybearer")), None);
        assert_eq!(refusal(None, None), None);
        assert!(refusal(Some(json!("keybearer2")), Some("keybearer")).unwrap().contains("another audience"));
        assert!(refusal(Some(json!(["x", "y"])), Some("keybearer")).unwrap().contains("another audience"));
        assert!(refusal(Some(json!([])), Some("keybearer")).unwrap().contains("another audience"));
        assert!(refusal(None, Some("keybearer")).unwrap().contains("names no audience"));
        assert!(refusal(Some(json!(7)), Some("keybearer")).unwrap().contains("names no audience"));
        assert!(refusal(Some(json!("other")), None).unwrap().contains("another audience"));
    }

    #[test]
    fn the_issuer_must_be_ours_where_one_is_configured() {
        let signer = Signer::new(Algorithm::ES256, "k1");
        let refusal = |claims: &Value| {
            let expected = Expected::new(None, Some("https://idp.example"));
            check_with(&signer.sign(claims), &signer, &expected).err().map(|e| e.to_string())
        };
        assert_eq!(refusal(&with(&json!({"iss": "https://idp.example"}))), None);
        assert!(refusal(&with(&json!({"iss": "https://evil.example"}))).unwrap().contains("another issuer"));
        assert!(refusal(&claims()).unwrap().contains("names no issuer"));
    }

    #[test]
    fn tenant_and_role_are_needed_and_all_names_are_checked() {
        for claim in ["tenant", "role"] {
            assert!(refusal(&without(claim)).contains(&format!("names no {claim}")));
        }
        for claim in ["user", "sub", "chain"] {
            assert!(check(&without(claim)).is_ok(), "{claim}");
        }
        for claim in ["tenant", "role", "user", "sub", "chain"] {
            assert!(refusal(&with(&json!({claim: "a/b"}))).contains("cannot contain '/'"), "{claim}");
            assert!(refusal(&with(&json!({claim: 7}))).contains("cannot be read"), "{claim}");
        }
    }

    #[test]
    fn delegation_is_read_outermost_first_to_ten_deep() {
        let act =
            json!({"sub": "planner", "act": {"sub": "orchestrator", "act": {"sub": "spiffe://acme/front"}}});
        let identity = check(&with(&json!({"act": act}))).unwrap().identity;
        assert_eq!(identity.delegation, ["planner", "orchestrator", "spiffe://acme/front"]);
        assert_eq!(check(&with(&json!({"act": nested(10)}))).unwrap().identity.delegation.len(), 10);
        assert!(refusal(&with(&json!({"act": nested(11)}))).contains("10 deep"));
        assert_eq!(check(&claims()).unwrap().identity.delegation, Vec::<String>::new());
    }

    #[test]
    fn bottomless_claims_and_headers_are_refused_without_using_up_the_stack() {
        let signer = Signer::new(Algorithm::EdDSA, "k1");
        let depth = 100_000;
        let act = r#"{"sub":"a","act":"#.repeat(depth) + "null" + &"}".repeat(depth);
        let payload = format!(r#"{{"tenant":"acme","role":"r","exp":{},"act":{act}}}"#, NOW + 300);
        let refusal =
            check_with(&signer.sign_text(&payload), &signer, &Expected::new(None, None)).unwrap_err();
        assert!(refusal.to_string().contains("cannot be read"), "{refusal}");
        let header = format!(r#"{{"alg":"EdDSA","x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(Token::read(Secret::new(Signer::encode(&[&header, "{}", ""]).into())).is_err());
    }

    #[test]
    fn every_actor_needs_a_sub() {
        for act in [json!({}), json!({"sub": "a", "act": {}}), json!({"sub": 7}), json!("a"), json!([])] {
            assert!(refusal(&with(&json!({"act": act}))).contains("cannot be read"), "{act}");
        }
        for sub in ["", "a\nb", &"x".repeat(MAX_NAME + 1)] {
            assert!(refusal(&with(&json!({"act": {"sub": sub}}))).contains("a sub"), "{sub:?}");
        }
    }

    #[test]
    fn a_claim_written_twice_is_refused() {
        let signer = Signer::new(Algorithm::EdDSA, "k1");
        let payload = format!(r#"{{"tenant":"acme","tenant":"globex","role":"r","exp":{}}}"#, NOW + 300);
        let token = signer.sign_text(&payload);
        let refusal = check_with(&token, &signer, &Expected::new(None, None)).unwrap_err().to_string();
        assert!(refusal.contains("cannot be read"), "{refusal}");
    }
}
