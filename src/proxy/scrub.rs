//! What the provider echoes of a credential does not reach the agent (law 9).
//!
//! A match is overwritten by as many asterisks, so that lengths, chunks and frames stay as they were. A match
//! may be cut in two by a chunk's end: the few bytes that could be its beginning are held back until the next
//! chunk decides. If none comes, a stream must not stand still for them: fewer than eight are let go, and what
//! follows is masked all the same; eight or more are hardly a coincidence, and stay.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

use crate::credential::Needles;

/// So many bytes of a credential may be let go when nothing follows them.
const LET_GO: usize = 7;

/// Masks one body, chunk by chunk.
pub(super) struct Scrubber {
    needles: Arc<Needles>,
    /// What could be the beginning of a credential.
    held: BytesMut,
    /// How many of the held bytes have gone on already.
    gone: usize,
}

impl Scrubber {
    /// A scrubber for what this credential could look like when echoed.
    #[must_use]
    pub(super) fn new(needles: Arc<Needles>) -> Self {
        Self { needles, held: BytesMut::new(), gone: 0 }
    }

    /// The bytes that may go on, masked. May be empty while a possible match is held back.
    pub(super) fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.held.is_empty() && self.needles.find(&chunk).is_empty() {
            let keep = self.needles.partial_at_end(&chunk);
            if keep == 0 {
                return chunk; // the common way: nothing is copied
            }
            self.held.extend_from_slice(&chunk[chunk.len() - keep..]);
            return chunk.slice(..chunk.len() - keep);
        }
        self.held.extend_from_slice(&chunk);
        mask(&mut self.held, &self.needles);
        let keep = self.needles.partial_at_end(&self.held);
        let held = self.held.split_off(self.held.len() - keep);
        let mut clean = std::mem::replace(&mut self.held, held).freeze();
        let gone = self.gone.min(clean.len());
        self.gone -= gone;
        clean.split_off(gone)
    }

    /// What may go on because nothing has followed it for long enough.
    pub(super) fn let_go(&mut self) -> Bytes {
        let waiting = Bytes::copy_from_slice(&self.held[self.gone..]);
        self.gone = self.held.len();
        waiting
    }

    /// What was still held back when the body ended.
    pub(super) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze().split_off(std::mem::take(&mut self.gone))
    }

    /// Whether bytes are held back.
    #[must_use]
    pub(super) fn holds(&self) -> bool {
        self.held.len() > self.gone
    }

    /// Whether bytes are held back that may be let go if nothing follows them.
    #[must_use]
    pub(super) fn may_let_go(&self) -> bool {
        self.holds() && self.held.len() <= LET_GO
    }
}

fn mask(bytes: &mut [u8], needles: &Needles) {
    for echo in needles.find(bytes) {
        bytes[echo].fill(b'*');
    }
}

/// Masks header or trailer values.
pub(super) fn headers(headers: &mut HeaderMap, needles: &Needles) {
    for value in headers.values_mut() {
        if !needles.find(value.as_bytes()).is_empty() {
            *value = masked(value, needles);
        }
    }
}

