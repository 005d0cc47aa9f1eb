//! URLs and parameters with `{placeholders}`, which an account's metadata and the app fill.

use std::fmt;

use serde::Deserialize;

use crate::{
    braces::{self, Piece},
    document::{Place, Problem},
    fetch::{self, Url},
    host::{Authority, Host, HostPattern},
};

/// What fills placeholders: an account's metadata, `client_id`, `redirect_uri`.
pub type Values<'a> = &'a (dyn Fn(&str) -> Option<&'a str> + Send + Sync);

/// Why a template cannot be filled. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// A placeholder that the account's metadata does not fill.
    #[error("the account does not say what {{{0}}} is: connect it with --meta {0}=...")]
    Missing(String),
    /// A value that would make another URL of it.
    #[error("what the account says of {{{0}}} cannot be part of a URL")]
    Unfit(String),
}

/// An absolute URL with placeholders: `{name}` as the first labels of its host, and anywhere in path and query.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct UrlTemplate {
    cleartext: bool,
    host: HostPattern,
    rest: TextTemplate,
}

/// A text with placeholders. A brace itself is written twice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TextTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(String),
}

impl TextTemplate {
    /// The text with `value` in each placeholder's place.
    ///
    /// # Errors
    /// [`FillError::Missing`].
    pub fn fill(&self, values: Values<'_>) -> Result<String, FillError> {
        self.each(|name| values(name).map(str::to_owned).ok_or_else(|| FillError::Missing(name.to_owned())))
    }

    /// The names in braces.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Field(name) => Some(&**name),
        })
    }

    fn each(&self, value: impl Fn(&str) -> Result<String, FillError>) -> Result<String, FillError> {
        self.0.iter().try_fold(String::new(), |mut text, part| {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Field(name) => text.push_str(&value(name)?),
            }
            Ok(text)
        })
    }
}

impl TryFrom<String> for TextTemplate {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let pieces =
            braces::split(&text).ok_or("a brace is left open: write {name}, or {{ for a brace itself")?;
        pieces.into_iter().map(part).collect::<Result<_, _>>().map(Self)
    }
}

fn part(piece: Piece<'_>) -> Result<Part, String> {
    match piece {
        Piece::Literal(text) => Ok(Part::Literal(text)),
        Piece::Inside(name) if is_placeholder(name) => Ok(Part::Field(name.to_owned())),
        Piece::Inside(name) => {
            Err(format!("`{{{name}}}` is no placeholder: use lower-case letters, digits and _"))
        }
    }
}

fn is_placeholder(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl UrlTemplate {
    /// The URL for these values. In the host a placeholder stands for labels; where nothing fills it and there is an
    /// `instance_url` whose host fits, that is the host. Elsewhere it stands for unreserved characters.
    ///
    /// # Errors
    /// [`FillError`].
    pub fn fill(&self, values: Values<'_>) -> Result<Url, FillError> {
        let text = self.fill_text(values)?;
        Url::parse(&text).map_err(|_: fetch::Error| FillError::Unfit("the URL".to_owned()))
    }

    /// The same as text, also with what stands after a `#`: for a browser.
    ///
    /// # Errors
    /// [`FillError`].
    pub fn fill_text(&self, values: Values<'_>) -> Result<String, FillError> {
        let host = match (self.host.exact(), self.host.placeholder()) {
            (Some(host), _) => host.clone(),
            (None, placeholder) => self.open_host(placeholder.unwrap_or("host"), values)?,
        };
        let rest = self.rest.each(|name| {
            let value = values(name).ok_or_else(|| FillError::Missing(name.to_owned()))?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
            let fits = !value.is_empty() && value.bytes().all(plain) && value.bytes().any(|b| b != b'.');
            fits.then(|| value.to_owned()).ok_or_else(|| FillError::Unfit(name.to_owned()))
        })?;
        let scheme = if self.cleartext { "http" } else { "https" };
        let port = self.host.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(format!("{scheme}://{host}{port}{rest}"))
    }

    fn open_host(&self, placeholder: &str, values: Values<'_>) -> Result<Host, FillError> {
        if let Some(value) = values(placeholder) {
            return self.host.fill(value).ok_or_else(|| FillError::Unfit(placeholder.to_owned()));
        }
        let instance = values("instance_url").ok_or_else(|| FillError::Missing(placeholder.to_owned()))?;
        let authority = instance.split_once("://").map_or(instance, |(_, rest)| rest);
        Authority::parse(authority.split(['/', '?', '#']).next().unwrap_or_default())
            .ok()
            .map(|authority| authority.host)
            .filter(|host| self.host.matches(host).is_some())
            .ok_or_else(|| FillError::Unfit("instance_url".to_owned()))
    }

    /// Adds a problem where the URL is not `https://`; `cleartext` lets it be `http://`.
    pub fn check(&self, cleartext: bool, at: &Place, problems: &mut Vec<Problem>) {
        if self.cleartext && !cleartext {
            problems.push(at.problem("begin the URL with https://"));
        }
    }
}

impl TryFrom<String> for UrlTemplate {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (scheme, after) = text.split_once("://").ok_or("begin the URL with https://")?;
        let cleartext = match scheme {
            "https" => false,
            "http" => true,
            _ => return Err("begin the URL with https://".to_owned()),
        };
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (host, rest) = after.split_at(end);
        let host = HostPattern::parse(host).map_err(|error| error.to_string())?;
        if host.exact().is_none() && host.placeholder().is_none() {
            return Err("a URL's host has no `*`: name it, or write {name} for its first labels".to_owned());
        }
        let rest = TextTemplate::try_from(rest.to_owned())?;
        Ok(Self { cleartext, host, rest })
    }
}

impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.cleartext { "http" } else { "https" };
        write!(f, "{scheme}://{}", self.host)?;
        self.rest.0.iter().try_for_each(|part| match part {
            Part::Literal(literal) => f.write_str(literal),
            Part::Field(name) => write!(f, "{{{name}}}"),
        })
    }
}
