//! Where a provider departs from the standards, as data: `spec.auth.dialect` of a connector.
//!
//! Every key left out means what RFC 6749 says. `docs/refresh.md` has the keys axis by axis.

use std::{collections::BTreeMap, fmt, time::Duration};

use http::HeaderName;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::{
    failure::Meaning,
    template::{TextTemplate, UrlTemplate},
};
use crate::{
    document::{Place, Problem},
    host::HostPattern,
};

/// The shortest and the longest life that an access token is believed to have: what lies outside is a slip of unit.
pub const SHORTEST_LIFE: Duration = Duration::from_secs(30);
/// See [`SHORTEST_LIFE`].
pub const LONGEST_LIFE: Duration = Duration::from_hours(400 * 24);

/// Where a provider departs from the standards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dialect {
    /// What makes an answer a success (D1).
    pub success: Success,
    /// Where an error's code is; `error` if left out (D2).
    pub error_at: Option<At>,
    /// Where its description is; `error_description` if left out. Read for [`Dialect::errors`], kept nowhere.
    pub error_description_at: Option<At>,
    /// What the provider's own errors mean, before what the standards say: by code, or by `code: text` where the
    /// description contains the text (D2, D3).
    pub errors: BTreeMap<String, Meaning>,
    /// Where the access token is; `access_token` if left out. The rest of an answer is read beside it (D5).
    pub token_at: Option<At>,
    /// Where it is in the answer to a refresh; `token_at` if left out.
    pub refreshed_token_at: Option<At>,
    /// How long an access token lives (D6).
    pub expiry: Expiry,
    /// Its life where the answer does not say.
    pub lifetime: Option<Span>,
    /// The answer's field with the refresh token's life in seconds; the known ones if left out (D7).
    pub refresh_expiry: Option<String>,
    /// What stands between scopes that we ask for; a space if left out (D8).
    pub scope_separator: Option<String>,
    /// What stands between scopes in an answer; `scope_separator` if left out.
    pub response_scope_separator: Option<String>,
    /// The field with an answer's scopes, beside the token: a text, or a list of texts; `scope` if left out.
    pub scope_at: Option<String>,
    /// How the app says who it is (D9).
    pub client_auth: ClientAuthStyle,
    /// How a request is written (D10).
    pub body: BodyStyle,
    /// Where tokens are refreshed, if not where they are obtained (D11).
    pub refresh_url: Option<UrlTemplate>,
    /// What a refresh carries besides (D12).
    pub refresh_extra: BTreeMap<String, TextTemplate>,
    /// Whether a refresh names the scopes again (D12).
    pub refresh_scopes: bool,
    /// What every request for a token carries besides.
    pub token_extra: BTreeMap<String, TextTemplate>,
    /// `grant_type` of client credentials, where it is not that (D12).
    pub client_credentials_grant: Option<String>,
    /// What the authorization URL carries besides (D13).
    pub authorize_extra: BTreeMap<String, TextTemplate>,
    /// The authorization URL's parameter for scopes; `scope` if left out (D13).
    pub scope_parameter: Option<String>,
    /// Scopes without which there is no refresh token (D14).
    pub offline_scopes: Vec<String>,
    /// RFC 8707: the resource that tokens are for.
    pub resource: Option<String>,
    /// RFC 9207: what `iss` of a callback must be. Where it is left out, none is looked for.
    pub issuer: Option<String>,
    /// Where an answer names the host to use from then on (D15).
    pub host_from: Option<At>,
    /// What that host must match.
    pub host_must_match: Vec<Pattern>,
    /// Where an answer names whose account it is: a field, or a claim such as `id_token.sub`.
    pub subject_from: Option<At>,
    /// Scopes without which an answer does not say it, such as `openid`.
    pub subject_scopes: Vec<String>,
    /// How tokens are revoked (D17).
    pub revocation: Revocation,
    /// The header in which [`Revocation::DeleteBearer`] and [`Revocation::PostBearer`] put the bare token, where it
    /// is not `Authorization`.
    pub revocation_header: Option<Header>,
    /// What a revocation ends (D18).
    pub revocation_reach: Reach,
    /// Where a token can be asked about (RFC 7662).
    pub introspect_url: Option<UrlTemplate>,
    /// What a refresh does to the tokens before it.
    pub rotation: Rotation,
    /// How long an unused refresh token lives.
    pub idle_ttl: Option<Span>,
    /// How long a consent lasts, whatever is done.
    pub hard_ttl: Option<Span>,
    /// How an assertion is made, for `type: jwt_bearer` (RFC 7523).
    pub assertion: AssertionStyle,
    /// How one token is exchanged for another, for `type: token_exchange`.
    pub exchange: ExchangeStyle,
}

