//! The authorization endpoint: a person who consents at once, or not, and is sent back.

use axum::body::Body;
use http::{Response, StatusCode, header};

use super::{
    Shared, answer,
    ledger::Code,
    profile::{Offline, Pkce},
    read::{Asked, Params, form},
    token::split,
};

/// Who sits at the browser.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// Who they are to the provider.
    pub(crate) name: String,
    /// The scopes that they agree to, of those asked for. Left out, to all.
    pub(crate) agrees_to: Option<Vec<String>>,
    /// Or they decline.
    pub(crate) declines: bool,
}

impl Default for Person {
    fn default() -> Self {
        Self { name: "alice".to_owned(), agrees_to: None, declines: false }
    }
}

/// Sends the person back with a code, or with an error. What must not be sent back is answered here with 400.
pub(super) fn serve(shared: &Shared, asked: &Asked) -> Response<Body> {
    match consent(shared, asked) {
        Ok(location) => {
            let mut response = answer::plain(shared, StatusCode::FOUND, Body::empty());
            response.headers_mut().insert(header::LOCATION, location.parse().unwrap());
            response
        }
        Err(sentence) => answer::plain(shared, StatusCode::BAD_REQUEST, sentence),
    }
}

fn consent(shared: &Shared, asked: &Asked) -> Result<String, &'static str> {
    let params = form(&asked.query).map_err(|_| "the query cannot be read")?;
    let need = |name: &str| params.get(name).cloned().ok_or("a parameter is missing");
    let (client, redirect_uri) = (need("client_id")?, need("redirect_uri")?);
    if !shared.apps().contains_key(&client) {
        return Err("no such client");
    }
    if need("response_type")? != "code" {
        return Err("response_type is code");
    }
    let profile = &shared.profile;
    for (name, value) in profile.authorize_needs {
        if params.get(*name).map(String::as_str) != Some(*value) {
            return Err("a parameter that this provider wants is missing");
        }
    }
    let challenge = challenge(profile.pkce, &params)?;
    let state = need("state")?;
    let mut back = vec![("state", state)];
    back.extend(profile.iss.map(|iss| ("iss", iss.to_owned())));
    let person = shared.person();
    if person.declines {
        back.push(("error", "access_denied".to_owned()));
    } else {
        let mut scopes = split(shared, params.get(profile.scope_parameter));
        let offline = match profile.offline {
            Offline::Always => true,
            Offline::Never => false,
            Offline::Scope(marker) => scopes.iter().any(|scope| scope == marker),
            Offline::Parameter(name, value) => params.get(name).map(String::as_str) == Some(value),
        };
        scopes.retain(|scope| person.agrees_to.as_ref().is_none_or(|agreed| agreed.contains(scope)));
        let (account, redirect_uri) = (person.name, redirect_uri.clone());
        let code = Code { client, account, scopes, offline, redirect_uri, challenge };
        back.push(("code", shared.ledger().offer(code)));
    }
    let query: Vec<String> = back.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let glue = if redirect_uri.contains('?') { '&' } else { '?' };
    Ok(format!("{redirect_uri}{glue}{}", query.join("&")))
}

fn challenge(pkce: Pkce, params: &Params) -> Result<Option<String>, &'static str> {
    let challenge = params.get("code_challenge").cloned();
    match (pkce, &challenge) {
        (Pkce::Required, None) => Err("no code_challenge"),
        (Pkce::Refused, Some(_)) => Err("a code_challenge is not taken here"),
        (_, Some(_)) if params.get("code_challenge_method").map(String::as_str) != Some("S256") => {
            Err("code_challenge_method is S256")
        }
        _ => Ok(challenge),
    }
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
