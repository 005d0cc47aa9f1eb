//! Bytes that must not be seen: never displayed, never serialised, wiped when dropped.

pub(crate) mod encoded;

use std::{fmt, io};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Visitor},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret value: a token, a password, a key.
///
/// It has no `Display` and no `Serialize`, its `Debug` is opaque, and the memory is overwritten on drop.
/// The bytes come out only through [`Secret::expose`], which the lint table forbids outside the few places
/// that seal, inject or send them to a token endpoint.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the bytes; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Every call is a place where a secret could escape.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What people may see: `…` and the last four characters, or only `…` where that would give away a
    /// quarter or more of the secret (shorter than 16 bytes) or is not printable ASCII.
    #[must_use]
    pub fn masked(&self) -> String {
        let tail = &self.0[self.0.len().saturating_sub(4)..];
        if self.0.len() < 16 || !tail.iter().all(u8::is_ascii_graphic) {
            return "…".to_owned();
        }
        tail.iter().fold(String::from("…"), |mut shown, byte| {
            shown.push(char::from(*byte));
            shown
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    /// Constant time in the contents; the length is not hidden.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}

/// A text taken into a [`Secret`] without a copy that stays. What is of another type is not quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub Secret);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Plain;
        impl Visitor<'_> for Plain {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Secret::new(text.as_bytes().to_vec())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
                Ok(Text(Secret::new(text.into_bytes())))
            }
        }
        input.deserialize_str(Plain)
    }
}

/// Writes a value as JSON into memory that is wiped: its length is counted first, because a buffer that grows
/// leaves copies behind.
///
/// # Errors
/// Where the value says that it cannot be written.
pub fn to_json<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value)?;
    let mut text = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *text, value)?;
    Ok(text)
}

struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new(b"xoxb-1234567890".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn masked_shows_four_characters_of_a_long_secret_and_none_of_a_short_one() {
        assert_eq!(Secret::new(b"sk-0123456789abcdef".to_vec()).masked(), "…cdef");
        assert_eq!(Secret::new(b"hunter2".to_vec()).masked(), "…");
        assert_eq!(Secret::new(vec![0xff; 32]).masked(), "…");
    }
}
