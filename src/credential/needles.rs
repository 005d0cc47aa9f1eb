//! What a credential looks like when it comes back.

use std::ops::Range;

use memchr::{memchr_iter, memmem};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use crate::secret::Secret;

/// Shorter ones would mask ordinary words. The vault takes no secret shorter than this.
const SHORTEST: usize = 8;

/// The spellings of a credential that are looked for in answers: as it is, as it was injected, and
/// percent-encoded where that differs.
pub struct Needles(Vec<memmem::Finder<'static>>);

impl Needles {
    /// Needles for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut spellings: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            #[expect(
                clippy::disallowed_methods,
                reason = "the echo of a secret can only be found by its bytes"
            )]
            let raw = secret.expose();
            if raw.len() < SHORTEST {
                continue;
            }
            let encoded = percent_encode(raw, NON_ALPHANUMERIC).to_string().into_bytes();
            let json = serde_json::to_vec(&String::from_utf8_lossy(raw)).unwrap_or_default();
            let json = json.get(1..json.len().saturating_sub(1)).unwrap_or_default().to_vec();
            spellings.extend([raw.to_vec(), encoded, json]);
        }
        spellings.retain(|spelling| spelling.len() >= SHORTEST);
        // Most secrets are spelt alike in all three ways, and each spelling costs a search.
        spellings.sort_unstable();
        spellings.dedup();
        Self(spellings.iter().map(|spelling| memmem::Finder::new(spelling).into_owned()).collect())
    }

    /// Where the first spelling stands that occurs.
    #[must_use]
    pub fn find(&self, haystack: &[u8]) -> Option<Range<usize>> {
        let found = |finder: &memmem::Finder<'_>| {
            finder.find(haystack).map(|start| start..start + finder.needle().len())
        };
        self.0.iter().filter_map(found).min_by_key(|range| range.start)
    }

    /// How many bytes at the end could be the beginning of a spelling.
    #[must_use]
    pub fn partial_at_end(&self, haystack: &[u8]) -> usize {
        self.0.iter().map(|finder| partial(haystack, finder.needle())).max().unwrap_or(0)
    }
}

fn partial(haystack: &[u8], needle: &[u8]) -> usize {
    let tail = &haystack[haystack.len().saturating_sub(needle.len() - 1)..];
    let start = memchr_iter(needle[0], tail).find(|at| needle.starts_with(&tail[*at..]));
    start.map_or(0, |at| tail.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_at_the_end_counts() {
        let needles = Needles::new([&Secret::new(b"ababacab".to_vec())]);
        assert_eq!(needles.partial_at_end(b"xx abab"), 4);
        assert_eq!(needles.partial_at_end(b"xx ababacab"), 2);
        assert_eq!(needles.partial_at_end(b"xx"), 0);
        assert_eq!(needles.partial_at_end(b""), 0);
    }

    #[test]
    fn other_spellings_are_found_too() {
        let needles = Needles::new([&Secret::new(b"pass/w\"rd+1".to_vec())]);
        assert!(needles.find(b"x pass/w\"rd+1").is_some());
        assert!(needles.find(b"k=pass%2Fw%22rd%2B1").is_some());
        assert!(needles.find(br#"{"k":"pass/w\"rd+1"}"#).is_some());
        assert!(needles.find(b"pass").is_none());
    }
}
