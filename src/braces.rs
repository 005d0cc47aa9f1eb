//! Text with `{placeholders}`, taken apart. A brace itself is written twice.

/// A piece of such a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Text as it is, never empty.
    Literal(String),
    /// What stands between braces, also if that is nothing.
    Inside(&'a str),
}

/// The pieces in their order; `None` where a brace is left open or closes nothing.
pub(crate) fn split(text: &str) -> Option<Vec<Piece<'_>>> {
    let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            literal.push_str(&rest[..1]);
            rest = &rest[2..];
            continue;
        }
        let (inside, after) = rest.strip_prefix('{')?.split_once('}')?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Inside(inside));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Piece<'_> {
        Piece::Literal(text.to_owned())
    }

    #[test]
    fn braces_come_in_pairs_and_two_are_one() {
        assert_eq!(split("a{b}c"), Some(vec![literal("a"), Piece::Inside("b"), literal("c")]));
        assert_eq!(split("{}"), Some(vec![Piece::Inside("")]));
        assert_eq!(split("{{{x}}}"), Some(vec![literal("{"), Piece::Inside("x"), literal("}")]));
        assert_eq!(split(""), Some(vec![]));
        for open in ["{", "a{b", "a}b", "{a}}"] {
            assert_eq!(split(open), None, "{open}");
        }
    }
}
