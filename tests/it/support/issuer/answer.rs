//! What is sold and what is refused, in the provider's own shape.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    Shared,
    clock::http_date,
    ledger::{Sold, seconds},
    profile::{Expiry, Profile, Told},
    read::Asked,
    refusal::Why,
};

/// The answer's status and fields for what was sold.
pub(super) fn sold(profile: &Profile, extras: &Map<String, Value>, sold: &Sold) -> (StatusCode, Value) {
    let mut tokens = Map::from_iter([
        (profile.access_name.to_owned(), json!(sold.access)),
        ("token_type".to_owned(), json!("Bearer")),
    ]);
    tokens.extend(sold.refresh.as_ref().map(|token| ("refresh_token".to_owned(), json!(token))));
    if sold.refresh.is_some() {
        tokens.extend(profile.refresh_expiry.map(|(name, life)| (name.to_owned(), json!(life))));
    }
    tokens.extend(expiry(profile, sold).map(|(name, value)| (name.to_owned(), value)));
    match profile.told_scopes {
        Told::Text(name, separator) => {
            tokens.insert(name.to_owned(), json!(sold.scopes.join(separator)));
        }
        Told::List(name) => {
            tokens.insert(name.to_owned(), json!(sold.scopes));
        }
        Told::Untold => {}
    }
    let refreshed = profile.refreshed_in.filter(|_| sold.generation > 0);
    let nested = refreshed
        .unwrap_or(profile.tokens_in)
        .iter()
        .rev()
        .fold(tokens, |inner, name| Map::from_iter([((*name).to_owned(), Value::Object(inner))]));
    let mut fields = Map::new();
    if profile.ok {
        fields.insert("ok".to_owned(), json!(true));
    }
    fields.extend(extras.clone());
    for (name, value) in nested {
        match (fields.get_mut(&name), value) {
            (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
            (_, value) => drop(fields.insert(name, value)),
        }
    }
    (StatusCode::OK, Value::Object(fields))
}

fn expiry(profile: &Profile, sold: &Sold) -> Option<(&'static str, Value)> {
    let life = profile.access_seconds;
    Some(match profile.expiry {
        Expiry::Seconds => ("expires_in", json!(life)),
        Expiry::SecondsText => ("expires_in", json!(life.to_string())),
        Expiry::Milliseconds(name) => (name, json!(life * 1000)),
        // The provider's own clock is off in these as well.
        Expiry::At(name) => (name, json!((sold.access_until + seconds(profile.clock_off)).to_string())),
        Expiry::AtEpoch(name) => (name, json!(sold.access_until.as_second() + profile.clock_off)),
        Expiry::Untold => return None,
    })
}

pub(super) fn refused(profile: &Profile, why: Why) -> (StatusCode, Value) {
    profile.wording.of(why)
}

/// The fields as the token endpoint encodes them for this client.
pub(super) fn encoded(
    shared: &Shared,
    asked: &Asked,
    (status, fields): (StatusCode, Value),
) -> Response<Body> {
    if !shared.profile.form_unless_asked || asked.accepts_json() {
        return json(shared, (status, fields));
    }
    of_kind(plain(shared, status, form(&fields)), "application/x-www-form-urlencoded; charset=utf-8")
}

pub(super) fn json(shared: &Shared, (status, fields): (StatusCode, Value)) -> Response<Body> {
    of_kind(plain(shared, status, fields.to_string()), "application/json; charset=utf-8")
}

fn of_kind(mut response: Response<Body>, kind: &'static str) -> Response<Body> {
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A response with the issuer's own date, never to be stored.
pub(super) fn plain(shared: &Shared, status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let date = http_date(shared.clock.now() + seconds(shared.profile.clock_off));
    Response::builder()
        .status(status)
        .header(header::DATE, date)
        .header(header::CACHE_CONTROL, "no-store")
        .body(body.into())
        .unwrap()
}

fn form(fields: &Value) -> String {
    let pairs = fields.as_object().unwrap().iter().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
        format!("{name}={encoded}")
    });
    pairs.collect::<Vec<_>>().join("&")
}
