//! A strict OAuth provider on loopback, over real TLS: what a real authorization server will not do on request.
//!
//! A [`Profile`] says how it departs from the standards, [`profiles`] has one for each provider that a test is
//! about, and a [`Step`] says what happens to the next POST. It keeps a ledger of every consent: which refresh token
//! was sold for which, and whether the answer went out. What no provider forgives is a [`Violation`], and one that
//! the test did not take out ([`Issuer::pardon`]) fails it when the issuer is dropped.
//!
//! Every token and secret begins with `kb-canary-`, so that one written anywhere is found. It lives in the test's own
//! process and listens on loopback, so any number of keybearer processes can talk to one, and outlive none of them.
//!
//! | path | what it is |
//! |---|---|
//! | the profile's `authorize` | consents at once, as [`Person`] would |
//! | its `token`, `refresh` | the token endpoint |
//! | its `revoke`, `introspect` | RFC 7009 and 7662, or the provider's own way |
//! | `/app/installations/{id}/access_tokens` | a GitHub App's installation tokens |
//! | `/followed` | where [`Step::redirect`] leads: nobody may come |
//! | all others | the API: takes live access tokens only |

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use keybearer::drain::Drain;
use serde_json::{Map, Value};
use tokio::{net::TcpListener, task::JoinHandle};

mod answer;
mod api;
mod assertion;
mod authorize;
mod client;
mod clock;
mod desk;
mod installation;
mod ledger;
mod profile;
pub(crate) mod profiles;
mod read;
mod refusal;
mod revoke;
mod script;
mod token;

use super::{
    provider::{TestAuthority, Validity},
    server,
};
use api::Whims;
use client::Apps;
use clock::Clock;
use ledger::Ledger;
use read::Asked;
use script::Script;

pub(crate) use api::{Call, Challenge, Whim};
pub(crate) use authorize::Person;
pub(crate) use client::{CLIENT, CLIENT_SECRET};
pub(crate) use desk::{Ended, Post};
pub(crate) use installation::Installation;
pub(crate) use ledger::{Sold, Violation, Worth};
pub(crate) use profile::*;
pub(crate) use refusal::{Cause, Why, Wording};
pub(crate) use script::{Gate, Step};

/// Where the consents of [`Issuer::consent`] were sent back to.
pub(crate) const REDIRECT: &str = "https://keybearer.test/oauth/callback";

/// A running issuer; it stops when dropped, and complains of what was not pardoned.
pub(crate) struct Issuer {
    address: SocketAddr,
    shared: Shared,
    accepting: JoinHandle<()>,
}

