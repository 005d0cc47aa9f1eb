//! Lines that hold on to each other: each one's hash covers the hash before it.

use std::{borrow::Cow, fmt};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    event::{Event, Kind},
    line::{Pen, Place},
};

/// The `event` of the line that begins every file.
pub(super) const ANCHOR: &str = "audit.anchor";
/// The `event` of a line that says what was found when the log was opened: lines are gone that had reached the disk.
pub(super) const MISSING: &str = "audit.missing";
/// Likewise: lines do not verify, though others do that come after them.
pub(super) const DAMAGED: &str = "audit.damaged";

const HASH_MEMBER: &[u8] = b",\"hash\":\"";
/// `,"hash":"` + 64 digits + `"}`.
const SUFFIX: usize = HASH_MEMBER.len() + 64 + 2;

/// A SHA-256 as it stands in a file: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 64]);

impl Hash {
    /// What the very first line names as its predecessor.
    pub const ZERO: Self = Self([b'0'; 64]);

    /// Takes 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; 64] = text.try_into().ok()?;
        let all_hex = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        all_hex.then_some(Self(digits))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // they are ASCII
    }

    /// `SHA-256(prev || canonical)`, where `prev` is the 64 digits and `canonical` comes in pieces.
    fn over(prev: &Self, canonical: [&[u8]; 2]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut sha = Sha256::new();
        sha.update(prev.0);
        sha.update(canonical[0]);
        sha.update(canonical[1]);
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(sha.finalize()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(text)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The end of a chain: the number and hash of its last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The line's `seq`; 0 before the first.
    pub seq: u64,
    /// The line's `hash`.
    pub hash: Hash,
}

impl Link {
    /// What precedes the first line of the first file.
    pub const GENESIS: Self = Self { seq: 0, hash: Hash::ZERO };
}

/// Makes lines, one after the other.
#[derive(Debug)]
pub(super) struct Chain {
    last: Link,
    pen: Pen,
}

impl Chain {
    pub(super) fn after(last: Link) -> Self {
        Self { last, pen: Pen::default() }
    }

    pub(super) const fn last(&self) -> Link {
        self.last
    }

    /// Appends the event's line, newline included.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, event: &Event) {
        let begin = out.len();
        let seq = self.last.seq + 1;
        self.pen.write(out, event, Some(&Place { seq, prev: &self.last.hash }));
        let hash = Hash::over(&self.last.hash, [&out[begin..], b""]);
        out.pop(); // the brace, which moves behind the hash
        out.extend_from_slice(HASH_MEMBER);
        out.extend_from_slice(&hash.0);
        out.extend_from_slice(b"\"}\n");
        self.last = Link { seq, hash };
    }
}

/// A line that is whole and unchanged in itself: its own hash is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Its own number and hash.
    pub(super) link: Link,
    /// The hash of the line before.
    pub(super) prev: Hash,
    /// What a `kind: system` line says happened, and its detail.
    pub(super) system: Option<(String, String)>,
}

impl Sealed {
    /// Reads a line without its newline; `None` where it is not one of ours or was changed.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Members<'a> {
            seq: u64,
            prev: &'a str,
            kind: Kind,
            #[serde(borrow)]
            event: Option<Cow<'a, str>>,
            #[serde(borrow)]
            detail: Option<Cow<'a, str>>,
        }
        let (body, suffix) = line.split_at_checked(line.len().checked_sub(SUFFIX)?)?;
        let digits = suffix.strip_prefix(HASH_MEMBER)?.strip_suffix(b"\"}")?;
        let hash = Hash::parse(digits)?;
        // The parser refuses a member that stands there twice, so that there is one reading.
        let members: Members<'_> = serde_json::from_slice(line).ok()?;
        let prev = Hash::parse(members.prev.as_bytes())?;
        let system = (members.kind == Kind::System)
            .then(|| (members.event.unwrap_or_default().into(), members.detail.unwrap_or_default().into()));
        let right = Hash::over(&prev, [body, b"}"]) == hash;
        right.then_some(Self { link: Link { seq: members.seq, hash }, prev, system })
    }

    pub(super) fn is_anchor(&self) -> bool {
        self.system.as_ref().is_some_and(|(event, _)| event == ANCHOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event::sample;

    #[test]
    fn a_line_names_its_predecessor_and_its_own_hash_is_right() {
        let mut chain = Chain::after(Link::GENESIS);
        let mut out = Vec::new();
        chain.append(&mut out, &sample::full());
        let first = chain.last();
        chain.append(&mut out, &sample::action("acme"));
        let lines: Vec<_> = out.split(|byte| *byte == b'\n').collect();
        let one = Sealed::read(lines[0]).unwrap();
        let two = Sealed::read(lines[1]).unwrap();
        assert_eq!((one.prev, one.link, first.seq), (Hash::ZERO, first, 1));
        assert_eq!((two.prev, two.link), (first.hash, chain.last()));
    }

    #[test]
    fn any_changed_byte_of_a_line_shows() {
        let mut out = Vec::new();
        Chain::after(Link::GENESIS).append(&mut out, &sample::full());
        out.pop();
        assert!(Sealed::read(&out).is_some());
        for at in 0..out.len() {
            let mut changed = out.clone();
            changed[at] ^= 1;
            assert_eq!(Sealed::read(&changed), None, "byte {at}");
        }
    }

    #[test]
    fn a_hash_in_capitals_or_of_another_length_is_none() {
        assert_eq!(Hash::parse(&[b'A'; 64]), None);
        assert_eq!(Hash::parse(&[b'a'; 63]), None);
        assert!(Hash::parse(&[b'a'; 64]).is_some());
    }
}
