//! Secrets on their way from the command line to the process that seals them, or with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use crate::{
    secret::{Secret, Text, to_json},
    vault::{SecretError, parse_secret_input},
};

/// The secrets of one account, by field name. As JSON they are an object of texts, and only a [`Command`] that
/// goes to the process with the vault is ever written as JSON: replies and logs have no such type.
///
/// [`Command`]: super::Command
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, Secret>);

impl Secrets {
    /// The secrets, if they are those of exactly these fields and could be such.
    ///
    /// # Errors
    /// As [`parse_secret_input`], which reads what people write: there is one reading for both.
    pub(super) fn checked(self, fields: &[String]) -> Result<BTreeMap<String, Secret>, SecretError> {
        if let Some(stranger) = self.0.keys().find(|name| !fields.contains(name)) {
            return Err(SecretError::Unknown { found: stranger.clone(), expected: fields.to_vec() });
        }
        match fields {
            [field] => {
                let secret = self.0.get(field).ok_or_else(|| SecretError::Missing(field.clone()))?;
                #[expect(clippy::disallowed_methods, reason = "checked on its way into the vault")]
                parse_secret_input(secret.expose(), &[field])
            }
            several => {
                let object = to_json(&self).map_err(|_| SecretError::NotAnObject(fields.to_vec()))?;
                parse_secret_input(&object, several)
            }
        }
    }
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        #[expect(
            clippy::disallowed_methods,
            reason = "it goes to the process that seals it, and nowhere else"
        )]
        let texts = self.0.iter().map(|(name, secret)| (name, str::from_utf8(secret.expose())));
        let texts: Result<Vec<_>, _> = texts.map(|(name, text)| text.map(|text| (name, text))).collect();
        out.collect_map(texts.map_err(|_| ser::Error::custom("a secret is not UTF-8 text"))?)
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::<String, Text>::deserialize(input)?;
        Ok(Self(texts.into_iter().map(|(name, Text(secret))| (name, secret)).collect()))
    }
}

/// A vault key: 32 bytes in base64. Written as JSON only on its way to the process that seals with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyText(pub Secret);

impl Serialize for KeyText {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        #[expect(
            clippy::disallowed_methods,
            reason = "it goes to the process that seals with it, and nowhere else"
        )]
        let text = str::from_utf8(self.0.expose());
        out.serialize_str(text.map_err(|_| ser::Error::custom("a key is not UTF-8 text"))?)
    }
}

impl<'de> Deserialize<'de> for KeyText {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Text::deserialize(input).map(|Text(key)| Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(value: &[u8]) -> Secrets {
        Secrets([("token".to_owned(), Secret::new(value.to_vec()))].into())
    }

    #[test]
    fn secrets_arrive_as_they_were_sent_in_a_buffer_that_did_not_grow() {
        let sent = secrets("qu\"ote\\ and \u{e4}".as_bytes());
        let text = to_json(&sent).unwrap();
        assert_eq!(text.len(), text.capacity());
        assert_eq!(serde_json::from_slice::<Secrets>(&text).unwrap(), sent);
    }

    #[test]
    fn a_key_arrives_as_it_was_sent_and_is_not_shown() {
        let sent = KeyText(Secret::new(b"bm90IGEga2V5IGJ1dCBhcyBsb25nIGFzIG9uZQ==".to_vec()));
        let text = to_json(&sent).unwrap();
        assert_eq!(serde_json::from_slice::<KeyText>(&text).unwrap(), sent);
        assert!(!format!("{sent:?}").contains("bm90"));
    }

    #[test]
    fn what_is_no_text_is_refused_without_being_shown() {
        assert!(to_json(&secrets(&[0xff; 16])).is_err());
        for wrong in [r#"{"token": 7}"#, r#"{"token": ["sk-12345678"]}"#] {
            let error = serde_json::from_str::<Secrets>(wrong).unwrap_err().to_string();
            assert!(!error.contains("sk-12345678"), "{error}");
        }
    }
}