/// What makes an answer a success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Success {
    /// A status from 200 to 299.
    #[default]
    Status,
    /// That, and `ok` is `true`.
    OkTrue,
    /// That, and there is no `error`.
    NoErrorKey,
}

/// How long an access token lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// `expires_in`, in seconds. Where an answer lacks it: `lifetime`, or the token's own `exp` if it is a JWT.
    #[default]
    ExpiresIn,
    /// `expires_in`, in milliseconds.
    ExpiresInMs,
    /// `expires_at`: Unix seconds or milliseconds, or a date.
    ExpiresAt,
    /// `exp` of the access token, a JWT.
    Jwt,
    /// It is asked for at `introspect_url` (RFC 7662).
    Introspection,
    /// It does not end by itself.
    None,
}

/// How the app says who it is. Exactly one form is sent: some providers refuse two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthStyle {
    /// HTTP Basic, both parts form-encoded first (RFC 6749 §2.3.1).
    #[default]
    Basic,
    /// HTTP Basic as RFC 7617 has it: for providers that do not decode the parts.
    BasicPlain,
    /// HTTP Basic with the secret as user and no password.
    BasicSecret,
    /// `client_id` and `client_secret` among the parameters.
    Body,
    /// A JWT, signed by the app's private key (RFC 7523 §2.2).
    PrivateKeyJwt,
    /// `client_id` alone: a public client.
    None,
}

/// How a request is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyStyle {
    /// `application/x-www-form-urlencoded`.
    #[default]
    Form,
    /// A JSON object.
    Json,
    /// In the URL's query, with an empty body.
    Query,
}

/// How tokens are revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// RFC 7009, at `revoke_url`; there is none where the connector has no `revoke_url`.
    #[default]
    Rfc7009,
    /// `DELETE revoke_url`, the app by Basic, the token in a JSON body.
    DeleteBasic,
    /// `DELETE revoke_url` with the access token itself.
    DeleteBearer,
    /// `POST revoke_url` with the access token itself and no body.
    PostBearer,
    /// The provider has none: keybearer stops injecting, and that is all.
    None,
}

/// What a revocation ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The token named, and what was made from it.
    #[default]
    Token,
    /// The refresh token; access tokens live on until they expire.
    RefreshToken,
    /// All that this user ever consented to for this app: never revoke a token that was merely superseded.
    Grant,
}

/// What a refresh does to the tokens before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// Whether an answer brings another refresh token.
    pub rotates: Rotates,
    /// How long the old refresh token can be used again.
    #[serde(with = "crate::duration")]
    pub grace: Duration,
    /// Whether the old access token dies with it.
    pub old_access_dies: bool,
}

/// Whether an answer to a refresh brings another refresh token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotates {
    /// The old one stays.
    #[default]
    Never,
    /// Always, and the old one is spent.
    Always,
    /// A switch of the app decides: be ready for it.
    AppSetting,
}

/// How an assertion is made (RFC 7523).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AssertionStyle {
    /// `aud`; the token URL if left out.
    pub audience: Option<TextTemplate>,
    /// Where the scopes are: with the request, or as a claim of the assertion.
    pub scopes: AssertedScopes,
}

/// Where the scopes of an assertion's grant are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertedScopes {
    /// The request's parameter `scope`.
    #[default]
    Parameter,
    /// The assertion's claim `scope` (Google).
    Claim,
    /// None are sent (Salesforce: those of the app).
    Omitted,
}

/// How one token is exchanged for another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeStyle {
    /// RFC 8693.
    #[default]
    Rfc8693,
    /// Entra's on-behalf-of: the JWT bearer grant with `requested_token_use`.
    OnBehalfOf,
}

