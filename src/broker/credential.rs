//! One account for one subject: may this workload have it, and what is it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use super::{Broker, caller::Caller, record::Asked, refusal::Refusal};
use crate::{
    catalog::Connector,
    credential::wire::{Answer, Ask, Code, Question, Standing},
    policy::Permit,
    ruleset::Ruleset,
    secret,
};

/// A question's names are 200 bytes at most, each.
const LARGEST_BODY: usize = 8192;
/// How long it may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn answer(
    State(broker): State<Broker>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let question = read(request.into_body()).await?;
    let rules = broker.parts().rules.current();
    let asked = || Asked { workload: caller.workload(), question: &question, revision: &rules.revision };
    let (permit, connector) = match entitled(&caller, &question, &rules) {
        Ok(entitled) => entitled,
        Err(refusal) => {
            let why = refusal.0.detail.clone();
            broker.record_withheld(asked(), refusal.code().as_str(), Some(why)).await;
            return Err(refusal);
        }
    };
    let found = broker.parts().local.answer(&permit, &question, connector).await;
    let found = found.map_err(|error| Refusal::of(&error).connecting(&broker, &question.account));
    match &found {
        // Only these carry secrets, and a refusal of the others refuses nothing.
        _ if question.ask != Ask::Give => {}
        Ok(answer) if answer.standing == Standing::Live => broker.record_given(asked(), answer).await?,
        Ok(answer) => broker.record_withheld(asked(), standing(answer), cause(answer)).await,
        Err(refusal) => broker.record_withheld(asked(), refusal.code().as_str(), None).await,
    }
    let answer = Answer { reconnect_url: Some(broker.reconnect_url(&question.account)), ..found? };
    told(&answer)
}

/// The permit and the account's connector, where this workload may speak for the subject, and the subject's requests go
/// with the account.
/// One refusal for all that is wrong: whoever may not have an account is not told whether there is one.
fn entitled<'a>(
    caller: &Caller,
    question: &Question,
    rules: &'a Ruleset,
) -> Result<(Permit, &'a Arc<Connector>), Refusal> {
    let Question { account, subject, .. } = question;
    let refused = |why: String| Refusal::new(Code::IdentityNotAllowed, why);
    if !rules.bindings.allows(caller.workload(), subject) {
        return Err(refused(format!(
            "no binding lets the workload {} speak for role {} of tenant {}{}",
            caller.workload(),
            subject.role,
            subject.tenant,
            subject.user.as_ref().map_or_else(String::new, |user| format!(" and user {user}")),
        )));
    }
    let entitled = rules.entitled(subject, account).and_then(|permit| {
        let connector = rules.catalog.connector(permit.account().connector.as_str())?;
        Some((permit, connector))
    });
    entitled.ok_or_else(|| {
        refused(format!(
            "nothing that role {} of tenant {} may do goes with {account}",
            subject.role, subject.tenant
        ))
    })
}

async fn read(body: Body) -> Result<Question, Refusal> {
    let bad = |detail: String| Refusal::new(Code::BadRequest, detail);
    let Ok(Ok(body)) = timeout(PATIENCE, Limited::new(body, LARGEST_BODY).collect()).await else {
        return Err(bad(format!("the question did not arrive, or is longer than {LARGEST_BODY} bytes")));
    };
    serde_json::from_slice(&body.to_bytes()).map_err(|error| bad(format!("this is no question: {error}")))
}

fn told(answer: &Answer) -> Result<Response, Refusal> {
    let text = secret::to_json(answer).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        Refusal::new(Code::VaultUnavailable, "the broker cannot write its answer")
    })?;
    let mut response = Body::from(Bytes::from_owner(text)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

const fn standing(answer: &Answer) -> &'static str {
    match answer.standing {
        Standing::Live => "live",
        Standing::Over => "token_over",
        Standing::Closed => "needs_person",
    }
}

fn cause(answer: &Answer) -> Option<String> {
    answer.cause.map(|cause| cause.to_string())
}