impl Issuer {
    /// Listens on a free port of 127.0.0.1 with a certificate for the profile's hosts.
    pub(crate) async fn start(authority: &TestAuthority, profile: Profile) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").await.unwrap(), authority, profile)
    }

    /// The same where a test has made room for it.
    pub(crate) fn listening(listener: TcpListener, authority: &TestAuthority, profile: Profile) -> Self {
        let address = listener.local_addr().unwrap();
        let names: Vec<String> = profile.hosts.iter().map(|host| (*host).to_owned()).collect();
        let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = server::acceptor(authority.leaf(&names, Validity::Current), alpn);
        let shared = Shared::new(profile);
        let serving = shared.clone();
        let service = tower::service_fn(move |request| serving.clone().serve(request));
        let accepting =
            shared.drain.spawn(server::accept(listener, Some(tls), shared.drain.clone(), service));
        Self { address, shared, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port, for URLs.
    pub(crate) fn profile(&self) -> &Profile {
        &self.shared.profile
    }

    /// As if a person had consented for [`CLIENT`] just now: the first tokens of an account, with offline access.
    pub(crate) fn consent(&self, account: &str, scopes: &[&str]) -> Sold {
        let begun = ledger::Begun {
            account: account.to_owned(),
            client: CLIENT.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            offline: true,
            redirect_uri: Some(REDIRECT.to_owned()),
        };
        self.shared.ledger().begin(begun, &self.shared.profile, self.shared.clock.now())
    }

    /// Who sits at the browser from now on.
    pub(crate) fn person(&self, person: Person) {
        *self.shared.person.lock().unwrap() = person;
    }

    /// What happens to the next POSTs to the token endpoint, one step each.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.shared.script.add(steps);
    }

    /// What happens from now on to all that the script has no step for.
    pub(crate) fn always(&self, step: Step) {
        self.shared.script.otherwise(step);
    }

    /// What the API says to the next requests although their tokens are live.
    pub(crate) fn whims(&self, whims: impl IntoIterator<Item = Whim>) {
        self.shared.whims().extend(whims);
    }

    /// Moves the issuer's time on.
    pub(crate) fn advance(&self, seconds: i64) {
        self.shared.clock.advance(seconds);
    }

    /// Ends all that the account's person consented to.
    pub(crate) fn end(&self, account: &str, cause: Cause) {
        self.shared.ledger().end(account, cause);
    }

    /// What the account's next tokens are good for.
    pub(crate) fn rescope(&self, account: &str, scopes: &[&str]) {
        self.shared.ledger().rescope(account, scopes);
    }

    /// Another value for a field of the answers, such as `instance_url`.
    pub(crate) fn says(&self, field: &str, value: Value) {
        self.shared.extras.lock().unwrap().insert(field.to_owned(), value);
    }

    /// Gives an app another secret. One that is unknown so far is made.
    pub(crate) fn secret(&self, client: &str, secret: &str) {
        self.shared.apps.lock().unwrap().entry(client.to_owned()).or_default().secret = secret.to_owned();
    }

    /// Gives an app a public key, PEM, for assertions. One that is unknown so far is made.
    pub(crate) fn key(&self, client: &str, pem: &str) {
        self.shared.apps.lock().unwrap().entry(client.to_owned()).or_default().key = Some(pem.to_owned());
    }

    /// Installs the GitHub App.
    pub(crate) fn install(&self, id: &str, installation: Installation) {
        self.shared.installations.lock().unwrap().insert(id.to_owned(), installation);
    }

    /// Every POST to the token endpoint so far, in order of arrival.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.shared.posts().clone()
    }

    /// How many POSTs presented each generation of an account's refresh tokens; none for one never presented.
    pub(crate) fn presented(&self, account: &str) -> Vec<usize> {
        let mut counts = Vec::new();
        for (who, generation) in self.shared.posts().iter().filter_map(|post| post.presented.as_ref()) {
            if who == account {
                counts.resize(counts.len().max(generation + 1), 0);
                counts[*generation] += 1;
            }
        }
        counts
    }

    /// Every request to the API so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls().clone()
    }

    /// Takes the violations out: the test says which it meant to provoke.
    pub(crate) fn pardon(&self) -> Vec<Violation> {
        self.shared.ledger().pardon()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.accepting.abort();
        if std::thread::panicking() {
            return;
        }
        assert_eq!(self.pardon(), [], "no provider forgives these");
        assert!(self.shared.script.is_done(), "a step of the script was never taken");
    }
}

/// The connection is cut.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("cut")]
pub(crate) struct Cut;

/// What all requests share.
#[derive(Clone)]
struct Shared(Arc<State>);

struct State {
    profile: Profile,
    ledger: Mutex<Ledger>,
    apps: Mutex<Apps>,
    installations: Mutex<BTreeMap<String, Installation>>,
    person: Mutex<Person>,
    extras: Mutex<Map<String, Value>>,
    script: Script,
    whims: Mutex<Whims>,
    posts: Mutex<Vec<Post>>,
    calls: Mutex<Vec<Call>>,
    clock: Clock,
    drain: Drain,
}

impl Deref for Shared {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl Shared {
    fn new(profile: Profile) -> Self {
        Self(Arc::new(State {
            extras: Mutex::new(profile.extras.clone()),
            profile,
            ledger: Mutex::default(),
            apps: Mutex::new(client::apps()),
            installations: Mutex::default(),
            person: Mutex::default(),
            script: Script::default(),
            whims: Mutex::default(),
            posts: Mutex::default(),
            calls: Mutex::default(),
            clock: Clock::start(),
            drain: Drain::default(),
        }))
    }

    async fn serve(self, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        let asked = Asked::new(head, body);
        let path = asked.path.as_str();
        if path == self.profile.token || self.profile.refresh == Some(path) {
            return desk::serve(self, asked).await;
        }
        if path == self.profile.authorize {
            return Ok(authorize::serve(&self, &asked));
        }
        if path == "/followed" {
            self.ledger().violated(Violation::Followed);
        }
        let special = revoke::serve(&self, &asked).or_else(|| installation::serve(&self, &asked));
        Ok(special.unwrap_or_else(|| api::serve(&self, &asked)))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    fn posts(&self) -> MutexGuard<'_, Vec<Post>> {
        self.posts.lock().unwrap()
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap()
    }

    fn whims(&self) -> MutexGuard<'_, Whims> {
        self.whims.lock().unwrap()
    }

    fn apps(&self) -> Apps {
        self.apps.lock().unwrap().clone()
    }

    fn person(&self) -> Person {
        self.person.lock().unwrap().clone()
    }

    fn extras(&self) -> Map<String, Value> {
        self.extras.lock().unwrap().clone()
    }

    fn installations(&self) -> BTreeMap<String, Installation> {
        self.installations.lock().unwrap().clone()
    }
}
