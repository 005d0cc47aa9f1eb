//! `GET /v1/operations`: what the asking identity may do, and how the accounts stand that it would be done with.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::{
    super::{arrival::Arrival, refusal::Code},
    inquiry::Inquiry,
};
use crate::{credential::principal_kind, ruleset::Offer};

/// The members of a refusal that a person or an agent acts upon.
const ACTED_UPON: [&str; 5] = ["error", "detail", "reconnect_url", "missing", "by"];

/// All operations of the identity, or those of the connector that `?connector=` names.
pub(super) async fn answer(inquiry: &mut Inquiry<'_>, arrival: &Arrival) -> Value {
    let only = arrival.query.as_deref().and_then(wanted);
    let rules = inquiry.rules;
    let subject = &inquiry.identity.subject;
    let mut operations = Vec::new();
    for offer in rules.offers(subject) {
        if only.as_deref().is_none_or(|only| only == offer.connector.name.as_str()) {
            operations.push(described(inquiry, &offer).await);
        }
    }
    json!({"identity": subject, "policy_revision": rules.revision, "operations": operations})
}

async fn described(inquiry: &mut Inquiry<'_>, offer: &Offer<'_>) -> Value {
    let Offer { connector, operation, permit } = offer;
    let requests = operation.requests.iter().map(|line| format!("{} {}", line.method, line.template));
    let mut told = Map::new();
    told.insert("connector".into(), json!(connector.name));
    told.insert("operation".into(), json!(operation.name));
    told.insert("effect".into(), json!(operation.effect));
    told.insert("scopes".into(), json!(operation.scopes));
    told.insert("requests".into(), requests.collect());
    told.insert("principal".into(), json!(principal_kind(&permit.account().principal)));
    if let Some(denial) = permit.would_deny() {
        told.insert("would_deny".into(), json!(denial.code()));
    }
    let standing = match inquiry.offer(offer).await {
        Ok(()) => "ready",
        Err(refusal) => {
            let members = refusal.told(refusal.code().status());
            let acted_upon = members.into_iter().filter(|(name, _)| ACTED_UPON.contains(&name.as_str()));
            told.extend(acted_upon);
            status(refusal.code())
        }
    };
    told.insert("account_status".into(), json!(standing));
    Value::Object(told)
}

/// How an account stands whose requests are refused so.
const fn status(code: Code) -> &'static str {
    match code {
        Code::AccountMissing => "missing",
        Code::AccountFrozen => "frozen",
        Code::AuthRevoked => "revoked",
        Code::AuthExpired => "expired",
        Code::InsufficientScope => "insufficient_scope",
        Code::DestinationDenied => "no_host",
        _ => "unavailable",
    }
}

/// The value of the last `connector` parameter.
fn wanted(query: &str) -> Option<String> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("connector="));
    values.next_back().map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned())
}
