//! What a credential looks like when it comes back.
//!
//! Between the provider and its answer are encoders of many kinds: URLs, forms and JSON, and each leaves other bytes as
//! they are. So a secret is not looked for in a list of spellings, but byte by byte, each in any of them: as it is, `%2f`,
//! `\/`, `\u002f`, and `+` for a space.
//!
//! Most answers have no echo, and every byte of each is looked at, so the search begins where a match has something rare:
//! either it is the secret as it is, or it has a first sign (`%`, `\`, `+`), before which it is as it is. Signs that can
//! mean no byte of the secret, as `\n` and `\"` mostly do, are not stopped at.

use std::{collections::BTreeSet, ops::Range};

use memchr::{memchr_iter, memchr2_iter, memmem};

use crate::secret::Secret;

/// Shorter ones would mask ordinary words. The vault takes no secret shorter than this.
const SHORTEST: usize = 8;
/// The longest spelling of one byte: `\u002f`.
const WIDEST: usize = 6;

/// The secrets that are looked for in answers, in whatever spelling.
pub struct Needles {
    secrets: Vec<memmem::Finder<'static>>,
    /// How signs begin that can mean a byte of theirs.
    signs: Vec<memmem::Finder<'static>>,
    /// The longest spelling of the longest secret, in bytes.
    longest: usize,
}

impl Needles {
    /// Needles for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the echo of a secret can only be found by its bytes")]
        let raw: BTreeSet<&[u8]> =
            secrets.into_iter().map(Secret::expose).filter(|raw| raw.len() >= SHORTEST).collect();
        Self {
            signs: signs(&raw).into_iter().map(|sign| memmem::Finder::new(sign).into_owned()).collect(),
            longest: raw.iter().map(|raw| raw.len() * WIDEST).max().unwrap_or(0),
            secrets: raw.into_iter().map(|raw| memmem::Finder::new(raw).into_owned()).collect(),
        }
    }

    /// Where the secrets stand, in no order. They may overlap.
    #[must_use]
    pub fn find(&self, haystack: &[u8]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for finder in &self.secrets {
            let raw = finder.find_iter(haystack);
            found.extend(raw.map(|start| start..start + finder.needle().len()));
        }
        let signs = self.signs.iter().flat_map(|sign| sign.find_iter(haystack));
        self.follow(haystack, signs, |start, ending| {
            if let Ending::Whole(end) = ending {
                found.push(start..end);
            }
        });
        found
    }

    /// How many bytes at the end could be the beginning of a secret.
    #[must_use]
    pub fn partial_at_end(&self, haystack: &[u8]) -> usize {
        let raw = self.secrets.iter().map(|finder| partial(haystack, finder.needle())).max();
        let mut longest = raw.unwrap_or(0);
        let tail = haystack.len().saturating_sub(self.longest);
        let whole = self.signs.iter().flat_map(|sign| sign.find_iter(&haystack[tail..])).map(|at| tail + at);
        let last = haystack.len().saturating_sub(WIDEST - 1);
        let cut = memchr2_iter(b'%', b'\\', &haystack[last..]).map(|at| last + at);
        self.follow(haystack, whole.chain(cut), |start, ending| {
            if ending == Ending::Cut {
                longest = longest.max(haystack.len() - start);
            }
        });
        longest
    }

    /// Calls `each` with what may be a secret whose first sign is one of these: where it begins, and how it ends.
    fn follow(
        &self,
        haystack: &[u8],
        signs: impl Iterator<Item = usize>,
        mut each: impl FnMut(usize, Ending),
    ) {
        for at in signs {
            let sign = Sign::read(&haystack[at..]);
            for secret in self.secrets.iter().map(memmem::Finder::needle) {
                let begin = |before: usize| {
                    if haystack[..at].ends_with(&secret[..before]) {
                        each(at - before, follow(&secret[before..], haystack, at));
                    }
                };
                match sign {
                    Sign::Means(byte, _) => memchr_iter(byte, secret).for_each(begin),
                    Sign::Cut => (0..secret.len()).for_each(begin),
                    Sign::None => {}
                }
            }
        }
    }
}

