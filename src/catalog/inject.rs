//! Where a connector's credential goes, and what the agent may not put there or elsewhere.

use http::{HeaderName, header};

use super::{
    auth::{Auth, AuthType},
    spec::{InjectSpec, StripSpec},
    template::Template,
};
use crate::document::{Place, Problem};

/// Where a credential goes, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Injection {
    /// Into a header.
    Header(HeaderName, Template),
    /// Into a query parameter.
    Query(String, Template),
}

/// What a connector has removed from an agent's request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strip {
    /// Headers.
    pub headers: Vec<HeaderName>,
    /// Query parameters. Compare without regard to case: some providers do.
    pub query: Vec<String>,
    /// Parameters of urlencoded bodies, likewise.
    pub form: Vec<String>,
}

pub(super) fn compile_inject(
    specs: &[InjectSpec],
    auth: &Auth,
    at: &Place,
    problems: &mut Vec<Problem>,
) -> Vec<Injection> {
    let at = at.key("inject");
    match (auth.kind, specs.is_empty()) {
        (AuthType::None, false) => {
            problems.push(at.problem("`auth: {type: none}` has no credential to inject"));
            return Vec::new();
        }
        // Signatures are made over the request, not put into it.
        (AuthType::None | AuthType::AwsSigv4, true) | (_, false) => {}
        (_, true) => problems.push(at.problem(
            "the credential goes nowhere: add a line such as {header: Authorization, value: \"Bearer {token}\"}",
        )),
    }
    let mut injections: Vec<Injection> = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let at = at.index(index);
        match Injection::compile(spec, &auth.fields) {
            Ok(injection) if injections.iter().any(|other| other.same_place(&injection)) => {
                problems.push(at.problem("the same place is injected twice"));
            }
            Ok(injection) => injections.push(injection),
            Err((key, says)) => problems.push(at.key(key).problem(says)),
        }
    }
    injections
}

impl Injection {
    fn compile(spec: &InjectSpec, fields: &[String]) -> Result<Self, (&'static str, String)> {
        let value = || Template::parse(&spec.value, fields).map_err(|says| ("value", says));
        match (&spec.header, &spec.query) {
            (Some(name), None) => {
                let name = header_name(name).map_err(|says| ("header", says))?;
                Ok(Self::Header(name, value()?))
            }
            (None, Some(name)) if name.is_empty() => Err(("query", "name the parameter".to_owned())),
            (None, Some(name)) => Ok(Self::Query(name.clone(), value()?)),
            _ => Err(("value", "say where it goes: either header or query".to_owned())),
        }
    }

    fn same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header(one, _), Self::Header(other, _)) => one == other,
            (Self::Query(one, _), Self::Query(other, _)) => one.eq_ignore_ascii_case(other),
            _ => false,
        }
    }
}

/// A header that may carry a credential or be removed: none that frames or routes the message (RFC 9110 §7.6.1).
fn header_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::try_from(text).map_err(|_| format!("`{text}` is no header name"))?;
    let framing = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
    ];
    if text.contains('*') {
        return Err(format!("`{text}`: a * is no pattern here and stands for itself: write each name out"));
    }
    if framing.contains(&name) {
        return Err(format!("{name} frames or routes the message: the proxy alone writes it"));
    }
    Ok(name)
}

/// A parameter that may be removed.
fn parameter_name(text: &str) -> Result<(), String> {
    match text {
        "" => Err("name the parameter".to_owned()),
        text if text.contains('*') => {
            Err(format!("`{text}`: a * is no pattern here and stands for itself: write each name out"))
        }
        _ => Ok(()),
    }
}

/// Where a signature of the agent's own could stand, and the token that belongs to it.
const SIGNATURE_HEADERS: [&str; 4] =
    ["x-amz-date", "x-amz-security-token", "x-amz-s3session-token", "x-amz-region-set"];
/// The same in a presigned URL, of Signature Version 4 and of the one before it.
const SIGNATURE_QUERY: [&str; 13] = [
    "X-Amz-Algorithm",
    "X-Amz-Content-Sha256",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Region-Set",
    "X-Amz-Security-Token",
    "X-Amz-S3session-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
    "AWSAccessKeyId",
    "Signature",
    "Expires",
];

impl Strip {
    pub(super) fn compile(
        spec: &StripSpec,
        inject: &[Injection],
        auth: &Auth,
        at: &Place,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut strip = Self { query: spec.query.clone(), form: spec.form.clone(), ..Self::default() };
        if auth.kind == AuthType::AwsSigv4 {
            strip.headers.extend(SIGNATURE_HEADERS.map(HeaderName::from_static));
            strip.query.extend(SIGNATURE_QUERY.map(str::to_owned));
        }
        for (index, text) in spec.headers.iter().enumerate() {
            match header_name(text) {
                Ok(name) => strip.headers.push(name),
                Err(says) => problems.push(at.key("headers").index(index).problem(says)),
            }
        }
        for (key, names) in [("query", &spec.query), ("form", &spec.form)] {
            for (index, name) in names.iter().enumerate() {
                if let Err(says) = parameter_name(name) {
                    problems.push(at.key(key).index(index).problem(says));
                }
            }
        }
        for injection in inject {
            match injection {
                Injection::Header(name, _) if !strip.headers.contains(name) => {
                    strip.headers.push(name.clone());
                }
                Injection::Query(name, _) if !strip.query.contains(name) => strip.query.push(name.clone()),
                Injection::Header(..) | Injection::Query(..) => {}
            }
        }
        strip
    }
}
