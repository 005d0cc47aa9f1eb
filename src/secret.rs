//! Bytes that must not be seen: never displayed, never serialised, wiped when dropped.

use std::fmt;

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