/// How signs begin that can mean a byte of these secrets.
fn signs(secrets: &BTreeSet<&[u8]>) -> Vec<&'static [u8]> {
    if secrets.is_empty() {
        return Vec::new();
    }
    let has = |wanted: fn(&u8) -> bool| secrets.iter().copied().flatten().any(wanted);
    let mut signs: Vec<&[u8]> = vec![b"%"];
    if has(|byte| *byte == b' ') {
        signs.push(b"+");
    }
    if has(|byte| matches!(byte, b'"' | b'\\' | ..b' ')) {
        signs.push(b"\\");
    } else {
        signs.push(b"\\u00");
        if has(|byte| *byte == b'/') {
            signs.push(b"\\/");
        }
    }
    signs
}

/// What stands at a place that is written otherwise than as itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// This byte, in so many.
    Means(u8, usize),
    /// The text ends within it.
    Cut,
    /// Nothing but itself.
    None,
}

impl Sign {
    fn read(text: &[u8]) -> Self {
        match text {
            [b'+', ..] => Self::Means(b' ', 1),
            [b'%', digits @ ..] => Self::hex(digits, 3),
            [b'\\', b'u', b'0', b'0', digits @ ..] => Self::hex(digits, WIDEST),
            [b'\\'] | [b'\\', b'u'] | [b'\\', b'u', b'0'] => Self::Cut,
            [b'\\', letter, ..] => {
                letter_after_backslash(*letter).map_or(Self::None, |byte| Self::Means(byte, 2))
            }
            _ => Self::None,
        }
    }

    fn hex(digits: &[u8], length: usize) -> Self {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        match digits {
            [] => Self::Cut,
            [high] => value(*high).map_or(Self::None, |_| Self::Cut),
            [high, low, ..] => match (value(*high), value(*low)) {
                (Some(high), Some(low)) => Self::Means(high << 4 | low, length),
                _ => Self::None,
            },
        }
    }
}

