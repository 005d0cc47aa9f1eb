//! HTTP/1.1 and HTTP/2 on either side.

use http::Version;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::{empty, pieces, request, tunnel};
use crate::support::{
    agent::{Answer, Connection},
    provider::Speaks,
    raw::{Raw, Script},
    stage::{HOST, Stage, Staging},
};

const AGENTS: [&str; 2] = ["http/1.1", "h2"];
const PROVIDERS: [(Speaks, Version); 2] =
    [(Speaks::Http1, Version::HTTP_11), (Speaks::Http2, Version::HTTP_2)];

async fn before(speaks: Speaks) -> Stage {
    Stage::set(Staging { speaks, ..Staging::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_its_meaning_in_the_other_version() {
    for (speaks, version) in PROVIDERS {
        let stage = before(speaks).await;
        for alpn in AGENTS {
            let mut agent = tunnel(&stage, alpn).await;
            let asked = request(&agent, "GET", "/echo?q=a%20b&r").header("x-a", "1").header("x-a", "2");
            let answer = agent.call(empty(asked)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["path"], "/echo?q=a%20b&r");
            let seen = stage.provider.requests().pop().unwrap();
            assert_eq!((seen.version, seen.authority.as_deref()), (version, Some(HOST)));
            assert_eq!(seen.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert_eq!(seen.headers.contains_key("host"), version == Version::HTTP_11);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_no_declared_length_arrives_whole_with_its_trailers() {
    for (speaks, version) in PROVIDERS {
        let stage = before(speaks).await;
        for alpn in AGENTS {
            let mut agent = tunnel(&stage, alpn).await;
            let asked = request(&agent, "PUT", "/upload").header("trailer", "x-end, authorization");
            let body = pieces(&["ab", "", "cde"], &[("x-end", "1"), ("authorization", "Bearer evil")]);
            let answer = agent.call(asked.body(body).unwrap()).await;
            assert_eq!(answer.json()["len"], 5);
            let seen = stage.provider.requests().pop().unwrap();
            assert_eq!(
                (seen.version, seen.body.sha256.as_deref()),
                (version, answer.json()["sha256"].as_str())
            );
            let trailers = seen.body.trailers.unwrap();
            assert_eq!((trailers.len(), &trailers["x-end"]), (1, &"1".parse().unwrap()), "{alpn}");
            let event = stage.action(answer.headers["keybearer-action"].to_str().unwrap()).await;
            assert_eq!(event["bytes_in"], 5);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_get_is_not_left_out() {
    for (speaks, _) in PROVIDERS {
        let stage = before(speaks).await;
        for alpn in AGENTS {
            let mut agent = tunnel(&stage, alpn).await;
            let mut asked = request(&agent, "GET", "/echo");
            if alpn == "http/1.1" {
                asked = asked.header("transfer-encoding", "chunked");
            }
            let answer = agent.call(asked.body(pieces(&["abc", "de"], &[])).unwrap()).await;
            assert_eq!(answer.json()["body"], "abcde", "{speaks:?} {alpn}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_follow_an_answer_to_an_agent_that_takes_them() {
    for (speaks, _) in PROVIDERS {
        let stage = before(speaks).await;
        for alpn in AGENTS {
            let mut agent = tunnel(&stage, alpn).await;
            let mut asked = request(&agent, "GET", "/trailers").header("te", "trailers");
            if alpn == "http/1.1" {
                asked = asked.header("connection", "te");
            }
            let answer = agent.call(empty(asked)).await;
            assert_eq!(answer.text(), "body\n");
            assert_eq!(answer.trailers.unwrap()["x-checksum"], "of-the-body", "{speaks:?} {alpn}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_a_stream_passes_before_the_next_is_sent() {
    for (speaks, _) in PROVIDERS {
        let stage = before(speaks).await;
        for alpn in AGENTS {
            let mut agent = tunnel(&stage, alpn).await;
            let response = agent.send(empty(request(&agent, "GET", "/stream/3/paced"))).await.unwrap();
            assert_eq!(response.headers()["content-type"], "text/event-stream");
            let id = response.headers()["keybearer-action"].to_str().unwrap().to_owned();
            let mut body = response.into_body();
            for n in 0..3 {
                assert!(futures_util::poll!(body.frame()).is_pending());
                stage.provider.pace().step();
                let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!(event, format!("data: event {n}\n\n"));
            }
            assert_eq!(body.collect().await.unwrap().to_bytes(), "");
            assert_eq!(stage.action(&id).await["bytes_out"], 45);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_keeps_its_declared_length() {
    for (speaks, _) in PROVIDERS {
        let stage = before(speaks).await;
        for alpn in AGENTS {
            let mut agent = tunnel(&stage, alpn).await;
            let answer = agent.call(empty(request(&agent, "GET", "/bytes/3000001"))).await;
            assert_eq!(answer.headers["content-length"], "3000001");
            assert_eq!(answer.body.len(), 3_000_001);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_head_has_its_length_and_no_body() {
    for (speaks, _) in PROVIDERS {
        let stage = before(speaks).await;
        for alpn in AGENTS {
            let mut agent = tunnel(&stage, alpn).await;
            for _ in 0..2 {
                let answer = agent.call(empty(request(&agent, "HEAD", "/echo"))).await;
                assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
                assert_ne!(answer.headers["content-length"], "0");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_without_a_body_pass_and_leave_the_connection_usable() {
    for (script, status, header) in [
        ("HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n", 204, "x-a"),
        ("HTTP/1.1 304 Not Modified\r\netag: \"e\"\r\ncontent-length: 5\r\n\r\n", 304, "etag"),
        ("HTTP/1.1 205 Reset Content\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n", 205, "x-a"),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n",
            204,
            "x-a",
        ),
    ] {
        let raw = Raw::start(Script::Answer(script)).await;
        let policy = crate::support::stage::POLICY.replace(
            "spec:\n  hosts: [\"api.crm.test\"]",
            "spec:\n  cleartext: true\n  hosts: [\"api.crm.test:443\"]",
        );
        let staging = Staging {
            policies: vec![("policy.yaml", policy)],
            resolve: vec![(HOST.to_owned(), raw.address())],
            ..Staging::default()
        };
        let stage = Stage::set(staging).await;
        for alpn in AGENTS {
            let mut agent: Connection<super::Pieces> = tunnel(&stage, alpn).await;
            for _ in 0..2 {
                let answer: Answer = agent.call(empty(request(&agent, "GET", "/echo"))).await;
                assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0), "{script}");
                assert!(answer.headers.contains_key(header));
            }
        }
        assert_eq!((raw.connections(), raw.requests().len()), (1, 4));
        assert_eq!(stage.last_action().await["status"], json!(status));
    }
}
