//! Where POSTs to the token endpoint arrive: each is written down, goes its scripted way, and is answered or not.

use std::collections::BTreeMap;

use axum::body::Body;
use futures_util::stream;
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Cut, Shared, answer,
    ledger::{Place, Sold, Violation},
    profile::Takes,
    read::{Asked, Params},
    refusal::Why,
    script::{Processed, Says, Step},
    token,
};

/// One POST to the token endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) path: String,
    pub(crate) grant_type: String,
    /// Whose refresh token it carried, and of which generation.
    pub(crate) presented: Option<(String, usize)>,
    pub(crate) params: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
    pub(crate) at: Timestamp,
    pub(crate) ended: Ended,
}

/// What came of a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing yet.
    Open,
    /// The generation that was sold.
    Sold(usize),
    Refused(Why),
    /// What the script had for it instead.
    Unprocessed,
}

/// Sees a POST through.
pub(super) async fn serve(shared: Shared, asked: Asked) -> Result<Response<Body>, Cut> {
    let visit = Visit::begin(&shared, &asked);
    let step = shared.script.take();
    // In a task of its own: a provider goes on when a client has hung up.
    let work = process(shared.clone(), asked, step, visit.post);
    let (answer, whole) = shared.drain.spawn(work).await.unwrap();
    visit.end(whole);
    answer
}

/// The answer, and whether it is one that sold something and can be read.
async fn process(
    shared: Shared,
    asked: Asked,
    step: Step,
    post: usize,
) -> (Result<Response<Body>, Cut>, bool) {
    if let Some(gate) = &step.before {
        gate.pass().await;
    }
    let decided = match step.processed {
        Processed::Yes => Some(token::decide(&shared, &asked)),
        Processed::No => None,
    };
    shared.posts()[post].ended = match &decided {
        Some(Ok(sold)) => Ended::Sold(sold.generation),
        Some(Err(why)) => Ended::Refused(*why),
        None => Ended::Unprocessed,
    };
    if let Some(gate) = &step.after {
        gate.pass().await;
    }
    let whole = matches!((&step.says, &decided), (Says::Usual, Some(Ok(_))));
    (say(&shared, &asked, step.says, decided), whole)
}

fn say(
    shared: &Shared,
    asked: &Asked,
    says: Says,
    decided: Option<Result<Sold, Why>>,
) -> Result<Response<Body>, Cut> {
    let usual = |decided: Option<Result<Sold, Why>>| match decided.expect("only what is processed is usual") {
        Ok(sold) => answer::sold(&shared.profile, &shared.extras(), &sold),
        Err(why) => answer::refused(&shared.profile, why),
    };
    Ok(match says {
        Says::Usual => answer::encoded(shared, asked, usual(decided)),
        Says::Cut => return Err(Cut),
        Says::CutHalf => {
            let (status, fields) = usual(decided);
            let text = fields.to_string();
            let half = text[..text.len() / 2].to_owned();
            let frames = stream::iter([Ok(half), Err(Cut)]);
            let mut response = answer::plain(shared, status, Body::from_stream(frames));
            response.headers_mut().insert("content-length", text.len().into());
            response
        }
        Says::Garbled => {
            let (status, fields) = usual(decided);
            let text = fields.to_string();
            let mut response = answer::plain(shared, status, format!("{},,", &text[..text.len() - 1]));
            response.headers_mut().insert("content-type", "application/json".parse().unwrap());
            response
        }
        Says::Padded(bytes) => {
            let (status, mut fields) = usual(decided);
            fields["padding"] = Value::String("x".repeat(bytes));
            answer::encoded(shared, asked, (status, fields))
        }
        Says::Refusal(why) => answer::encoded(shared, asked, answer::refused(&shared.profile, why)),
        Says::Status(status, header) => bare(shared, status, header),
    })
}

fn bare(shared: &Shared, status: StatusCode, header: Option<(&'static str, String)>) -> Response<Body> {
    let mut response = answer::plain(shared, status, "<html>a page for people</html>");
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// A POST while it is here. One whose client hangs up has not been answered.
struct Visit {
    shared: Shared,
    post: usize,
    place: Option<Place>,
}

impl Visit {
    fn begin(shared: &Shared, asked: &Asked) -> Self {
        let profile = &shared.profile;
        let params = asked.params(profile.takes).unwrap_or_default();
        let mut ledger = shared.ledger();
        if profile.takes != Takes::Query {
            for name in ["client_secret", "refresh_token", "code", "assertion"] {
                if asked.query.contains(name) {
                    ledger.violated(Violation::InUrl(name.to_owned()));
                }
            }
        }
        let place = params.get("refresh_token").and_then(|token| ledger.arrived(token));
        let presented = place.map(|place| ledger.account(place));
        let mut posts = shared.posts();
        posts.push(noted(shared, asked, params, presented));
        Self { shared: shared.clone(), post: posts.len() - 1, place }
    }

    fn end(mut self, sold_and_answered: bool) {
        if let Some(place) = self.place.take() {
            self.shared.ledger().left(place, sold_and_answered);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shared.ledger().left(place, false);
        }
    }
}

fn noted(shared: &Shared, asked: &Asked, params: Params, presented: Option<(String, usize)>) -> Post {
    Post {
        path: asked.path.clone(),
        grant_type: token::grant_type(shared, asked, &params).to_owned(),
        presented,
        params,
        headers: asked.headers.clone(),
        at: shared.clock.now(),
        ended: Ended::Open,
    }
}
