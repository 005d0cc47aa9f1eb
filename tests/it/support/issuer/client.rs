//! The apps that the provider knows, and how they prove themselves.

use std::collections::BTreeMap;

use super::{
    Shared, assertion,
    ledger::Violation,
    profile::ClientAuth,
    read::{Asked, Params},
    refusal::Why,
};

/// The app of most tests.
pub(crate) const CLIENT: &str = "keybearer-test";
/// Its secret: with characters that Basic and a form must encode.
pub(crate) const CLIENT_SECRET: &str = "kb-canary-client:s%cret +&=/ü";

/// What an app proves itself with.
#[derive(Clone, Debug, Default)]
pub(super) struct App {
    pub(super) secret: String,
    /// A public key in PEM, for assertions.
    pub(super) key: Option<String>,
}

pub(super) type Apps = BTreeMap<String, App>;

pub(super) fn apps() -> Apps {
    let app = App { secret: CLIENT_SECRET.to_owned(), key: None };
    Apps::from([(CLIENT.to_owned(), app)])
}

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Who asks, proved as the provider wants it and no other way.
pub(super) fn proved(shared: &Shared, asked: &Asked, params: &Params) -> Result<String, Why> {
    let in_body = ["client_id", "client_secret", "client_assertion"].map(|name| params.get(name));
    let basic = asked.basic();
    if asked.plain_basic().is_some() && in_body.iter().any(Option::is_some) {
        shared.ledger().violated(Violation::ProvedTwice);
        return Err(Why::Client("client credentials in two places"));
    }
    let apps = shared.apps();
    let [id, secret, assertion] = in_body;
    match (shared.profile.client_auth, basic) {
        (ClientAuth::BasicPlain, Some(_)) => {
            let (id, secret) = asked.plain_basic().ok_or(Why::Client("not Basic"))?;
            by_secret(&apps, &id, &secret)
        }
        (ClientAuth::Basic | ClientAuth::Either, Some((id, secret))) => by_secret(&apps, &id, &secret),
        (ClientAuth::Body | ClientAuth::Either, None) => {
            let (id, secret) = id.zip(secret).ok_or(Why::Client("no client_id and client_secret"))?;
            by_secret(&apps, id, secret)
        }
        (ClientAuth::SecretAsUser, Some(_)) => {
            let credentials = asked.credentials().unwrap_or_default();
            let secret = credentials.strip_suffix(':').ok_or(Why::Client("a password, too"))?;
            let found = apps.iter().find(|(_, app)| app.secret == secret);
            found.map(|(id, _)| id.clone()).ok_or(Why::Client("no such secret"))
        }
        (ClientAuth::Public, None) if secret.is_none() => {
            let known = id.filter(|id| apps.contains_key(*id));
            known.cloned().ok_or(Why::Client("no such client"))
        }
        (ClientAuth::Assertion, None) if secret.is_none() => {
            if params.get("client_assertion_type").map(String::as_str) != Some(ASSERTION) {
                return Err(Why::Client("no client_assertion_type"));
            }
            let assertion = assertion.ok_or(Why::Client("no client_assertion"))?;
            let claims = assertion::checked(shared, &apps, assertion, &asked.url(shared.profile.token))
                .map_err(|()| Why::Client("an assertion that is not good"))?;
            if claims.sub.as_ref() != Some(&claims.iss) || id.is_some_and(|id| *id != claims.iss) {
                return Err(Why::Client("an assertion about somebody else"));
            }
            Ok(claims.iss)
        }
        _ => Err(Why::Client("not proved as this provider wants it")),
    }
}

fn by_secret(apps: &Apps, id: &str, secret: &str) -> Result<String, Why> {
    let app = apps.get(id).ok_or(Why::Client("no such client"))?;
    if app.secret != secret {
        return Err(Why::Client("a wrong secret"));
    }
    Ok(id.to_owned())
}
