//! A request for tokens: made by the `oauth2` crate as RFC 6749 says, rewritten as the provider wants it.

use std::{cell::RefCell, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, Method, header};
use oauth2::{
    AuthType, AuthorizationCode, ClientId, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    PkceCodeVerifier, RedirectUrl, RefreshToken, TokenUrl,
    basic::BasicClient,
    url::form_urlencoded::{self, Serializer},
};
use zeroize::Zeroizing;

use super::{BodyStyle, NotSent};
use crate::{
    fetch::{Question, Url},
    secret::Secret,
};

/// The crate wants a URL to write into its requests; ours is put there by the transport.
const NOWHERE: &str = "https://token.invalid/";

type Client = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// The parameters of a request, in the order in which they are sent, each name once.
#[derive(Default)]
pub(super) struct Params(Vec<(String, Zeroizing<String>)>);

impl Params {
    /// Of a grant that the crate does not have.
    pub(super) fn grant(grant_type: &str) -> Self {
        let mut params = Self::default();
        params.put("grant_type", grant_type);
        params
    }

    /// RFC 6749 §4.1.3, RFC 7636 §4.5.
    pub(super) fn code(
        code: &Secret,
        verifier: Option<&Secret>,
        redirect_url: &str,
    ) -> Result<Self, NotSent> {
        let redirect = RedirectUrl::new(redirect_url.to_owned()).map_err(|_| NotSent::Request)?;
        let client = client()?.set_redirect_uri(redirect);
        let mut request = client.exchange_code(AuthorizationCode::new(text(code)?.to_string()));
        if let Some(verifier) = verifier {
            request = request.set_pkce_verifier(PkceCodeVerifier::new(text(verifier)?.to_string()));
        }
        made(|keep| drop(request.request(&keep)))
    }

    /// RFC 6749 §6.
    pub(super) fn refresh(token: &Secret) -> Result<Self, NotSent> {
        let client = client()?;
        let token = RefreshToken::new(text(token)?.to_string());
        made(|keep| drop(client.exchange_refresh_token(&token).request(&keep)))
    }

    /// RFC 6749 §4.4.
    pub(super) fn client_credentials() -> Result<Self, NotSent> {
        let client = client()?;
        made(|keep| drop(client.exchange_client_credentials().request(&keep)))
    }

    /// Adds a parameter, or replaces the one of that name.
    pub(super) fn put(&mut self, name: &str, value: &str) {
        let value = Zeroizing::new(value.to_owned());
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// [`Params::put`] of a secret.
    pub(super) fn put_secret(&mut self, name: &str, value: &Secret) -> Result<(), NotSent> {
        self.put(name, text(value)?);
        Ok(())
    }

    /// The request, as the provider wants it written. The URL is where it then goes.
    pub(super) fn written(
        &self,
        method: Method,
        url: &Url,
        style: BodyStyle,
        mut headers: HeaderMap,
    ) -> Result<(Url, Question), NotSent> {
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let (url, body, kind) = match style {
            BodyStyle::Form => (url.clone(), self.form(), Some("application/x-www-form-urlencoded")),
            BodyStyle::Json => (url.clone(), self.json()?, Some("application/json")),
            BodyStyle::Query => {
                let query = self.form();
                let query = std::str::from_utf8(&query).map_err(|_| NotSent::Request)?;
                (url.with_query(query).map_err(|_| NotSent::Request)?, Zeroizing::default(), None)
            }
        };
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Ok((url, Question { method, headers, body }))
    }

    fn form(&self) -> Zeroizing<Vec<u8>> {
        // Room for the worst case, so that the text does not move while it grows.
        let room = self.0.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
        let mut form = Serializer::new(String::with_capacity(room));
        form.extend_pairs(self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Zeroizing::new(form.finish().into_bytes())
    }

    fn json(&self) -> Result<Zeroizing<Vec<u8>>, NotSent> {
        let room = self.0.iter().map(|(name, value)| 6 * (name.len() + value.len()) + 6).sum::<usize>();
        let mut body = Zeroizing::new(Vec::with_capacity(room + 2));
        let mut serializer = serde_json::Serializer::new(&mut *body);
        let pairs = self.0.iter().map(|(name, value)| (name, value.as_str()));
        serde::Serializer::collect_map(&mut serializer, pairs).map_err(|_| NotSent::Request)?;
        Ok(body)
    }
}

/// `Basic` with both parts as they are given.
pub(super) fn basic(user: &[u8], password: &[u8]) -> Result<HeaderValue, NotSent> {
    let pair = Zeroizing::new([user, b":", password].concat());
    let value = Zeroizing::new(format!("Basic {}", *Zeroizing::new(BASE64_STANDARD.encode(&pair))));
    sensitive(value.as_bytes())
}

/// `Bearer` and the token.
pub(super) fn bearer(token: &Secret) -> Result<HeaderValue, NotSent> {
    sensitive(Zeroizing::new(["Bearer ", text(token)?].concat()).as_bytes())
}

pub(super) fn sensitive(bytes: &[u8]) -> Result<HeaderValue, NotSent> {
    let mut value = HeaderValue::from_bytes(bytes).map_err(|_| NotSent::Request)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Encoded as RFC 6749 §2.3.1 wants both parts of `Basic`.
pub(super) fn form_encoded(text: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(form_urlencoded::byte_serialize(text).collect())
}

/// What is sent in a request is text.
#[expect(clippy::disallowed_methods, reason = "it is sent to a token endpoint")]
pub(super) fn text(secret: &Secret) -> Result<&str, NotSent> {
    std::str::from_utf8(secret.expose()).map_err(|_| NotSent::Request)
}

/// Without an id: how the app says who it is, is the dialect's.
fn client() -> Result<Client, NotSent> {
    let url = TokenUrl::new(NOWHERE.to_owned()).map_err(|_| NotSent::Request)?;
    Ok(BasicClient::new(ClientId::new(String::new())).set_auth_type(AuthType::RequestBody).set_token_uri(url))
}

/// What the crate would send. It gives requests to nobody but its transport, so this one keeps them.
fn made(ask: impl FnOnce(&dyn Fn(HttpRequest) -> Result<HttpResponse, Kept>)) -> Result<Params, NotSent> {
    let kept = RefCell::new(None);
    ask(&|request| {
        kept.replace(Some(Zeroizing::new(request.into_body())));
        Err(Kept)
    });
    let body = kept.into_inner().ok_or(NotSent::Request)?;
    let pairs = form_urlencoded::parse(&body).filter(|(name, _)| name != "client_id");
    Ok(Params(pairs.map(|(name, value)| (name.into_owned(), Zeroizing::new(value.into_owned()))).collect()))
}

/// Says to the crate that there is no answer.
#[derive(Debug)]
struct Kept;

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kept")
    }
}

impl std::error::Error for Kept {}
