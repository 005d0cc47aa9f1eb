//! What is refused because of the provider, or of the way to it.

use std::net::SocketAddr;

use keybearer::id::Principal;
use serde_json::json;

use super::{Asked, Refusal, Way};
use crate::support::{
    raw::{Raw, Script},
    stage::{POLICY, Stage, Staging, account},
};

const SECRET: &str = "kb-canary-far-3b1a77d0e2";

/// Hosts that something is wrong with.
fn connector(cleartext: bool, hosts: &str) -> String {
    format!(
        "---\napiVersion: keybearer.dev/v1\nkind: Connector\nmetadata: {{name: far}}\nspec:\n  hosts: [{hosts}]\n  cleartext: {cleartext}\n  auth: {{type: static}}\n  inject: [{{header: Authorization, value: \"Bearer {{token}}\"}}]\n  operations: [{{name: look, request: [\"GET /look\", \"POST /look\"]}}]\n---\napiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {{name: scout}}\nspec:\n  tenants: [\"*\"]\n  grants: [{{connector: far, as: tenant, scopes: []}}]\n"
    )
}

async fn stage(cleartext: bool, resolve: &[(&str, SocketAddr)], config: &str) -> Stage {
    let hosts: Vec<String> = resolve.iter().map(|(name, _)| format!("\"{name}:443\"")).collect();
    let hosts = [&hosts[..], &["\"nowhere.invalid:443\"".to_owned()]].concat().join(", ");
    let mut staging = Staging {
        policies: vec![("policy.yaml", POLICY.to_owned()), ("far.yaml", connector(cleartext, &hosts))],
        config: config.to_owned(),
        resolve: resolve.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect(),
        ..Staging::default()
    };
    staging.accounts.push(account("acme", "far", Principal::Tenant, SECRET));
    Stage::set(staging).await
}

/// A port that nobody listens on.
pub(super) async fn closed_port() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn refused(stage: &Stage, host: &str, status: u16, code: &str, proxy_error: &str) {
    for way in Way::ALL {
        let answer = way.ask(stage, &Asked::of("acme", "scout", "GET", "/look").at(host)).await;
        Refusal { status, code, proxy_error, members: json!({"host": host}) }.check(stage, &answer).await;
        let event = stage.action(answer.headers["keybearer-action"].to_str().unwrap()).await;
        assert_eq!((&event["decision"], &event["account"]), (&json!("allow"), &json!("acme/far/tenant")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_listen_or_has_no_address_is_unreachable() {
    let stage = stage(false, &[("refused.test", closed_port().await)], "").await;
    refused(&stage, "refused.test", 502, "upstream_unreachable", "destination_unavailable").await;
    refused(&stage, "nowhere.invalid", 502, "upstream_unreachable", "destination_unavailable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_closes_or_speaks_something_else_is_unreachable() {
    for script in [
        Script::Close,
        Script::AnswerAndClose("SSH-2.0-OpenSSH_9.9\r\n"),
        Script::AnswerAndClose("HTTP/1.1 20"),
    ] {
        let raw = Raw::start(script).await;
        let stage = stage(true, &[("broken.test", raw.address())], "").await;
        refused(&stage, "broken.test", 502, "upstream_unreachable", "destination_unavailable").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_used_is_told_as_what_it_is() {
    for (answer, says) in [
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "nobody asked for"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "two lengths"),
        ("SSH-2.0-OpenSSH_9.9\r\n", "cannot be read as HTTP"),
    ] {
        let raw = Raw::start(Script::Answer(answer)).await;
        let stage = stage(true, &[("broken.test", raw.address())], "").await;
        refused(&stage, "broken.test", 502, "upstream_unreachable", "destination_unavailable").await;
        let asked = Asked::of("acme", "scout", "GET", "/look").at("broken.test");
        let detail = Way::Absolute.ask(&stage, &asked).await.json()["detail"].take();
        assert!(detail.as_str().unwrap().contains(says), "{detail}");
        raw.closed(4).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_have_been_carried_out_is_not_sent_twice() {
    let raw = Raw::start(Script::Close).await;
    let stage = stage(true, &[("broken.test", raw.address())], "").await;
    let answer =
        Way::Absolute.ask(&stage, &Asked::of("acme", "scout", "POST", "/look").at("broken.test")).await;
    assert_eq!(answer.error().as_deref(), Some("upstream_unreachable"));
    assert_eq!(raw.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_with_another_certificate_gets_nothing() {
    let other = Stage::open().await;
    let plain = Raw::start(Script::AnswerAndClose("HTTP/1.1 400 Bad Request\r\n\r\n")).await;
    let stage =
        stage(false, &[("other-ca.test", other.provider.address()), ("plain.test", plain.address())], "")
            .await;
    refused(&stage, "other-ca.test", 502, "upstream_tls", "tls_certificate_error").await;
    assert_eq!(other.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_not_accepted() {
    let mut staging = Staging {
        policies: vec![("far.yaml", connector(false, "\"elsewhere.test\"")[4..].to_owned())],
        accounts: vec![account("acme", "far", Principal::Tenant, SECRET)],
        ..Staging::default()
    };
    staging.config =
        "  # the provider's address under a name that its certificate does not have\n".to_owned();
    let raw = Stage::open().await;
    staging.resolve.push(("elsewhere.test".to_owned(), raw.provider.address()));
    let stage = Stage::set(staging).await;
    refused(&stage, "elsewhere.test", 502, "upstream_tls", "tls_certificate_error").await;
    assert_eq!(raw.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_says_nothing_runs_into_the_limit() {
    let raw = Raw::start(Script::Silence).await;
    let stage = stage(true, &[("silent.test", raw.address())], "limits: {upstream_timeout: 50ms}\n").await;
    refused(&stage, "silent.test", 504, "upstream_timeout", "http_response_timeout").await;
    raw.closed(3).await;
    assert_eq!(raw.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_inside_is_refused_before_anything_is_dialled() {
    let inside = "10.255.255.1:443".parse().unwrap();
    let stage = stage(false, &[("inside.test", inside)], "").await;
    for way in Way::ALL {
        let answer = way.ask(&stage, &Asked::of("acme", "scout", "GET", "/look").at("inside.test")).await;
        let members = json!({"host": "inside.test", "why": "address"});
        let refusal = Refusal {
            status: 403,
            code: "destination_denied",
            proxy_error: "destination_ip_prohibited",
            members,
        };
        refusal.check(&stage, &answer).await;
    }
}
