//! What the demo shows, in order, and what must come of each call for it to be shown as true.

use http::header;
use serde::Serialize;
use serde_json::Value;

use super::{
    agent::{Answer, Call, Way},
    provider::{HOST, Received},
    world::World,
};
use crate::secret::Secret;

/// One call and what must come of it.
pub(super) struct Scene {
    title: &'static str,
    call: Call,
    must: Outcome,
}

/// What came of a call, or must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Outcome {
    pub(super) status: u16,
    /// The refusal's code.
    pub(super) error: Option<String>,
    /// The account whose key the provider received; none where nothing reached it.
    pub(super) account: Option<String>,
    /// How many requests reached the provider.
    pub(super) reached: usize,
}

/// One scene as it was played.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) title: &'static str,
    #[serde(flatten)]
    pub(super) call: Call,
    pub(super) url: String,
    pub(super) outcome: Outcome,
    /// What there is to see in it: who, and what they did.
    pub(super) shows: Vec<(&'static str, String)>,
    /// Where it differs from what must be. Empty, or something is wrong.
    pub(super) differs: Vec<String>,
    /// The `Keybearer-Action` of the answer.
    pub(super) action: Option<String>,
}

/// The story.
pub(super) fn scenes() -> Vec<Scene> {
    let read = Call {
        tenant: "acme",
        role: "researcher",
        method: "GET",
        host: HOST,
        path: "/v1/deals",
        way: Way::Absolute,
        authorization: None,
    };
    let own = Some("Bearer made-up-by-the-agent-0000");
    let update = Call { method: "PATCH", path: "/v1/deals/7", ..read };
    vec![
        Scene::allowed("a researcher of acme reads", read, 200, "acme/crm/tenant"),
        Scene::allowed(
            "it sends an Authorization of its own, which is stripped",
            Call { way: Way::Connect, authorization: own, ..read },
            200,
            "acme/crm/tenant",
        ),
        Scene::allowed(
            "the same call for globex carries the other key",
            Call { tenant: "globex", way: Way::Connect, ..read },
            200,
            "globex/crm/tenant",
        ),
        Scene::refused(
            "a researcher tries to write",
            Call { way: Way::Connect, ..update },
            403,
            "insufficient_scope",
        ),
        Scene::allowed(
            "a writer adds a note, with the writers' key",
            Call { role: "writer", method: "POST", path: "/v1/deals/7/notes", ..read },
            201,
            "acme/crm/role:writer",
        ),
        Scene::allowed(
            "a publisher writes, with the publishers' key",
            Call { role: "publisher", ..update },
            200,
            "acme/crm/role:publisher",
        ),
        Scene::refused(
            "a researcher asks a host that no connector names",
            Call { host: "paste.example", path: "/upload", way: Way::Connect, ..read },
            403,
            "destination_denied",
        ),
    ]
}

impl Scene {
    fn allowed(title: &'static str, call: Call, status: u16, account: &str) -> Self {
        Self {
            title,
            call,
            must: Outcome { status, error: None, account: Some(account.to_owned()), reached: 1 },
        }
    }

    fn refused(title: &'static str, call: Call, status: u16, error: &str) -> Self {
        Self {
            title,
            call,
            must: Outcome { status, error: Some(error.to_owned()), account: None, reached: 0 },
        }
    }

    /// Makes the call and compares.
    pub(super) async fn play(self, world: &World) -> anyhow::Result<Step> {
        let (answer, received) = world.call(&self.call).await?;
        let refusal = Refusal::read(&answer);
        let outcome = Outcome {
            status: answer.status.as_u16(),
            error: refusal.as_ref().map(|refusal| refusal.error.clone()),
            account: received.first().and_then(|received| received.account.clone()),
            reached: received.len(),
        };
        let mut differs = self.must.compare(&outcome);
        let mut shows = Vec::new();
        match (&refusal, received.first()) {
            (Some(refusal), _) => {
                shows.push(("refused", refusal.detail.clone()));
                let count = world.provider.received().len();
                shows.push((
                    "provider",
                    format!("has received {count} requests, as before: this one never left"),
                ));
            }
            (None, Some(received)) => {
                shows.push(("agent", self.sent()));
                shows.push(("provider", carried(received, &mut differs)));
            }
            (None, None) => {}
        }
        let action =
            answer.headers.get("keybearer-action").and_then(|id| id.to_str().ok()).map(str::to_owned);
        Ok(Step { title: self.title, url: self.call.url(), call: self.call, outcome, shows, differs, action })
    }

    fn sent(&self) -> String {
        let Some(own) = self.call.authorization else { return "sent no credential".to_owned() };
        let own = Secret::new(own.trim_start_matches("Bearer ").into());
        format!("sent Bearer {} as its Authorization", own.masked())
    }
}

/// Which key the provider received: exactly one.
fn carried(received: &Received, differs: &mut Vec<String>) -> String {
    let [value] = received.authorization.as_slice() else {
        let count = received.authorization.len();
        differs.push(format!("the number of Authorization headers is {count} and should be 1"));
        return format!("received {count} Authorization headers");
    };
    let account = received.account.as_deref().unwrap_or("no account");
    format!("received {value}, the key of {account}, and no other")
}

impl Outcome {
    fn compare(&self, is: &Self) -> Vec<String> {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let pairs = [
            ("the status", self.status.to_string(), is.status.to_string()),
            ("the refusal", shown(&self.error), shown(&is.error)),
            ("the account whose key arrived", shown(&self.account), shown(&is.account)),
            ("the number of requests that arrived", self.reached.to_string(), is.reached.to_string()),
        ];
        let differing = pairs.into_iter().filter(|(_, must, is)| must != is);
        differing.map(|(what, must, is)| format!("{what} is {is} and should be {must}")).collect()
    }
}

/// A refusal as an agent reads it.
struct Refusal {
    error: String,
    detail: String,
}

impl Refusal {
    /// `None` for the provider's own answers.
    fn read(answer: &Answer) -> Option<Self> {
        let is_ours = |value: &http::HeaderValue| value.as_bytes().starts_with(b"keybearer;");
        answer.headers.get("proxy-status").filter(|value| is_ours(value))?;
        let kind = answer.headers.get(header::CONTENT_TYPE)?;
        (kind == "application/problem+json").then_some(())?;
        let document: Value = serde_json::from_slice(&answer.body).ok()?;
        let text = |name: &str| document[name].as_str().map(str::to_owned);
        Some(Self { error: text("error")?, detail: text("detail")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_differs_is_told() {
        let must = Outcome { status: 200, error: None, account: Some("acme/crm/tenant".into()), reached: 1 };
        let is = Outcome { account: Some("globex/crm/tenant".into()), ..must.clone() };
        assert!(must.compare(&must).is_empty());
        assert_eq!(
            must.compare(&is),
            ["the account whose key arrived is globex/crm/tenant and should be acme/crm/tenant"]
        );
    }
}
