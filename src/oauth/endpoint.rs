//! What can be asked of a provider's authorization server.

use std::{collections::BTreeMap, fmt, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, header};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    App, AssertedScopes, BodyStyle, ClientAuth, ClientAuthStyle, Dialect, ExchangeStyle, Failure, FillError,
    Grant, NotSent, Provider, RawAnswer, Revocation, TextTemplate, Transport, Values,
    answer::Introspection,
    assertion::{self, Asserter},
    request::{Params, basic, bearer, form_encoded, sensitive, text},
};
use crate::{
    fetch::{Question, Url},
    secret::Secret,
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A provider's authorization server, for one account: its URLs are filled and the app is known.
///
/// Each call makes exactly one request; nothing is ever repeated, and no redirect is followed.
#[derive(Clone)]
pub struct TokenEndpoint {
    transport: Transport,
    provider: Arc<Provider>,
    app: Arc<App>,
    token: Url,
    refresh: Filled<Url>,
    revoke: Option<Filled<Url>>,
    introspect: Option<Filled<Url>>,
    token_extra: Filled<Extra>,
    refresh_extra: Filled<Extra>,
    audience: Filled<String>,
}

type Filled<T> = Result<T, FillError>;
type Extra = Vec<(String, String)>;

/// Which kind of token is to be revoked (RFC 7009 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// An access token.
    AccessToken,
    /// A refresh token.
    RefreshToken,
}

/// A token for another one (RFC 8693 §2.1).
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Whom the new token is about.
    pub subject: TypedToken,
    /// Who acts for them.
    pub actor: Option<TypedToken>,
    /// Where the new one is for.
    pub audience: Option<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
}

/// A token and what it is, as a URN of RFC 8693 §3.
#[derive(Debug, Clone)]
pub struct TypedToken {
    /// The token.
    pub token: Secret,
    /// Such as `urn:ietf:params:oauth:token-type:jwt`.
    pub r#type: String,
}

/// What an installation token of a GitHub App is narrowed to; all that the installation has, where left empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// Names of repositories.
    pub repositories: Vec<String>,
    /// Permissions, as in `contents: read`.
    pub permissions: Vec<(String, String)>,
}

