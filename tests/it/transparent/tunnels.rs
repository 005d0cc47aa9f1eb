//! What the operator lets pass through opaque, and who asks where nobody says so.

use keybearer::drain::Drain;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{ADDRESS, HOST, get_as_nobody, http, https, pod, refused, rest, tls, told};

const EGRESS: &str =
    "tunnel: [opaque.tunnel.test, \"*.tunnel.test:8080\", \"db.tunnel.test:5432\", \"inner.test:5432\"]";
pub(super) const GREETING: &[u8] = b"I speak first\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_reached_by_the_rule_of_its_port() {
    let Some(pod) = pod("server-first", EGRESS, "limits: {handshake_timeout: 300ms}").await else { return };
    Drain::default().spawn(greeter(pod.world.listener("[::]:5432")));
    for address in ["140.82.121.12:5432", "[2606:50c0:8000::155]:5432"] {
        let mut stream = pod.connect(address);
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!((&greeting[..], &rest(&mut stream).await[..]), (GREETING, &b"hello"[..]), "{address}");
    }
    let event = pod.recorded(|event| event["host"] == "db.tunnel.test:5432").await;
    assert_eq!((&event["decision"], &event["rule"]), (&"allow".into(), &"egress.tunnel".into()), "{event}");
    assert_eq!(
        (&event["bytes_in"], &event["bytes_out"]),
        (&5.into(), &(GREETING.len() + 5).into()),
        "{event}"
    );
    // The same port elsewhere, and an address that the guard does not let pass although the name is listed.
    for (address, host) in
        [("140.82.121.66:5432", "140.82.121.66:5432"), ("10.77.0.1:5432", "inner.test:5432")]
    {
        assert_eq!(rest(&mut pod.connect(address)).await, b"", "{address}");
        let event = pod.recorded(|event| event["host"] == host).await;
        assert_eq!(
            (&event["decision"], &event["error"]),
            (&"deny".into(), &"destination_denied".into()),
            "{event}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_passes_by_its_server_name_or_host() {
    let Some(pod) = pod("listed", EGRESS, "").await else { return };
    Drain::default().spawn(greeter(pod.world.listener("140.82.121.12:8080")));
    // Not our leaf but the provider's own, at the address that the name has.
    let through = tls(&pod, "140.82.121.66:443", "opaque.tunnel.test", ("http/1.1", pod.roots_file())).await;
    let mut through = crate::support::agent::http_over(through.unwrap()).await;
    let answer = get_as_nobody(&mut through, "opaque.tunnel.test", "/echo").await;
    assert_eq!((answer.status.as_u16(), answer.headers.contains_key("keybearer-action")), (401, false));
    drop(through); // what passes through is recorded when it ends
    pod.recorded(|event| event["host"] == "opaque.tunnel.test" && event["decision"] == "allow").await;

    let mut plain = pod.connect("140.82.121.66:8080");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: db.tunnel.test:8080\r\n\r\n").await.unwrap();
    plain.shutdown().await.unwrap();
    let expected = [GREETING, b"GET / HTTP/1.1\r\nHost: db.tunnel.test:8080\r\n\r\n"].concat();
    assert_eq!(rest(&mut plain).await, expected);
    // Not at another port, and a connector's host never.
    let mut connection = http(&pod, "140.82.121.11:80").await;
    let answer = get_as_nobody(&mut connection, "opaque.tunnel.test", "/echo").await;
    assert_eq!(told(&answer), refused(401, "identity_required"));
    let mut connection = http(&pod, "140.82.121.6:8080").await;
    assert_eq!(told(&get_as_nobody(&mut connection, HOST, "/echo").await), refused(401, "identity_required"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_the_default_identity() {
    let config = "identity: {default: {tenant: globex, role: researcher}}";
    let Some(pod) = pod("default identity", "", config).await else { return };
    let mut connection = https(&pod, ADDRESS, HOST, "h2").await;
    let answer = get_as_nobody(&mut connection, HOST, "/echo").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["x-provider-tenant"]),
        (200, &"globex".parse().unwrap())
    );
}

/// Greets, then tells everything back.
pub(super) async fn greeter(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        Drain::default().spawn(async move {
            stream.write_all(GREETING).await.unwrap();
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
}
