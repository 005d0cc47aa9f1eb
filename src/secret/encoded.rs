//! Secrets in JSON that is sealed, or sent to whoever may have them, as base64: they need not be text, and base64 needs
//! no escapes, so that the reader can borrow it.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::secret::Secret;

pub(crate) fn write<S: Serializer>(secret: &Secret, out: S) -> Result<S::Ok, S::Error> {
    Encoded::new(secret).serialize(out)
}

pub(crate) fn read<'de, D: Deserializer<'de>>(input: D) -> Result<Secret, D::Error> {
    decode(<&'de str>::deserialize(input)?)
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
pub(crate) fn write_option<S: Serializer>(secret: &Option<Secret>, out: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Encoded::new).serialize(out)
}

pub(crate) fn read_option<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Secret>, D::Error> {
    Option::<&'de str>::deserialize(input)?.map(decode).transpose()
}

pub(crate) fn write_fields<S: Serializer>(
    fields: &BTreeMap<String, Secret>,
    out: S,
) -> Result<S::Ok, S::Error> {
    out.collect_map(fields.iter().map(|(name, secret)| (name, Encoded::new(secret))))
}

pub(crate) fn read_fields<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, Secret>, D::Error> {
    let texts = BTreeMap::<String, &'de str>::deserialize(input)?;
    texts.into_iter().map(|(name, text)| Ok((name, decode(text)?))).collect()
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
pub(crate) fn write_some_fields<S: Serializer>(
    fields: &Option<BTreeMap<String, Secret>>,
    out: S,
) -> Result<S::Ok, S::Error> {
    match fields {
        Some(fields) => write_fields(fields, out),
        None => out.serialize_none(),
    }
}

pub(crate) fn read_some_fields<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<BTreeMap<String, Secret>>, D::Error> {
    let texts = Option::<BTreeMap<String, &'de str>>::deserialize(input)?;
    texts.map(|texts| texts.into_iter().map(|(name, text)| Ok((name, decode(text)?))).collect()).transpose()
}

/// The text, wiped when it is written.
struct Encoded(Zeroizing<String>);

impl Encoded {
    #[expect(clippy::disallowed_methods, reason = "this is where it is written to be sealed or sent")]
    fn new(secret: &Secret) -> Self {
        // With its room reserved, `encode_string` moves nothing.
        let mut text = Zeroizing::new(String::with_capacity(secret.len().div_ceil(3) * 4));
        STANDARD.encode_string(secret.expose(), &mut text);
        Self(text)
    }
}

impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

fn decode<E: de::Error>(text: &str) -> Result<Secret, E> {
    STANDARD.decode(text).map(Secret::new).map_err(|_| E::custom("a secret is not base64"))
}