impl TokenEndpoint {
    /// The endpoint for an account whose metadata is `values`; `client_id` and `redirect_uri` are the app's.
    ///
    /// # Errors
    /// [`Failure::NotSent`] where the metadata does not fill the token URL. What else it does not fill fails when it
    /// is used.
    pub fn new(
        transport: &Transport,
        provider: &Arc<Provider>,
        app: &Arc<App>,
        values: Values<'_>,
    ) -> Result<Self, Failure> {
        let values: Values<'_> = &|name: &str| match name {
            "client_id" => Some(app.client_id.as_str()),
            "redirect_uri" => app.redirect_url.as_deref(),
            _ => values(name),
        };
        let dialect = &provider.dialect;
        let token_url = provider.token_url.as_ref().ok_or(NotSent::NoUrl("token_url"))?;
        let token = token_url.fill(values).map_err(NotSent::Metadata)?;
        Ok(Self {
            transport: transport.clone(),
            provider: Arc::clone(provider),
            app: Arc::clone(app),
            refresh: dialect.refresh_url.as_ref().map_or_else(|| Ok(token.clone()), |url| url.fill(values)),
            token,
            revoke: provider.revoke_url.as_ref().map(|url| url.fill(values)),
            introspect: dialect.introspect_url.as_ref().map(|url| url.fill(values)),
            token_extra: filled(&dialect.token_extra, values),
            refresh_extra: filled(&dialect.refresh_extra, values),
            audience: match &dialect.assertion.audience {
                Some(audience) => audience.fill(values),
                None => token_url.fill_text(values),
            },
        })
    }

    /// The provider.
    #[must_use]
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// A code for tokens (RFC 6749 §4.1.3), with the PKCE verifier where there was a challenge.
    ///
    /// # Errors
    /// [`Failure::NotSent`] or [`Failure::Ambiguous`]: there is no answer. [`Failure::Unreadable`]: it is too long.
    pub async fn exchange_code(
        &self,
        code: &Secret,
        verifier: Option<&Secret>,
        redirect_url: &str,
    ) -> Result<RawAnswer, Failure> {
        let mut params = Params::code(code, verifier, redirect_url)?;
        if let Some(resource) = &self.dialect().resource {
            params.put("resource", resource);
        }
        self.ask(Grant::Code, &self.token, params).await
    }

    /// A refresh token for tokens (RFC 6749 §6). `scopes` are sent only where the dialect wants them again.
    ///
    /// # Errors
    /// As [`TokenEndpoint::exchange_code`].
    pub async fn refresh(&self, refresh_token: &Secret, scopes: &[String]) -> Result<RawAnswer, Failure> {
        let mut params = Params::refresh(refresh_token)?;
        if self.dialect().refresh_scopes {
            self.put_scopes(&mut params, scopes);
        }
        if let Some(resource) = &self.dialect().resource {
            params.put("resource", resource);
        }
        put_all(&mut params, &self.refresh_extra)?;
        let url = self.refresh.as_ref().map_err(|error| NotSent::Metadata(error.clone()))?;
        self.ask(Grant::Refresh, url, params).await
    }

    /// The app's own token (RFC 6749 §4.4).
    ///
    /// # Errors
    /// As [`TokenEndpoint::exchange_code`].
    pub async fn client_credentials(&self, scopes: &[String]) -> Result<RawAnswer, Failure> {
        let mut params = Params::client_credentials()?;
        if let Some(grant) = &self.dialect().client_credentials_grant {
            params.put("grant_type", grant);
        }
        self.put_scopes(&mut params, scopes);
        self.ask(Grant::Mint, &self.token, params).await
    }

    /// The assertion that [`TokenEndpoint::jwt_bearer`] sends, as the dialect wants it.
    ///
    /// # Errors
    /// [`Failure::NotSent`].
    pub fn assert(&self, asserter: &Asserter, scopes: &[String]) -> Result<Secret, Failure> {
        let audience = self.audience.as_ref().map_err(|error| NotSent::Metadata(error.clone()))?;
        let claimed = self.dialect().assertion.scopes == AssertedScopes::Claim && !scopes.is_empty();
        let scope = claimed.then(|| scopes.join(self.dialect().separator()));
        let signed = asserter.grant(audience, scope.as_deref(), self.transport.now());
        Ok(signed.ok_or(NotSent::Unsigned("the key does not sign"))?)
    }

    /// An assertion for a token (RFC 7523 §2.1). The app says who it is only by a secret, if it has one: the assertion
    /// is signed already.
    ///
    /// # Errors
    /// As [`TokenEndpoint::exchange_code`].
    pub async fn jwt_bearer(&self, assertion: &Secret, scopes: &[String]) -> Result<RawAnswer, Failure> {
        let mut params = Params::grant(JWT_BEARER);
        params.put_secret("assertion", assertion)?;
        if self.dialect().assertion.scopes == AssertedScopes::Parameter {
            self.put_scopes(&mut params, scopes);
        }
        let mut headers = HeaderMap::new();
        if matches!(self.app.auth, ClientAuth::Secret(_)) {
            self.authenticate(&mut params, &mut headers)?;
        }
        self.ask_with(Grant::Mint, &self.token, params, headers).await
    }

    /// A token for another one (RFC 8693), or on behalf of a user (Entra).
    ///
    /// # Errors
    /// As [`TokenEndpoint::exchange_code`].
    pub async fn token_exchange(&self, exchange: &Exchange) -> Result<RawAnswer, Failure> {
        let mut params = match self.dialect().exchange {
            ExchangeStyle::OnBehalfOf => {
                let mut params = Params::grant(JWT_BEARER);
                params.put_secret("assertion", &exchange.subject.token)?;
                params.put("requested_token_use", "on_behalf_of");
                params
            }
            ExchangeStyle::Rfc8693 => {
                let mut params = Params::grant(TOKEN_EXCHANGE);
                params.put_secret("subject_token", &exchange.subject.token)?;
                params.put("subject_token_type", &exchange.subject.r#type);
                if let Some(actor) = &exchange.actor {
                    params.put_secret("actor_token", &actor.token)?;
                    params.put("actor_token_type", &actor.r#type);
                }
                if let Some(audience) = &exchange.audience {
                    params.put("audience", audience);
                }
                if let Some(resource) = &self.dialect().resource {
                    params.put("resource", resource);
                }
                params
            }
        };
        self.put_scopes(&mut params, &exchange.scopes);
        self.ask(Grant::Mint, &self.token, params).await
    }

    /// A token of a GitHub App's installation. The provider's `token_url` is
    /// `https://api.github.com/app/installations/{installation}/access_tokens`, and the app signs with its key.
    ///
    /// # Errors
    /// As [`TokenEndpoint::exchange_code`].
    pub async fn installation_token(&self, narrowed: &Narrowed) -> Result<RawAnswer, Failure> {
        let ClientAuth::PrivateKey(key) = &self.app.auth else {
            return Err(NotSent::Unsigned("the app has no private_key (oauth.apps)").into());
        };
        let jwt = assertion::of_github_app(key, &self.app.client_id, self.transport.now());
        let mut headers = HeaderMap::new();
        headers
            .insert(header::AUTHORIZATION, bearer(&jwt.ok_or(NotSent::Unsigned("the key does not sign"))?)?);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = serde_json::to_vec(&narrowed.body()).map_err(|_| NotSent::Request)?;
        let question = Question { method: Method::POST, headers, body: Zeroizing::new(body) };
        Ok(RawAnswer::new(Grant::Installation, self.transport.send(&self.token, question).await?))
    }

    /// Revokes a token. One that the provider does not know is revoked (RFC 7009 §2.2). `Ok(false)`: it has no way to.
    ///
    /// # Errors
    /// [`Failure`]: it may still be valid.
    pub async fn revoke(&self, token: &Secret, hint: Hint) -> Result<bool, Failure> {
        let style = self.dialect().revocation;
        let (Some(url), false) = (&self.revoke, style == Revocation::None) else { return Ok(false) };
        let url = url.as_ref().map_err(|error| NotSent::Metadata(error.clone()))?;
        let (url, question) = self.revocation(url, style, token, hint)?;
        let answer = RawAnswer::new(Grant::Mint, self.transport.send(&url, question).await?);
        answer.read_revocation(self.dialect()).map(|()| true)
    }

    fn revocation(
        &self,
        url: &Url,
        style: Revocation,
        token: &Secret,
        hint: Hint,
    ) -> Result<(Url, Question), NotSent> {
        let (mut params, mut headers) = (Params::default(), HeaderMap::new());
        match style {
            Revocation::Rfc7009 | Revocation::None => {
                params.put_secret("token", token)?;
                params.put("token_type_hint", hint.as_str());
                self.authenticate(&mut params, &mut headers)?;
                let body =
                    if self.dialect().body == BodyStyle::Json { BodyStyle::Json } else { BodyStyle::Form };
                params.written(Method::POST, url, body, headers)
            }
            Revocation::DeleteBasic => {
                params.put_secret("access_token", token)?;
                if let ClientAuth::Secret(secret) = &self.app.auth {
                    let (id, secret) = (self.app.client_id.as_bytes(), text(secret)?.as_bytes());
                    headers.insert(header::AUTHORIZATION, basic(id, secret)?);
                }
                params.written(Method::DELETE, url, BodyStyle::Json, headers)
            }
            Revocation::DeleteBearer | Revocation::PostBearer => {
                match &self.dialect().revocation_header {
                    Some(name) => headers.insert(&name.0, sensitive(text(token)?.as_bytes())?),
                    None => headers.insert(header::AUTHORIZATION, bearer(token)?),
                };
                let method = if style == Revocation::PostBearer { Method::POST } else { Method::DELETE };
                Ok((url.clone(), Question { method, headers, body: Zeroizing::default() }))
            }
        }
    }

    /// Asks about an access token (RFC 7662).
    ///
    /// # Errors
    /// [`Failure`]: nothing is known.
    pub async fn introspect(&self, token: &Secret) -> Result<Introspection, Failure> {
        let url = self.introspect.as_ref().ok_or(NotSent::NoUrl("introspect_url"))?;
        let url = url.as_ref().map_err(|error| NotSent::Metadata(error.clone()))?;
        let (mut params, mut headers) = (Params::default(), HeaderMap::new());
        params.put_secret("token", token)?;
        params.put("token_type_hint", Hint::AccessToken.as_str());
        self.authenticate(&mut params, &mut headers)?;
        let (url, question) = params.written(Method::POST, url, BodyStyle::Form, headers)?;
        let answer = RawAnswer::new(Grant::Mint, self.transport.send(&url, question).await?);
        answer.read_introspection(self.dialect())
    }

    fn dialect(&self) -> &Dialect {
        &self.provider.dialect
    }

    fn put_scopes(&self, params: &mut Params, scopes: &[String]) {
        if !scopes.is_empty() {
            params.put("scope", &scopes.join(self.dialect().separator()));
        }
    }

    async fn ask(&self, grant: Grant, url: &Url, mut params: Params) -> Result<RawAnswer, Failure> {
        let mut headers = HeaderMap::new();
        self.authenticate(&mut params, &mut headers)?;
        self.ask_with(grant, url, params, headers).await
    }

    async fn ask_with(
        &self,
        grant: Grant,
        url: &Url,
        mut params: Params,
        headers: HeaderMap,
    ) -> Result<RawAnswer, Failure> {
        put_all(&mut params, &self.token_extra)?;
        let (url, question) = params.written(Method::POST, url, self.dialect().body, headers)?;
        Ok(RawAnswer::new(grant, self.transport.send(&url, question).await?))
    }

    /// Says which app asks, in exactly one form (D9): some providers refuse two.
    fn authenticate(&self, params: &mut Params, headers: &mut HeaderMap) -> Result<(), NotSent> {
        let id = &self.app.client_id;
        match (&self.app.auth, self.dialect().client_auth) {
            (ClientAuth::None, _) if id.is_empty() => {}
            (ClientAuth::None, _) | (ClientAuth::Secret(_), ClientAuthStyle::None) => {
                params.put("client_id", id);
            }
            (ClientAuth::PrivateKey(key), _) => {
                let audience = self.token.to_string();
                let signed = assertion::of_client(key, id, &audience, self.transport.now());
                params.put("client_id", id);
                params.put("client_assertion_type", CLIENT_ASSERTION);
                params.put_secret(
                    "client_assertion",
                    &signed.ok_or(NotSent::Unsigned("the key does not sign"))?,
                )?;
            }
            (ClientAuth::Secret(_), ClientAuthStyle::PrivateKeyJwt) => {
                return Err(NotSent::Unsigned(
                    "the provider wants a private_key, not a client_secret (oauth.apps)",
                ));
            }
            (ClientAuth::Secret(secret), ClientAuthStyle::Body) => {
                params.put("client_id", id);
                params.put_secret("client_secret", secret)?;
            }
            (ClientAuth::Secret(secret), ClientAuthStyle::Basic) => {
                let (id, secret) = (form_encoded(id.as_bytes()), form_encoded(text(secret)?.as_bytes()));
                headers.insert(header::AUTHORIZATION, basic(id.as_bytes(), secret.as_bytes())?);
            }
            (ClientAuth::Secret(secret), ClientAuthStyle::BasicPlain) => {
                headers.insert(header::AUTHORIZATION, basic(id.as_bytes(), text(secret)?.as_bytes())?);
            }
            (ClientAuth::Secret(secret), ClientAuthStyle::BasicSecret) => {
                headers.insert(header::AUTHORIZATION, basic(text(secret)?.as_bytes(), b"")?);
            }
        }
        Ok(())
    }
}

impl Hint {
    const fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::RefreshToken => "refresh_token",
        }
    }
}

