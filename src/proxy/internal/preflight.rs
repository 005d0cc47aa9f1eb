//! `POST /v1/preflight`: a list of operations, and for each whether a request for it would be let through now.

use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{
        gather::Gathering,
        record::Record,
        refusal::{Code, Refusal},
    },
    inquiry::Inquiry,
};
use crate::id::{ConnectorName, OperationName};

/// More than any plan has, and few enough to be answered at once.
const MOST: usize = 1000;

const SHAPE: &str = "{\"operations\": [{\"connector\": \"...\", \"operation\": \"...\"}, {\"method\": \"...\", \"url\": \"...\"}]}";

/// One thing that the agent means to do.
pub(super) enum Item {
    Operation { connector: ConnectorName, operation: OperationName },
    Request { method: String, url: String },
}

/// The body. The list may also stand alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    operations: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    connector: Option<ConnectorName>,
    operation: Option<OperationName>,
    method: Option<String>,
    url: Option<String>,
}

/// Reads the body whole, within the limit.
///
/// # Errors
/// `body_too_large`, `bad_request` and `overloaded`.
pub(super) async fn read(
    body: Incoming,
    gathering: &Gathering<'_>,
    record: &Record,
) -> Result<Vec<Item>, Refusal> {
    let too_long = || {
        let limit = gathering.limit;
        let detail = format!("body_too_large: a preflight may have {limit} bytes; ask in several");
        Refusal::new(Code::BodyTooLarge, detail).with("limit", limit)
    };
    let body = gathering.whole(body).await.map_err(|unread| unread.refusal(too_long))?;
    record.bytes_in().add(body.bytes.len());
    parse(&body.bytes)
}

fn parse(bytes: &[u8]) -> Result<Vec<Item>, Refusal> {
    let parsed = if bytes.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(bytes)
    } else {
        serde_json::from_slice(bytes).map(|plan: Plan| plan.operations)
    };
    let written: Vec<Written> = parsed.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Refusal::bad_request(format!("the body cannot be read at line {line}, column {column}: send {SHAPE}"))
    })?;
    if written.len() > MOST {
        return Err(Refusal::bad_request(format!("the list is longer than {MOST}: ask in several")));
    }
    written.into_iter().enumerate().map(|(index, written)| written.item(index)).collect()
}

impl Written {
    fn item(self, index: usize) -> Result<Item, Refusal> {
        match self {
            Self { connector: Some(connector), operation: Some(operation), method: None, url: None } => {
                Ok(Item::Operation { connector, operation })
            }
            Self { connector: None, operation: None, method: Some(method), url: Some(url) } => {
                Ok(Item::Request { method, url })
            }
            _ => Err(Refusal::bad_request(format!(
                "operations[{index}] names neither a connector and an operation, nor a method and a url: send {SHAPE}"
            ))),
        }
    }
}

/// The verdict on each item, in the list's order, and on the whole.
pub(super) async fn answer(inquiry: &mut Inquiry<'_>, items: Vec<Item>) -> Value {
    let mut ready = true;
    let mut told = Vec::with_capacity(items.len());
    for item in items {
        let verdict = match &item {
            Item::Operation { connector, operation } => inquiry.operation(connector, operation).await,
            Item::Request { method, url } => inquiry.request(method, url).await,
        };
        ready &= verdict.is_ok();
        told.push(item.told(verdict));
    }
    json!({"ready": ready, "policy_revision": inquiry.rules.revision, "operations": told})
}

impl Item {
    /// What was asked, with what a request would be told: the members of its problem document.
    fn told(self, verdict: Result<(), Refusal>) -> Map<String, Value> {
        let mut told = Map::new();
        match self {
            Self::Operation { connector, operation } => {
                told.insert("connector".into(), json!(connector));
                told.insert("operation".into(), json!(operation));
            }
            Self::Request { method, url } => {
                told.insert("method".into(), json!(method));
                told.insert("url".into(), json!(url));
            }
        }
        told.insert("ready".into(), json!(verdict.is_ok()));
        if let Err(refusal) = verdict {
            told.extend(refusal.told(refusal.code().status()));
        }
        told
    }
}
