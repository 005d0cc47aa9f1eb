//! An answer's body as fields, wiped when dropped.

use std::ops::Deref;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use oauth2::url::form_urlencoded;
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use crate::secret::Secret;

/// Fields that may hold tokens.
pub(super) struct Parsed(Value);

impl Parsed {
    /// Reads JSON, or else a form (D4): by what it is, because providers mislabel both.
    #[expect(clippy::disallowed_methods, reason = "the tokens in it are taken out here")]
    pub(super) fn read(body: &Secret) -> Option<Self> {
        let bytes = body.expose().trim_ascii();
        match bytes.first()? {
            b'{' | b'[' => serde_json::from_slice(bytes).ok().map(Self),
            b'<' => None,
            _ => form(bytes).map(Self),
        }
    }
}

/// The claims of a JWT, unchecked: good for what the one who sent it may say of itself.
pub(super) fn claims(token: &str) -> Option<Parsed> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let bytes = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?);
    serde_json::from_slice(&bytes).ok().map(Parsed)
}

fn form(bytes: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    let looks = text.contains('=') && !text.bytes().any(|b| b.is_ascii_whitespace());
    let pairs =
        form_urlencoded::parse(bytes).map(|(name, value)| (name.into_owned(), value.into_owned().into()));
    looks.then(|| Value::Object(pairs.collect::<Map<_, _>>()))
}

impl Deref for Parsed {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.0
    }
}

impl Drop for Parsed {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// The depth is bounded by the reader's own limit of 128.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