/// The way to a value in an answer: field names and indexes with dots between, as in `authed_user.access_token`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct At(Vec<String>);

impl At {
    /// A field of the whole answer.
    pub(super) fn field(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// The value there.
    pub(super) fn find<'a>(&self, answer: &'a Value) -> Option<&'a Value> {
        step(&self.0, answer)
    }

    /// What the last step is taken from, and the last step.
    pub(super) fn beside<'a, 's>(&'s self, answer: &'a Value) -> Option<(&'a Value, &'s str)> {
        let (last, before) = self.0.split_last()?;
        Some((step(before, answer)?, last))
    }

    /// The token's field and the way in its claims, where it leads into a JWT: `id_token.sub`.
    pub(super) fn claim_of(&self) -> Option<(&str, Self)> {
        match self.0.split_first() {
            Some((token, claim)) if token == "id_token" && !claim.is_empty() => {
                Some((token, Self(claim.to_vec())))
            }
            _ => None,
        }
    }
}

fn step<'a>(steps: &[String], answer: &'a Value) -> Option<&'a Value> {
    steps.iter().try_fold(answer, |at, step| match at {
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

impl TryFrom<String> for At {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let steps: Vec<String> = text.split('.').map(str::to_owned).collect();
        if steps.iter().any(String::is_empty) {
            return Err(format!("`{text}` is no way to a field; write it as in authed_user.access_token"));
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// A duration as a connector writes it: `90d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "crate::duration")] pub Duration);

/// A host pattern as a connector writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(pub HostPattern);

impl TryFrom<String> for Pattern {
    type Error = crate::host::PatternError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        HostPattern::parse(&text).map(Self)
    }
}

/// A header's name as a connector writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(pub HeaderName);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        HeaderName::try_from(&text)
            .map(Self)
            .map_err(|_| D::Error::custom(format!("`{text}` is no header name")))
    }
}

impl Dialect {
    /// Adds what does not go together. `cleartext` lets URLs begin with `http://`.
    pub fn check(&self, cleartext: bool, at: &Place, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, says: &str| problems.push(at.key(key).problem(says));
        if self.expiry == Expiry::Introspection && self.introspect_url.is_none() {
            problem("expiry", "say where to ask: introspect_url");
        }
        if self.expiry == Expiry::None && self.lifetime.is_some() {
            problem("lifetime", "tokens that never expire have no lifetime: leave one of the two out");
        }
        if self.host_from.is_some() && self.host_must_match.is_empty() {
            problem(
                "host_must_match",
                "a host from an answer gets the credential: say what it must match, as in [\"*.example.com\"]",
            );
        }
        if self.host_from.is_none() && !self.host_must_match.is_empty() {
            problem("host_from", "say where the host is found, or leave host_must_match out");
        }
        if self.subject_from.is_none() && !self.subject_scopes.is_empty() {
            problem("subject_from", "say where the subject is found, or leave subject_scopes out");
        }
        if self.rotation.rotates == Rotates::Never && self.rotation.grace != Duration::ZERO {
            problem("rotation", "a refresh token that does not rotate has no grace: leave grace out");
        }
        let bare = matches!(self.revocation, Revocation::DeleteBearer | Revocation::PostBearer);
        if self.revocation_header.is_some() && !bare {
            problem("revocation_header", "only delete_bearer and post_bearer send the token in a header");
        }
        if self.lifetime.is_some_and(|life| !(SHORTEST_LIFE..=LONGEST_LIFE).contains(&life.0)) {
            problem("lifetime", "a token lives from 30 s to 400 days");
        }
        for separator in [&self.scope_separator, &self.response_scope_separator].into_iter().flatten() {
            if separator.is_empty() {
                problem("scope_separator", "write what stands between two scopes, as in \",\"");
            }
        }
        for (key, url) in [("refresh_url", &self.refresh_url), ("introspect_url", &self.introspect_url)] {
            if let Some(url) = url {
                url.check(cleartext, &at.key(key), problems);
            }
        }
    }

    /// What stands between scopes that we ask for.
    #[must_use]
    pub fn separator(&self) -> &str {
        self.scope_separator.as_deref().unwrap_or(" ")
    }
}
