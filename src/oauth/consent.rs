//! A person's consent: the URL that asks for it, and what of a callback is believed.

use std::fmt;

use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, RedirectUrl,
    basic::BasicClient,
    url::{Url, form_urlencoded},
};
use subtle::ConstantTimeEq;

use super::{App, Failure, NotSent, Pkce, Provider, RawAnswer, TokenEndpoint, Tokens, Values, request::text};
use crate::secret::Secret;

/// The crate wants a URL to write into; the provider's own may have its parameters after a `#`.
const NOWHERE: &str = "https://authorize.invalid/";
/// Random bytes in a state, a nonce and a plain verifier.
const RANDOM: u32 = 32;
/// No error code is longer.
const LONGEST_CODE: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// The provider's scopes, and no others but the dialect's `offline_scopes` and `subject_scopes`.
    pub scopes: &'a [String],
    /// What the sign-in must fulfil, as a [`Failure::NeedsUser`] said it.
    pub claims: Option<&'a str>,
}

/// A consent that was asked for and not yet given. It is used up by the first callback that names its state.
pub struct Pending {
    state: Secret,
    verifier: Option<Secret>,
    nonce: Option<Secret>,
    issuer: Option<String>,
    redirect_url: String,
    scopes: Vec<String>,
}

/// A consent that was given: a code, to be exchanged once.
pub struct Consented {
    code: Secret,
    pending: Pending,
}

/// What a provider sends a person back with.
#[derive(Default)]
pub struct Callback {
    state: Option<Secret>,
    code: Option<Secret>,
    issuer: Option<String>,
    error: Option<String>,
}

/// Why a callback is not believed, or is no consent. Never what it carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// A parameter twice: two readers could take two different ones.
    #[error("the callback has a parameter twice")]
    Twice,
    /// No state, or not the one that was sent: somebody else's consent.
    #[error(
        "no question of ours is open that this would be the answer to: it was answered before, is over, or was never asked; begin again with `keybearer account connect`"
    )]
    State,
    /// Another authorization server answered (RFC 9207).
    #[error("another server than the connector's issuer answered")]
    Issuer,
    /// The person, or a rule there, said no.
    #[error("the consent was declined at the provider")]
    Declined,
    /// The provider refuses the question: the app or the connector is wrong.
    #[error("the provider refuses to ask for this consent; check the app's redirect URL and scopes there")]
    Refused,
    /// Not now.
    #[error("the provider cannot ask now; try again later")]
    Unavailable,
    /// Neither a code nor an error.
    #[error("the callback has no code")]
    NoCode,
    /// The ID token is for another consent (OpenID Connect Core §3.1.3.7).
    #[error("the provider's ID token is not the answer to this consent")]
    Nonce,
}

impl Provider {
    /// The URL that a person opens to consent, and what to remember until they are back.
    ///
    /// # Errors
    /// [`NotSent`] where the connector has no `authorize_url` or the metadata does not fill it.
    pub fn consent(
        &self,
        app: &App,
        redirect_url: &str,
        ask: Ask<'_>,
        values: Values<'_>,
    ) -> Result<(String, Pending), NotSent> {
        let values: Values<'_> = &|name: &str| match name {
            "client_id" => Some(app.client_id.as_str()),
            "redirect_uri" => app.redirect_url.as_deref(),
            _ => values(name),
        };
        let base = self.authorize_url.as_ref().ok_or(NotSent::NoUrl("authorize_url"))?.fill_text(values)?;
        let scopes = self.scopes_to_ask(ask.scopes);
        let pending = Pending {
            state: random(),
            verifier: None,
            nonce: scopes.iter().any(|scope| scope == "openid").then(random),
            issuer: self.dialect.issuer.clone(),
            redirect_url: redirect_url.to_owned(),
            scopes,
        };
        let (query, verifier) = self.question(app, &pending, ask, values)?;
        // Apollo has its parameters in the fragment.
        let joint = if base.rsplit('#').next().is_some_and(|tail| tail.contains('?')) { '&' } else { '?' };
        Ok((format!("{base}{joint}{query}"), Pending { verifier, ..pending }))
    }

    fn scopes_to_ask(&self, scopes: &[String]) -> Vec<String> {
        let mut all = scopes.to_vec();
        for scope in self.dialect.offline_scopes.iter().chain(&self.dialect.subject_scopes) {
            if !all.contains(scope) {
                all.push(scope.clone());
            }
        }
        all
    }

    fn question(
        &self,
        app: &App,
        pending: &Pending,
        ask: Ask<'_>,
        values: Values<'_>,
    ) -> Result<(String, Option<Secret>), NotSent> {
        let invalid = |_| NotSent::Request;
        let client = BasicClient::new(ClientId::new(app.client_id.clone()))
            .set_auth_uri(AuthUrl::new(NOWHERE.to_owned()).map_err(invalid)?)
            .set_redirect_uri(RedirectUrl::new(pending.redirect_url.clone()).map_err(invalid)?);
        let state = CsrfToken::new(text(&pending.state)?.to_owned());
        let mut request = client.authorize_url(|| state);
        // The crate has a space between scopes, and one name for them.
        if !pending.scopes.is_empty() {
            let name = self.dialect.scope_parameter.as_deref().unwrap_or("scope").to_owned();
            request = request.add_extra_param(name, pending.scopes.join(self.dialect.separator()));
        }
        if let Some(nonce) = &pending.nonce {
            request = request.add_extra_param("nonce", text(nonce)?.to_owned());
        }
        if let Some(resource) = &self.dialect.resource {
            request = request.add_extra_param("resource", resource.clone());
        }
        if let Some(claims) = ask.claims {
            request = request.add_extra_param("claims", claims.to_owned());
        }
        for (name, value) in &self.dialect.authorize_extra {
            request = request.add_extra_param(name.clone(), value.fill(values)?);
        }
        let verifier = match self.pkce {
            None => None,
            Some(Pkce::S256) => {
                let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
                request = request.set_pkce_challenge(challenge);
                Some(Secret::new(verifier.into_secret().into_bytes()))
            }
            Some(Pkce::Plain) => {
                let verifier = random();
                request = request.add_extra_param("code_challenge", text(&verifier)?.to_owned());
                request = request.add_extra_param("code_challenge_method", "plain");
                Some(verifier)
            }
        };
        let (url, _): (Url, _) = request.url();
        Ok((url.query().unwrap_or_default().to_owned(), verifier))
    }
}

