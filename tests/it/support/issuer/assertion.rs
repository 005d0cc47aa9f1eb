//! JWTs that clients sign: RFC 7523 as a grant and as a proof, and what a GitHub App shows.

use std::collections::HashSet;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::{Shared, client::Apps};

/// Longer than this none may live.
const LONGEST: i64 = 600;

#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: Option<String>,
    #[serde(default)]
    aud: Value,
    exp: i64,
    iat: Option<i64>,
    jti: Option<String>,
    pub(super) scope: Option<String>,
}

/// The claims of an assertion for the audience, signed by the app that it names, in time, and not seen before.
pub(super) fn checked(shared: &Shared, apps: &Apps, assertion: &str, audience: &str) -> Result<Claims, ()> {
    let claims = signed(shared, apps, assertion)?;
    let meant = match &claims.aud {
        Value::String(one) => one == audience,
        Value::Array(several) => several.iter().any(|one| one == audience),
        _ => false,
    };
    let id = claims.jti.as_deref().unwrap_or(assertion);
    (meant && shared.ledger().is_new(id)).then_some(claims).ok_or(())
}

/// The claims of a JWT, signed by the app that it names, and in time.
pub(super) fn signed(shared: &Shared, apps: &Apps, jwt: &str) -> Result<Claims, ()> {
    let algorithm = decode_header(jwt).map_err(drop)?.alg;
    let claims = apps.values().filter_map(|app| app.key.as_deref()).find_map(|pem| {
        let key = match algorithm {
            Algorithm::RS256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::ES256 => DecodingKey::from_ec_pem(pem.as_bytes()),
            _ => return None,
        };
        let mut validation = Validation::new(algorithm);
        // The times are compared with the issuer's own clock, below.
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims = HashSet::new();
        decode::<Claims>(jwt, &key.ok()?, &validation).ok()
    });
    let claims = claims.ok_or(())?.claims;
    let now = shared.clock.now().as_second();
    let in_time = claims.exp > now
        && claims.exp - claims.iat.unwrap_or(now) <= LONGEST
        && claims.iat.is_none_or(|issued| issued <= now);
    (in_time && apps.get(&claims.iss).is_some_and(|app| app.key.is_some())).then_some(claims).ok_or(())
}
