//! The token endpoint's decisions: what is sold for what.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::{
    Shared, assertion, client,
    ledger::{Begun, Sold, Worth},
    read::{Asked, Params},
    refusal::{Cause, Why},
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Decides one request.
pub(super) fn decide(shared: &Shared, asked: &Asked) -> Result<Sold, Why> {
    if asked.method != http::Method::POST {
        return Err(Why::Request("POST alone"));
    }
    let profile = &shared.profile;
    let params = asked.params(profile.takes)?;
    for (name, value) in profile.token_needs {
        if params.get(*name).map(String::as_str) != Some(*value) {
            return Err(Why::Request("a parameter that this provider wants is missing"));
        }
    }
    match (grant_type(shared, asked, &params), profile.refresh) {
        ("refresh_token", Some(path)) if asked.path != path => Err(Why::GrantType),
        ("refresh_token", _) => refresh(shared, asked, &params),
        (_, Some(path)) if asked.path == path => Err(Why::GrantType),
        ("authorization_code", _) => code(shared, asked, &params),
        ("client_credentials" | "account_credentials", _) => own(shared, asked, &params),
        (EXCHANGE, _) => exchange(shared, asked, &params),
        (JWT_BEARER, _) if params.contains_key("requested_token_use") => on_behalf_of(shared, asked, &params),
        (JWT_BEARER, _) => jwt_bearer(shared, asked, &params),
        _ => Err(Why::GrantType),
    }
}

/// At an endpoint of its own a refresh need not say that it is one.
pub(super) fn grant_type<'a>(shared: &Shared, asked: &Asked, params: &'a Params) -> &'a str {
    let unsaid = if shared.profile.refresh == Some(&asked.path) { "refresh_token" } else { "" };
    params.get("grant_type").map_or(unsaid, String::as_str)
}

fn code(shared: &Shared, asked: &Asked, params: &Params) -> Result<Sold, Why> {
    let client = client::proved(shared, asked, params)?;
    let code = shared.ledger().redeem(needed(params, "code")?)?;
    if code.client != client {
        return Err(Why::Grant(Cause::OtherClient));
    }
    if needed(params, "redirect_uri")? != code.redirect_uri {
        return Err(Why::Request("not the redirect_uri of the consent"));
    }
    match (&code.challenge, params.get("code_verifier")) {
        (None, None) => {}
        (Some(challenge), Some(verifier)) if s256(verifier) == *challenge => {}
        _ => return Err(Why::Request("the code_verifier does not fit")),
    }
    let begun = Begun {
        account: code.account,
        client,
        scopes: code.scopes,
        offline: code.offline,
        redirect_uri: Some(code.redirect_uri),
    };
    Ok(shared.ledger().begin(begun, &shared.profile, shared.clock.now()))
}

fn refresh(shared: &Shared, asked: &Asked, params: &Params) -> Result<Sold, Why> {
    let client = client::proved(shared, asked, params)?;
    let token = needed(params, "refresh_token")?;
    let mut ledger = shared.ledger();
    if let Some((scopes, redirect_uri)) = ledger.terms(token) {
        let wanted = split(shared, params.get("scope"));
        if wanted.iter().any(|scope| !scopes.contains(scope)) {
            return Err(Why::Scope);
        }
        for name in shared.profile.refresh_repeats {
            let before =
                if *name == "scope" { Some(join(shared, scopes)) } else { redirect_uri.map(str::to_owned) };
            if params.get(*name) != before.as_ref() {
                return Err(Why::Request("a parameter of the consent is missing or differs"));
            }
        }
    }
    ledger.refresh(token, &client, &shared.profile, shared.clock.now())
}

/// For the app itself.
fn own(shared: &Shared, asked: &Asked, params: &Params) -> Result<Sold, Why> {
    let client = client::proved(shared, asked, params)?;
    let scopes = split(shared, params.get("scope"));
    Ok(mint(shared, client.clone(), client, scopes))
}

/// RFC 7523 §2.1. The assertion says who asks, so nothing else has to.
fn jwt_bearer(shared: &Shared, asked: &Asked, params: &Params) -> Result<Sold, Why> {
    let apps = shared.apps();
    let assertion = needed(params, "assertion")?;
    let claims = assertion::checked(shared, &apps, assertion, &asked.url(shared.profile.token))
        .map_err(|()| Why::Grant(Cause::Unknown))?;
    let asked_for = params.get("scope").or(claims.scope.as_ref());
    Ok(mint(shared, claims.sub.unwrap_or_else(|| claims.iss.clone()), claims.iss, split(shared, asked_for)))
}

/// RFC 8693: a live token of this issuer's for another one of the same account.
fn exchange(shared: &Shared, asked: &Asked, params: &Params) -> Result<Sold, Why> {
    let client = client::proved(shared, asked, params)?;
    if needed(params, "subject_token_type")? != ACCESS_TOKEN {
        return Err(Why::Request("a subject_token_type that is not taken"));
    }
    narrowed(shared, client, needed(params, "subject_token")?, params)
}

/// Microsoft's way of the same.
fn on_behalf_of(shared: &Shared, asked: &Asked, params: &Params) -> Result<Sold, Why> {
    let client = client::proved(shared, asked, params)?;
    if needed(params, "requested_token_use")? != "on_behalf_of" {
        return Err(Why::Request("requested_token_use is on_behalf_of"));
    }
    narrowed(shared, client, needed(params, "assertion")?, params)
}

fn narrowed(shared: &Shared, client: String, subject: &str, params: &Params) -> Result<Sold, Why> {
    let worth = shared.ledger().worth(subject, shared.clock.now());
    let Worth::Live { account, .. } = worth else { return Err(Why::Grant(Cause::Expired)) };
    let scopes = split(shared, params.get("scope"));
    if scopes.iter().any(|scope| !shared.ledger().scopes_of(subject).contains(scope)) {
        return Err(Why::Scope);
    }
    Ok(mint(shared, account, client, scopes))
}

fn mint(shared: &Shared, account: String, client: String, scopes: Vec<String>) -> Sold {
    let begun = Begun { account, client, scopes, offline: false, redirect_uri: None };
    shared.ledger().begin(begun, &shared.profile, shared.clock.now())
}

fn needed<'a>(params: &'a Params, name: &str) -> Result<&'a str, Why> {
    params.get(name).map(String::as_str).ok_or(Why::Request("a parameter is missing"))
}

pub(super) fn split(shared: &Shared, scopes: Option<&String>) -> Vec<String> {
    let text = scopes.map(String::as_str).unwrap_or_default();
    text.split(shared.profile.asked_scopes).filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
}

fn join(shared: &Shared, scopes: &[String]) -> String {
    scopes.join(&shared.profile.asked_scopes.to_string())
}

fn s256(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}
