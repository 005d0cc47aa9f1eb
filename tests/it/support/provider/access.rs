//! Who may come in: each endpoint takes its credential where the real provider takes it, and nowhere else.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use super::Shared;
use crate::support::server::Peer;

/// Every answer to an authenticated request says whose credential it was.
pub(crate) static TENANT: HeaderName = HeaderName::from_static("x-provider-tenant");

/// The tenant whose credential a request carried.
#[derive(Clone, Debug)]
pub(crate) struct Tenant(pub(crate) String);

/// Which secret belongs to which tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials(BTreeMap<String, String>);

impl<S: Into<String>, T: Into<String>> FromIterator<(S, T)> for Credentials {
    fn from_iter<I: IntoIterator<Item = (S, T)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(secret, tenant)| (secret.into(), tenant.into())).collect())
    }
}

impl Credentials {
    fn tenant(&self, uri: &Uri, headers: &HeaderMap) -> Option<String> {
        match Carrier::of(uri.path()) {
            Carrier::Bearer => {
                only(headers, &header::AUTHORIZATION)?.strip_prefix("Bearer ").and_then(|s| self.0.get(s))
            }
            Carrier::KeyOrBearer => self.0.get(key_or_bearer(headers)?),
            Carrier::Basic => self.0.get(&password(only(headers, &header::AUTHORIZATION)?)?),
            Carrier::Anywhere => self.anywhere(uri, headers),
        }
        .cloned()
    }

    fn anywhere(&self, uri: &Uri, headers: &HeaderMap) -> Option<&String> {
        let query = uri.query().unwrap_or_default();
        let basic = only(headers, &header::AUTHORIZATION).and_then(password);
        self.0.iter().find_map(|(secret, tenant)| {
            let found = query.contains(secret)
                || basic.as_ref() == Some(secret)
                || headers.values().any(|value| value.to_str().is_ok_and(|value| value.contains(secret)));
            found.then_some(tenant)
        })
    }
}

/// Where an endpoint looks for its credential.
enum Carrier {
    /// `Authorization: Bearer`, as `OpenAI`, GitHub's REST API and the endpoints of our own do.
    Bearer,
    /// `x-api-key` as Anthropic documents, or `Authorization: Bearer` as its Python SDK sends since 2.x; never both.
    KeyOrBearer,
    /// The password of `Authorization: Basic`, as git over HTTPS does.
    Basic,
    /// Any header or query parameter: `/anything`, for the tests of injection.
    Anywhere,
}

impl Carrier {
    fn of(path: &str) -> Self {
        match path {
            "/v1/messages" => Self::KeyOrBearer,
            "/anything" => Self::Anywhere,
            _ if path.contains(".git/") => Self::Basic,
            _ => Self::Bearer,
        }
    }
}

/// Notes the request, then lets it in or answers 401. A registry's files are for everybody.
pub(super) async fn admit(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().expect("the accept loop names the peer");
    if let Some(file) = shared.registries.answer(&request) {
        shared.journal.note(request, peer, None);
        return file;
    }
    let tenant = shared.credentials.tenant(request.uri(), request.headers());
    let Some(tenant) = tenant else {
        return refusal(&shared.journal.note(request, peer, None));
    };
    request.extensions_mut().insert(Tenant(tenant.clone()));
    let value = HeaderValue::from_str(&tenant).expect("tenants of tests are plain words");
    let mut answer = next.run(shared.journal.note(request, peer, Some(tenant))).await;
    answer.headers_mut().insert(TENANT.clone(), value);
    answer
}

fn refusal(request: &Request<Body>) -> Response {
    let challenge = if matches!(Carrier::of(request.uri().path()), Carrier::Basic) {
        "Basic realm=\"provider\""
    } else {
        "Bearer realm=\"provider\""
    };
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, challenge)],
        "the provider knows no such credential\n",
    )
        .into_response()
}

/// The header's value if there is exactly one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

fn key_or_bearer(headers: &HeaderMap) -> Option<&str> {
    let key = HeaderName::from_static("x-api-key");
    match (headers.contains_key(&key), headers.contains_key(header::AUTHORIZATION)) {
        (true, false) => only(headers, &key),
        (false, true) => only(headers, &header::AUTHORIZATION)?.strip_prefix("Bearer "),
        _ => None,
    }
}

fn password(authorization: &str) -> Option<String> {
    let encoded = authorization.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}