/// RFC 8259 §7.
const fn letter_after_backslash(letter: u8) -> Option<u8> {
    Some(match letter {
        b'"' | b'\\' | b'/' => letter,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// How a secret goes on.
#[derive(PartialEq, Eq)]
enum Ending {
    /// To its own end, which is here.
    Whole(usize),
    /// To the end of the text, as far as can be seen.
    Cut,
    /// Otherwise: it is none.
    None,
}

/// Follows a secret through the text. A `%` or a backslash in it may be meant as it stands or be a sign, so that there may
/// be several places at which one could be.
fn follow(secret: &[u8], haystack: &[u8], at: usize) -> Ending {
    let mut places = BTreeSet::from([at]);
    let mut is_cut = false;
    for byte in secret {
        let mut next = BTreeSet::new();
        for place in places {
            let text = &haystack[place..];
            match text.first() {
                None => is_cut = true,
                Some(first) if first == byte => drop(next.insert(place + 1)),
                Some(_) => {}
            }
            match Sign::read(text) {
                Sign::Means(meant, length) if meant == *byte => drop(next.insert(place + length)),
                Sign::Cut => is_cut = true,
                _ => {}
            }
        }
        places = next;
    }
    match places.last() {
        Some(end) => Ending::Whole(*end),
        None if is_cut => Ending::Cut,
        None => Ending::None,
    }
}

/// How many bytes at the end could be the beginning of a secret as it is.
fn partial(haystack: &[u8], secret: &[u8]) -> usize {
    let tail = &haystack[haystack.len().saturating_sub(secret.len() - 1)..];
    let start = memchr_iter(secret[0], tail).find(|at| secret.starts_with(&tail[*at..]));
    start.map_or(0, |at| tail.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As providers have them: every byte that some encoder changes and another does not.
    const TOKEN: &str = "kb-canary-00D5g/AB+x!yz.Q_w-12345/7890=acme~(S)*'E";

    fn needles(secret: &str) -> Needles {
        Needles::new([&Secret::new(secret.as_bytes().to_vec())])
    }

    #[test]
    fn the_longest_beginning_at_the_end_counts() {
        let needles = needles("ababacab");
        assert_eq!(needles.partial_at_end(b"xx abab"), 4);
        assert_eq!(needles.partial_at_end(b"xx ababacab"), 2);
        assert_eq!(needles.partial_at_end(b"xx"), 0);
        assert_eq!(needles.partial_at_end(b""), 0);
        assert_eq!(needles.partial_at_end(b"xx a%62\\u0061"), 10);
        assert_eq!(needles.partial_at_end(b"xx aba%6"), 5);
        assert_eq!(needles.partial_at_end(b"xx aba\\u00"), 7);
        assert_eq!(needles.partial_at_end(b"xx %7"), 2);
        assert_eq!(needles.partial_at_end(b"xx %6x \\n aba%63"), 0);
    }

    #[test]
    fn what_real_encoders_make_of_it_is_found_whole() {
        for spelling in [
            TOKEN,
            // Python: quote, quote(safe=""), quote_plus
            "kb-canary-00D5g/AB%2Bx%21yz.Q_w-12345/7890%3Dacme~%28S%29%2A%27E",
            "kb-canary-00D5g%2FAB%2Bx%21yz.Q_w-12345%2F7890%3Dacme~%28S%29%2A%27E",
            // JavaScript: encodeURIComponent, URLSearchParams
            "kb-canary-00D5g%2FAB%2Bx!yz.Q_w-12345%2F7890%3Dacme~(S)*'E",
            "kb-canary-00D5g%2FAB%2Bx%21yz.Q_w-12345%2F7890%3Dacme%7E%28S%29*%27E",
            // .NET and old Java: lower-case digits
            "kb-canary-00D5g%2fAB%2bx!yz.Q_w-12345%2f7890%3dacme~(S)*'E",
            // PHP: json_encode; Go and .NET: what HTML means something by
            r"kb-canary-00D5g\/AB+x!yz.Q_w-12345\/7890=acme~(S)*'E",
            r"kb-canary-00D5g/AB\u002Bx!yz.Q_w-12345/7890\u003dacme~(S)*\u0027E",
            // all that there is
            r"%6B\u0062-canary-00D5g\/AB%2Bx!yz%2eQ_w-12345/7890%3dacme~(S)*'%45",
        ] {
            let text = format!("<{spelling}>");
            let whole = 1..spelling.len() + 1;
            assert!(needles(TOKEN).find(text.as_bytes()).contains(&whole), "{spelling}");
        }
    }

    #[test]
    fn where_there_is_no_secret_nothing_is_looked_for() {
        let needles = Needles::new([]);
        assert!(needles.signs.is_empty() && needles.find(b"%41").is_empty());
        assert_eq!(needles.partial_at_end(b"x%4"), 0);
    }

    #[test]
    fn a_form_writes_a_space_as_a_plus() {
        assert_eq!(needles("correct horse").find(b"k=correct+horse").first(), Some(&(2..15)));
        assert_eq!(needles("correct horse").partial_at_end(b"k=correct+ho"), 10);
        assert!(needles("correct-horse").find(b"k=correct+horse").is_empty());
    }

    #[test]
    fn signs_in_the_secret_itself_may_be_spelt_or_not() {
        let secret = r"a%2Fb\\c%25d";
        for spelling in [secret, r"a%252Fb%5c%5Cc%2525d", r"a%2Fb\\\\c%25d", r"a%252Fb\\%5cc%2525d"] {
            assert!(needles(secret).find(spelling.as_bytes()).contains(&(0..spelling.len())), "{spelling}");
        }
    }

    #[test]
    fn what_is_another_text_is_not_found() {
        for text in [
            "Pass/word+1",
            "pass%2Gword+1",
            "pass%2f%2fword+1",
            r"pass\word+1",
            r"pass\u012fword+1",
            "pass%2Fword 1",
        ] {
            assert!(needles("pass/word+1").find(text.as_bytes()).is_empty(), "{text}");
        }
    }
}
