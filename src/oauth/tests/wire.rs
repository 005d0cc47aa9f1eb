//! What may go wrong on the way: what is safe to repeat is told from what is not.

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::oauth::{ANSWER_BYTES, AppFault, FillError, NotSent, Unreadable, UrlTemplate};

/// Refreshes run in tasks of their own.
fn movable<T: Send>(future: T) -> T {
    future
}

async fn failed(answer: &str) -> Failure {
    let (server, endpoint) = Stage::new("", answer).await.endpoint();
    let failure = match movable(endpoint.refresh(&secret("rt-1"), &[])).await {
        Ok(raw) => raw.read(&Dialect::default()).unwrap_err(),
        Err(failure) => failure,
    };
    server.one().await;
    failure
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in ["301 Moved Permanently", "307 Temporary Redirect"] {
        let answer =
            format!("HTTP/1.1 {status}\r\nlocation: https://evil.test/\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(failed(&answer).await, Failure::App(AppFault::Redirect));
    }
}

#[tokio::test]
async fn an_answer_of_a_megabyte_is_read_and_a_longer_one_is_none() {
    let padded = |length: usize| {
        let body = TOKENS.to_owned() + &" ".repeat(length - TOKENS.len());
        server::response(200, "application/json", &body)
    };
    let (_, tokens) = Stage::new("", &padded(ANSWER_BYTES)).await.refresh().await;
    assert_eq!(tokens.unwrap().access, secret("at-1"));
    assert_eq!(failed(&padded(ANSWER_BYTES + 1)).await, Failure::Unreadable(Unreadable::TooLong));
    let refusal = server::response(400, "text/html", &" ".repeat(ANSWER_BYTES + 1));
    assert_eq!(failed(&refusal).await, Failure::Transient { retry_after: None });
}

#[tokio::test]
async fn what_breaks_off_after_it_was_sent_is_ambiguous() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"access_token\":",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "no http\r\n\r\n",
    ] {
        assert_eq!(failed(answer).await, Failure::Ambiguous, "{answer:?}");
    }
}

#[tokio::test]
async fn no_answer_in_time_is_ambiguous() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", silent.local_addr().unwrap());
    let stage = Stage::new("", "").await.with_token_url(&url);
    let limit = stage.limit;
    let (_server, endpoint) = stage.endpoint();
    let token = secret("rt-1");
    let asking = endpoint.refresh(&token, &[]);
    let waiting = async {
        let (mut tcp, _) = silent.accept().await.unwrap();
        tcp.read_exact(&mut [0; 16]).await.unwrap();
        // It was sent. From here on the time is ours.
        tokio::time::pause();
        tokio::time::advance(limit).await;
        tcp
    };
    let (answer, _open) = tokio::join!(asking, waiting);
    assert_eq!(answer.err(), Some(Failure::Ambiguous));
}

#[tokio::test]
async fn what_fails_before_a_byte_was_sent_may_be_repeated() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("https://{}/token", gone.local_addr().unwrap());
    drop(gone);
    let (_server, endpoint) = Stage::new("", "").await.with_token_url(&nobody).endpoint();
    let unreachable = endpoint.refresh(&secret("rt-1"), &[]).await.err();
    assert_eq!(unreachable, Some(Failure::NotSent(NotSent::Connect)));

    let stage = Stage::new("", "").await;
    let stranger = format!("https://127.0.0.1:{}/token", stage.server.port);
    let (server, endpoint) = stage.with_token_url(&stranger).endpoint();
    let untrusted = endpoint.refresh(&secret("rt-1"), &[]).await.err();
    assert_eq!(untrusted, Some(Failure::NotSent(NotSent::Tls)), "the certificate is for another name");
    server.nothing().await;
}

#[tokio::test]
async fn an_address_that_the_guard_refuses_is_not_dialled() {
    let stage = Stage::new("", &json(TOKENS)).await;
    let (provider, app) = (Arc::new(stage.provider.clone()), Arc::new(App::anonymous()));
    let endpoint = TokenEndpoint::new(&stage.transport(&[]), &provider, &app, &|_| None).unwrap();
    let refused = endpoint.refresh(&secret("rt-1"), &[]).await.err();
    assert_eq!(refused, Some(Failure::NotSent(NotSent::Address)));
    stage.server.nothing().await;
}

#[tokio::test]
async fn a_secret_that_no_request_can_carry_sends_nothing() {
    let (server, endpoint) = Stage::new("", "").await.endpoint();
    let binary = Secret::new(vec![0xff, 0xfe]);
    let refused = endpoint.refresh(&binary, &[]).await.err();
    assert_eq!(refused, Some(Failure::NotSent(NotSent::Request)));
    server.nothing().await;
}

#[tokio::test]
async fn the_accounts_own_host_is_asked_and_no_other() {
    let url = "https://{instance}.idp.test/token";
    let asked = async |name: &'static str, value: &'static str| {
        let stage = Stage::new("", &json(TOKENS)).await.with_token_url(url);
        let values = move |asked: &str| (asked == name).then_some(value);
        let (provider, app) = (Arc::new(stage.provider.clone()), Arc::new(App::anonymous()));
        let endpoint = TokenEndpoint::new(&stage.transport(&["127.0.0.0/8"]), &provider, &app, &values)?;
        endpoint.refresh(&secret("rt-1"), &[]).await?;
        Ok(stage.server.one().await.headers["host"].clone())
    };
    let unfit = |name: &str| Err(Failure::NotSent(NotSent::Metadata(FillError::Unfit(name.to_owned()))));
    assert_eq!(asked("instance", "acme").await, Ok("acme.idp.test".to_owned()));
    assert_eq!(asked("instance_url", "https://acme.idp.test").await, Ok("acme.idp.test".to_owned()));
    for evil in ["evil.test/", "evil.test#", "a@b", "", "acme.idp.test:1/", "..", "127.0.0.1?"] {
        assert_eq!(asked("instance", evil).await, unfit("instance"), "{evil}");
    }
    for evil in
        ["https://evil.test", "https://acme.idp.test.evil.test", "https://acme.idp.test@evil.test", "x"]
    {
        assert_eq!(asked("instance_url", evil).await, unfit("instance_url"), "{evil}");
    }
    let in_path = |value: &'static str| {
        let template: UrlTemplate = "https://idp.test/{tenant}/token".to_owned().try_into().unwrap();
        template.fill(&move |_| Some(value)).map(|url| url.to_string())
    };
    assert_eq!(in_path("contoso.example"), Ok("https://idp.test/contoso.example/token".to_owned()));
    for evil in ["", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "a\\b"] {
        assert_eq!(in_path(evil), Err(FillError::Unfit("tenant".to_owned())), "{evil}");
    }
    let missing = Err(Failure::NotSent(NotSent::Metadata(FillError::Missing("instance".to_owned()))));
    assert_eq!(asked("other", "acme").await, missing);
}