impl Callback {
    /// Reads the query of a callback.
    ///
    /// # Errors
    /// [`CallbackError::Twice`].
    pub fn parse(query: &str) -> Result<Self, CallbackError> {
        let mut callback = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let secret = || Secret::new(value.as_bytes().to_vec());
            let again = match &*name {
                "state" => callback.state.replace(secret()).is_some(),
                "code" => callback.code.replace(secret()).is_some(),
                "iss" => callback.issuer.replace(value.clone().into_owned()).is_some(),
                "error" => callback.error.replace(value.clone().into_owned()).is_some(),
                _ => false,
            };
            if again {
                return Err(CallbackError::Twice);
            }
        }
        Ok(callback)
    }

    /// Which [`Pending`] it is for: look it up by this, and take it away.
    #[must_use]
    pub const fn state(&self) -> Option<&Secret> {
        self.state.as_ref()
    }

    /// The error's code, where it looks like one (RFC 6749 §4.1.2.1). Not to be shown before [`Pending::answered`] has
    /// said that it is the provider's.
    #[must_use]
    pub fn error_code(&self) -> Option<&str> {
        let is_code = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        self.error
            .as_deref()
            .filter(|code| (1..=LONGEST_CODE).contains(&code.len()) && code.bytes().all(is_code))
    }
}

impl Pending {
    /// Names it in callbacks.
    #[must_use]
    pub const fn state(&self) -> &Secret {
        &self.state
    }

    /// The provider's scopes that were asked for, the offline ones among them.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Takes the callback for the answer to this question, if it is one.
    ///
    /// # Errors
    /// [`CallbackError`]; the consent is used up whatever it is.
    pub fn answered(self, callback: Callback) -> Result<Consented, CallbackError> {
        if callback.state.as_ref() != Some(&self.state) {
            return Err(CallbackError::State);
        }
        // Before the error is believed: it could be another server's as well (RFC 9207 §2.4).
        if self.issuer.is_some() && callback.issuer != self.issuer {
            return Err(CallbackError::Issuer);
        }
        if let Some(error) = callback.error {
            return Err(match &*error {
                "access_denied"
                | "consent_required"
                | "interaction_required"
                | "login_required"
                | "account_selection_required" => CallbackError::Declined,
                "server_error" | "temporarily_unavailable" => CallbackError::Unavailable,
                _ => CallbackError::Refused,
            });
        }
        let code = callback.code.filter(|code| !code.is_empty()).ok_or(CallbackError::NoCode)?;
        Ok(Consented { code, pending: self })
    }
}

impl Consented {
    /// Exchanges the code.
    ///
    /// # Errors
    /// As [`TokenEndpoint::exchange_code`]. The code is spent, or must be taken for it.
    pub async fn exchange(&self, endpoint: &TokenEndpoint) -> Result<RawAnswer, Failure> {
        let Pending { verifier, redirect_url, .. } = &self.pending;
        endpoint.exchange_code(&self.code, verifier.as_ref(), redirect_url).await
    }

    /// The provider's scopes that the tokens have: those of the answer, or, where it names none, those that were asked
    /// for (RFC 6749 §5.1).
    ///
    /// # Errors
    /// [`CallbackError::Nonce`] where the answer's ID token belongs to another consent.
    pub fn granted(&self, tokens: &Tokens) -> Result<Vec<String>, CallbackError> {
        if let Some(nonce) = &self.pending.nonce {
            let said = tokens.nonce.as_deref().unwrap_or_default();
            let sent = text(nonce).map_err(|_| CallbackError::Nonce)?;
            if !bool::from(said.as_bytes().ct_eq(sent.as_bytes())) {
                return Err(CallbackError::Nonce);
            }
        }
        Ok(tokens.scopes.clone().unwrap_or_else(|| self.pending.scopes.clone()))
    }
}

/// Base64 of random bytes, as the crate makes them.
fn random() -> Secret {
    Secret::new(CsrfToken::new_random_len(RANDOM).into_secret().into_bytes())
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl fmt::Debug for Consented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consented").finish_non_exhaustive()
    }
}
