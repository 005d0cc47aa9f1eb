//! The value of an injected header or query parameter: text with the credential's fields in it.

use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::auth::is_field_name;
use crate::{
    braces::{self, Piece},
    document::did_you_mean,
};

/// A parsed value, such as `Bearer {token}`, `Basic {basic(user, password)}` or
/// `Basic {basic("x-access-token", token)}`. A brace itself is written twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(String),
    /// Base64 of the two with a colon between (RFC 7617 §2).
    Basic(Operand, Operand),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand {
    Literal(String),
    Field(String),
}

/// A field that the template uses and the account does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the account has no field `{0}`: rotate it with all fields of the connector")]
pub struct MissingField(pub String);

impl Template {
    /// Parses a value whose fields must be among `fields`.
    pub(super) fn parse(text: &str, fields: &[String]) -> Result<Self, String> {
        if let Some(bad) = text.chars().find(|c| !(c.is_ascii_graphic() || *c == ' ')) {
            return Err(format!("a value cannot contain {bad:?}"));
        }
        let pieces =
            braces::split(text).ok_or("a brace is left open: write {field}, or {{ for a brace itself")?;
        let parts = pieces.into_iter().map(|piece| match piece {
            Piece::Literal(text) => Ok(Part::Literal(text)),
            Piece::Inside(inside) => parse_part(inside, fields),
        });
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        if !parts.iter().any(Part::uses_a_field) {
            return Err(format!("the value holds no credential: use {}", named(fields)));
        }
        Ok(Self(parts))
    }

    /// Puts a credential's fields in. `field` gives the bytes of one by name.
    ///
    /// # Errors
    /// [`MissingField`] where it has none.
    pub fn render<'a>(
        &'a self,
        field: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, MissingField> {
        let pieces = self.0.iter().map(|part| part.render(&field)).collect::<Result<Vec<_>, _>>()?;
        // Exactly as long as needed: a vector that grows leaves copies behind that nobody wipes.
        let mut value = Zeroizing::new(Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
        for piece in pieces {
            value.extend_from_slice(&piece);
        }
        Ok(value)
    }
}

impl Part {
    const fn uses_a_field(&self) -> bool {
        match self {
            Self::Literal(_) | Self::Basic(Operand::Literal(_), Operand::Literal(_)) => false,
            Self::Field(_) | Self::Basic(..) => true,
        }
    }

    fn render<'a>(
        &'a self,
        field: &impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, MissingField> {
        let read = |name: &'a String| field(name).ok_or_else(|| MissingField(name.clone()));
        let operand = |operand: &'a Operand| match operand {
            Operand::Literal(text) => Ok(text.as_bytes()),
            Operand::Field(name) => read(name),
        };
        match self {
            Self::Literal(text) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
            Self::Field(name) => Ok(Zeroizing::new(read(name)?.to_vec())),
            Self::Basic(user, password) => {
                let pair = Zeroizing::new([operand(user)?, b":", operand(password)?].concat());
                Ok(Zeroizing::new(BASE64_STANDARD.encode(&pair).into_bytes()))
            }
        }
    }
}

/// What stands between braces: `token`, or `basic(user, password)`.
fn parse_part(inside: &str, fields: &[String]) -> Result<Part, String> {
    let Some(operands) = inside.strip_prefix("basic(").and_then(|rest| rest.strip_suffix(')')) else {
        return parse_field(inside.trim(), fields).map(Part::Field);
    };
    let (user, password) =
        operands.split_once(',').ok_or("basic takes two: write {basic(user, password)}")?;
    Ok(Part::Basic(parse_operand(user.trim(), fields)?, parse_operand(password.trim(), fields)?))
}

fn parse_operand(text: &str, fields: &[String]) -> Result<Operand, String> {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(literal) if literal.contains(['"', ':']) => {
            Err("a quoted text in basic() can contain neither \" nor a colon".to_owned())
        }
        Some(literal) => Ok(Operand::Literal(literal.to_owned())),
        None => parse_field(text, fields).map(Operand::Field),
    }
}

fn parse_field(text: &str, fields: &[String]) -> Result<String, String> {
    if fields.iter().any(|field| field == text) {
        return Ok(text.to_owned());
    }
    if !is_field_name(text) {
        return Err(format!("`{text}` is neither a field nor basic(user, password): use {}", named(fields)));
    }
    let hint = did_you_mean(text, fields.iter().map(String::as_str));
    Err(format!("the credential has no field `{text}`: use {}{hint}", named(fields)))
}

fn named(fields: &[String]) -> String {
    fields.iter().map(|field| format!("{{{field}}}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, fields: &[&str]) -> Result<Template, String> {
        Template::parse(text, &fields.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn rendered(text: &str, fields: &[(&str, &str)]) -> String {
        let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        let template = parse(text, &names).unwrap();
        let value = template
            .render(|name| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_bytes()))
            .unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    }

    #[test]
    fn fields_stand_in_their_places() {
        assert_eq!(rendered("Bearer {token}", &[("token", "t0")]), "Bearer t0");
        assert_eq!(rendered("{token}", &[("token", "{x}")]), "{x}", "a credential is not parsed again");
        assert_eq!(rendered("{{{token}}}", &[("token", "t0")]), "{t0}");
        assert_eq!(rendered("k={a}, s={b}", &[("a", "1"), ("b", "2")]), "k=1, s=2");
    }

    #[test]
    fn basic_is_the_pair_of_rfc_7617() {
        let pair = [("user", "Aladdin"), ("password", "open sesame")];
        assert_eq!(rendered("Basic {basic(user, password)}", &pair), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(
            rendered(r#"{basic("x-access-token", token)}"#, &[("token", "t")]),
            "eC1hY2Nlc3MtdG9rZW46dA=="
        );
        assert_eq!(rendered(r#"{basic(token, "")}"#, &[("token", "t")]), "dDo=");
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_refused_with_what_to_write() {
        for (text, says) in [
            ("Bearer {tokn}", "the credential has no field `tokn`: use {token}; did you mean `token`?"),
            ("Bearer {secret}", "the credential has no field `secret`: use {token}"),
            ("Bearer x", "the value holds no credential: use {token}"),
            ("Bearer {token", "a brace is left open: write {field}, or {{ for a brace itself"),
            ("Bearer token}", "a brace is left open: write {field}, or {{ for a brace itself"),
            ("{basic(token)}", "basic takes two: write {basic(user, password)}"),
            ("{Token}", "`Token` is neither a field nor basic(user, password): use {token}"),
            (r#"{basic("a:b", token)}"#, "a quoted text in basic() can contain neither \" nor a colon"),
            (r#"{basic("a", "b")}"#, "the value holds no credential: use {token}"),
            ("{token}\r\nX: y", "a value cannot contain '\\r'"),
        ] {
            assert_eq!(parse(text, &["token"]).unwrap_err(), says, "{text}");
        }
    }

    #[test]
    fn a_field_that_the_account_lacks_is_named() {
        let template = parse("{basic(user, password)}", &["user", "password"]).unwrap();
        let missing = template.render(|name| (name == "user").then_some(b"u".as_slice())).unwrap_err();
        assert_eq!(missing, MissingField("password".to_owned()));
    }
}