impl Narrowed {
    /// A permission and its level, as in `issues:read`.
    #[must_use]
    pub fn permission(text: &str) -> Option<(&str, &str)> {
        let is_name = |b: u8| b.is_ascii_lowercase() || b == b'_';
        text.split_once(':').filter(|(name, level)| {
            !name.is_empty() && name.bytes().all(is_name) && matches!(*level, "read" | "write" | "admin")
        })
    }

    fn body(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Body {
            #[serde(skip_serializing_if = "Vec::is_empty")]
            repositories: Vec<String>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            permissions: BTreeMap<String, String>,
        }
        Body {
            repositories: self.repositories.clone(),
            permissions: self.permissions.iter().cloned().collect(),
        }
    }
}

fn filled(extra: &BTreeMap<String, TextTemplate>, values: Values<'_>) -> Filled<Extra> {
    extra.iter().map(|(name, value)| Ok((name.clone(), value.fill(values)?))).collect()
}

fn put_all(params: &mut Params, extra: &Filled<Extra>) -> Result<(), NotSent> {
    for (name, value) in extra.as_ref().map_err(|error| NotSent::Metadata(error.clone()))? {
        params.put(name, value);
    }
    Ok(())
}

impl From<NotSent> for Failure {
    fn from(why: NotSent) -> Self {
        Self::NotSent(why)
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint").field("client_id", &self.app.client_id).finish_non_exhaustive()
    }
}