fn masked(value: &HeaderValue, needles: &Needles) -> HeaderValue {
    let mut bytes = value.as_bytes().to_vec();
    mask(&mut bytes, needles);
    HeaderValue::from_bytes(&bytes).unwrap_or_else(|_| HeaderValue::from_static("*"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;

    fn scrub(chunks: &[&[u8]]) -> Vec<u8> {
        scrub_of("s3cr3t-t0ken", chunks)
    }

    fn scrub_of(secret: &str, chunks: &[&[u8]]) -> Vec<u8> {
        let needles = Needles::new([&Secret::new(secret.as_bytes().to_vec())]);
        let mut scrubber = Scrubber::new(Arc::new(needles));
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(chunk)));
        }
        out.extend_from_slice(&scrubber.finish());
        out
    }

    #[test]
    fn an_echoed_secret_is_masked_in_place() {
        assert_eq!(scrub(&[b"{\"auth\":\"Bearer s3cr3t-t0ken\"}"]), b"{\"auth\":\"Bearer ************\"}");
        assert_eq!(scrub(&[b"s3cr3t-t0kens3cr3t-t0ken"]), b"************************");
    }

    #[test]
    fn a_body_without_the_secret_is_passed_on_without_a_copy() {
        let needles = Needles::new([&Secret::new(b"s3cr3t-t0ken".to_vec())]);
        let chunk = Bytes::from_static(b"nothing to see");
        let passed = Scrubber::new(Arc::new(needles)).push(chunk.clone());
        assert_eq!(passed.as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn after_a_pause_the_rest_of_a_secret_is_masked_all_the_same() {
        for cut in 1.."s3cr3t-t0ken".len() {
            let needles = Needles::new([&Secret::new(b"s3cr3t-t0ken".to_vec())]);
            let mut scrubber = Scrubber::new(Arc::new(needles));
            let (before, after) = "s3cr3t-t0ken".split_at(cut);
            let mut out = scrubber.push(Bytes::copy_from_slice(before.as_bytes())).to_vec();
            assert_eq!(scrubber.may_let_go(), cut <= LET_GO);
            if scrubber.may_let_go() {
                out.extend_from_slice(&scrubber.let_go());
                assert_eq!((out.as_slice(), scrubber.holds()), (before.as_bytes(), false));
            }
            for byte in after.bytes().chain(*b" s") {
                out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(&[byte])));
            }
            out.extend_from_slice(&scrubber.finish());
            let given_away = if cut <= LET_GO { before } else { "" };
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("{given_away}{} s", "*".repeat(12 - given_away.len()))
            );
        }
    }

    /// The whole in pieces, cut at these places.
    fn cut<'a>(whole: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        cuts.sort_unstable();
        let starts = [0].into_iter().chain(cuts.clone());
        let ends = cuts.iter().copied().chain([whole.len()]);
        starts.zip(ends).map(|(start, end)| &whole[start..end]).collect()
    }

    /// One of the ways in which encoders write a byte.
    fn spell(byte: u8, how: u8) -> String {
        match (how, byte) {
            (0, _) => format!("%{byte:02X}"),
            (1, _) => format!("%{byte:02x}"),
            (2, _) => format!("\\u{byte:04X}"),
            (3, _) => format!("\\u{byte:04x}"),
            (4, b' ') => "+".to_owned(),
            (4, b'/' | b'"' | b'\\') => format!("\\{}", char::from(byte)),
            _ => char::from(byte).to_string(),
        }
    }

    fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
        prop::collection::vec(any::<prop::sample::Index>(), 0..8)
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_secret_never_passes(cuts in cuts()) {
            let whole = b"ab s3cr3t-s3cr3t-t0kens3cr3t-t0 s3cr3t-t0ken s3cr3t-t0ke";
            let masked = b"ab s3cr3t-************s3cr3t-t0 ************ s3cr3t-t0ke".to_vec();
            prop_assert_eq!(scrub(&cut(whole, &cuts)), masked);
        }

        #[test]
        fn however_it_is_spelt_and_cut_the_secret_never_passes(
            bytes in prop::collection::vec(("[ -;=?-~]|[ /%+\"\\\\]", 0..8_u8), 8..40),
            last in 0..8_u8,
            cuts in cuts(),
        ) {
            // A secret ends with a letter: after the `%` of a last `%25`, the rest says nothing more of it.
            let secret: String = bytes.iter().map(|(byte, _)| byte.as_str()).chain(["z"]).collect();
            let spelt = bytes.iter().map(|(byte, how)| spell(byte.as_bytes()[0], *how));
            let echo: String = spelt.chain([spell(b'z', last)]).collect();
            let whole = format!("<{echo}> <{echo}>");
            let stars = "*".repeat(echo.len());
            let masked = format!("<{stars}> <{stars}>").into_bytes();
            prop_assert_eq!(scrub_of(&secret, &cut(whole.as_bytes(), &cuts)), masked);
        }

        #[test]
        fn an_answer_without_the_secret_passes_byte_for_byte(
            whole in "(s3|cr/|3t|t%0|%73|%2F|%25|\\\\u00|\\\\/|\\\\|%|2|\\+|\\*){0,60}",
            cuts in cuts(),
        ) {
            let secret = "s3cr/3tt%0s3 s3";
            let needles = Needles::new([&Secret::new(secret.as_bytes().to_vec())]);
            prop_assume!(needles.find(whole.as_bytes()).is_empty());
            prop_assert_eq!(scrub_of(secret, &cut(whole.as_bytes(), &cuts)), whole.into_bytes());
        }
    }
}
