//! The issuer keeps its promises, before anything is concluded from what it says about keybearer.

use std::collections::BTreeMap;

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::support::{
    direct::Direct,
    issuer::{CLIENT, CLIENT_SECRET, ClientAuth, Issuer, Profile, REDIRECT, Takes},
    provider::TestAuthority,
};

mod api;
mod dialects;
mod faults;
mod grants;
mod rotation;

/// An issuer and a client that does what its profile wants.
struct Ground {
    authority: TestAuthority,
    issuer: Issuer,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// A field of the answer, wherever the profile puts its tokens.
    fn token(&self, profile: &Profile, name: &str) -> String {
        let value = self.json();
        let nested = profile.tokens_in.iter().fold(&value, |value, inner| &value[*inner]);
        let found = nested.get(name).or_else(|| value.get(name)).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no {name} in {}", self.text)).to_owned()
    }
}

impl Ground {
    async fn new(profile: Profile) -> Self {
        let authority = TestAuthority::new();
        let issuer = Issuer::start(&authority, profile).await;
        Self { authority, issuer }
    }

    async fn send(&self, request: Request<Body>) -> hyper::Result<Answer> {
        let name = self.issuer.profile().hosts[0];
        let connected = Direct::connect(self.issuer.address(), &self.authority, name, &["http/1.1"]).await;
        let answer = connected.unwrap().send(request).await?;
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Ok(Answer { status: head.status, headers: head.headers, text })
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.send(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// A token request with the client proved and the parameters encoded as the profile wants.
    async fn ask(&self, params: &[(&str, &str)]) -> hyper::Result<Answer> {
        self.send(self.request(self.issuer.profile().token, params)).await
    }

    async fn refresh(&self, token: &str) -> hyper::Result<Answer> {
        let profile = self.issuer.profile();
        let mut params = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
        params.extend(profile.refresh_repeats.iter().map(|name| (*name, REDIRECT)));
        self.send(self.request(profile.refresh.unwrap_or(profile.token), &params)).await
    }

    fn request(&self, path: &str, params: &[(&str, &str)]) -> Request<Body> {
        let profile = self.issuer.profile();
        let mut all: BTreeMap<&str, &str> = params.iter().copied().collect();
        all.extend(profile.token_needs.iter().copied());
        let mut request = Request::post(path).header(header::ACCEPT, "application/json");
        match profile.client_auth {
            ClientAuth::Body => all.extend([("client_id", CLIENT), ("client_secret", CLIENT_SECRET)]),
            ClientAuth::Public => all.extend([("client_id", CLIENT)]),
            ClientAuth::Basic | ClientAuth::Either => {
                request = request.header(header::AUTHORIZATION, basic(CLIENT, CLIENT_SECRET));
            }
            ClientAuth::BasicPlain => {
                request = request.header(header::AUTHORIZATION, plain_basic(CLIENT, CLIENT_SECRET));
            }
            ClientAuth::SecretAsUser => {
                request = request.header(header::AUTHORIZATION, plain_basic(CLIENT_SECRET, ""));
            }
            ClientAuth::Assertion => {}
        }
        match profile.takes {
            Takes::Form | Takes::Either => form_body(request, &form(&all)),
            Takes::Json => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(serde_json::to_string(&all).unwrap()))
                .unwrap(),
            Takes::Query => {
                let uri = format!("{path}?{}", form(&all));
                request.method(Method::POST).uri(uri).body(Body::empty()).unwrap()
            }
        }
    }
}

fn form_body(request: http::request::Builder, text: &str) -> Request<Body> {
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    request.body(Body::from(text.to_owned())).unwrap()
}

fn form(params: &BTreeMap<&str, &str>) -> String {
    let pairs: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn basic(user: &str, password: &str) -> String {
    plain_basic(&encode(user), &encode(password))
}

fn plain_basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}
