//! Upstream connections: kept within a tenant, and no request is lost when a provider closes one.

use std::collections::BTreeSet;

use super::request;
use crate::support::{
    agent::Body,
    provider::Speaks,
    raw::{Raw, Script},
    stage::{HOST, POLICY, Stage, Staging},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_requests_share_a_connection_and_never_anothers() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let stage = Stage::set(Staging { speaks, ..Staging::default() }).await;
        for tenant in ["acme", "globex", "acme", "globex", "acme"] {
            for role in ["researcher", "publisher"] {
                let answer = stage.get(tenant, role, "http://api.crm.test/echo").await;
                assert_eq!(answer.headers["x-provider-tenant"], tenant);
                // The connection is free again when the answer has ended, and the record with it.
                stage.action(answer.headers["keybearer-action"].to_str().unwrap()).await;
            }
        }
        let connections = |tenant: &str| {
            let seen = stage.provider.requests();
            let own = seen.iter().filter(|seen| seen.tenant.as_deref() == Some(tenant));
            own.map(|seen| seen.peer.connection).collect::<BTreeSet<_>>()
        };
        assert_eq!((connections("acme").len(), connections("globex").len()), (1, 1), "{speaks:?}");
        assert!(connections("acme").is_disjoint(&connections("globex")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_closes_kept_connections_loses_no_request() {
    let raw = Raw::start(Script::AnswerAndClose("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")).await;
    let policy = POLICY.replace(
        "spec:\n  hosts: [\"api.crm.test\"]",
        "spec:\n  cleartext: true\n  hosts: [\"api.crm.test:443\"]",
    );
    let staging = Staging {
        policies: vec![("policy.yaml", policy)],
        resolve: vec![(HOST.to_owned(), raw.address())],
        ..Staging::default()
    };
    let stage = Stage::set(staging).await;
    let mut agent = stage.tunnel(HOST, "h2").await;
    for count in 1..=200 {
        let answer = agent.call(request(&agent, "GET", "/echo").body(Body::default()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok"), "{count}");
        assert_eq!(raw.requests().len(), count);
    }
}
