//! One `request` line of an operation: `PATCH /repos/{owner}/{repo}/issues/{number}`.

use std::sync::Arc;

use http::Method;

use crate::path::CanonicalPath;

/// A method and a path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLine {
    /// The method, one and exact: `HEAD` is not `GET`.
    pub method: Method,
    /// The path as it was written.
    pub template: Arc<str>,
    pub(super) segments: Vec<Segment>,
}

/// What one segment of a path must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// Exactly this, canonical.
    Literal(String),
    /// `{name}`: any one segment that is not empty.
    One,
    /// `{name...}`: all that follows, at least one segment, the first not empty.
    Rest,
}

impl RequestLine {
    /// Parses `METHOD /path`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (method, path) = text
            .split_once(' ')
            .ok_or_else(|| "write a method and a path, as in `GET /items/{id}`".to_owned())?;
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            return Err(format!("`{method}` is no method: write one in capitals, as in `GET /items/{{id}}`"));
        }
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
        if let Some(says) = never_sent(&method) {
            return Err(says.to_owned());
        }
        if path.contains(['?', '#']) {
            return Err(
                "a query does not decide which operation a request is: write the path alone".to_owned()
            );
        }
        Ok(Self { method, template: path.into(), segments: parse_path(path)? })
    }
}

/// Why the proxy sends no request with this method to a provider, if it sends none.
#[must_use]
pub fn never_sent(method: &Method) -> Option<&'static str> {
    match method.as_str() {
        "CONNECT" => Some("CONNECT opens a tunnel: name the requests inside it; a WebSocket is a GET"),
        name if *method == Method::TRACE || name.eq_ignore_ascii_case("TRACK") => {
            Some("TRACE would send the credential back, so the proxy refuses it")
        }
        _ => None,
    }
}

fn parse_path(path: &str) -> Result<Vec<Segment>, String> {
    let written: Vec<&str> = path.strip_prefix('/').ok_or("a path begins with /")?.split('/').collect();
    let mut names = Vec::new();
    let mut segments = Vec::with_capacity(written.len());
    for (index, text) in written.iter().enumerate() {
        let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            segments.push(Segment::Literal((*text).to_owned()));
            continue;
        };
        let (name, segment) = match name.strip_suffix("...") {
            Some(_) if index + 1 < written.len() => return Err(format!("`{text}` can only stand last")),
            Some(name) => (name, Segment::Rest),
            None => (name, Segment::One),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("`{text}` has no name of letters, digits and _"));
        }
        if names.contains(&name) {
            return Err(format!("`{{{name}}}` stands twice: give each its own name"));
        }
        names.push(name);
        segments.push(segment);
    }
    check_literals(&segments)?;
    Ok(segments)
}

/// Literals are compared with canonical paths, so one that is not canonical would never match.
fn check_literals(segments: &[Segment]) -> Result<(), String> {
    let path = segments.iter().fold(String::new(), |path, segment| match segment {
        Segment::Literal(text) => path + "/" + text,
        Segment::One | Segment::Rest => path + "/x",
    });
    if let Some(text) = segments.iter().find_map(|segment| match segment {
        Segment::Literal(text) if text.contains(['{', '}', '*']) => Some(text),
        _ => None,
    }) {
        return Err(format!(
            "`{text}`: a placeholder is a whole segment, {{name}} or at the end {{name...}}"
        ));
    }
    match CanonicalPath::parse(&path) {
        Ok(canonical) if canonical.as_str() == path => Ok(()),
        Ok(canonical) => Err(format!("write the path in its canonical spelling, like {canonical}")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_could_never_match_or_match_more_than_they_say_are_refused() {
        for (line, says) in [
            ("/items", "write a method and a path, as in `GET /items/{id}`"),
            ("get /items", "`get` is no method: write one in capitals, as in `GET /items/{id}`"),
            ("CONNECT /items", "CONNECT opens a tunnel: name the requests inside it; a WebSocket is a GET"),
            ("TRACE /items", "TRACE would send the credential back, so the proxy refuses it"),
            ("TRACK /items", "TRACE would send the credential back, so the proxy refuses it"),
            ("* /items", "`*` is no method: write one in capitals, as in `GET /items/{id}`"),
            ("GET items", "a path begins with /"),
            ("GET /items?x=y", "a query does not decide which operation a request is: write the path alone"),
            ("GET /{a}/{a}", "`{a}` stands twice: give each its own name"),
            ("GET /{a...}/b", "`{a...}` can only stand last"),
            ("GET /{}", "`{}` has no name of letters, digits and _"),
            ("GET /a{b}", "`a{b}`: a placeholder is a whole segment, {name} or at the end {name...}"),
            ("GET /a/*", "`*`: a placeholder is a whole segment, {name} or at the end {name...}"),
            ("GET /a/../b", "the path has a . or .. segment"),
            ("GET /a//b", "the path has an empty segment"),
            ("GET /%61", "write the path in its canonical spelling, like /a"),
            ("GET  /a", "a path begins with /"),
        ] {
            assert_eq!(RequestLine::parse(line).unwrap_err(), says, "{line}");
        }
    }
}
