//! Laws 1 and 5 where nobody asked for a proxy: one name decides, and not the address that the agent dialled.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{ADDRESS, HOST, get, get_as_nobody, http, https, refused, rest, small_pod, tls, told};
use crate::support::pod::{self, Pod};

const ALPNS: [&str; 2] = ["http/1.1", "h2"];

#[tokio::test(flavor = "multi_thread")]
async fn the_name_decides_and_not_the_address_that_was_dialled() {
    let Some(pod) = small_pod("destinations", &[]).await else { return };
    // Somebody else's machine, an address of another name, and IPv6: all are the provider by its name.
    for address in [ADDRESS, "140.82.121.66:443", "140.82.121.9:443", "[2606:50c0:8000::153]:443"] {
        for alpn in ALPNS {
            let mut connection = https(&pod, address, HOST, alpn).await;
            let answer = get(&mut connection, HOST, "/echo").await;
            assert_eq!((answer.status.as_u16(), answer.error()), (200, None), "{address} {alpn}");
            assert_eq!(answer.headers["x-provider-tenant"], "acme");
        }
    }
    let dialled: Vec<String> =
        pod.provider.requests().iter().filter_map(|seen| seen.peer.sni.clone()).collect();
    assert_eq!(dialled, [HOST; 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_two_destinations_or_none_that_is_known_is_refused() {
    let Some(pod) = small_pod("refused", &[]).await else { return };
    for alpn in ALPNS {
        for (address, name, host, expected) in [
            (ADDRESS, HOST, "stranger.test", refused(421, "misdirected")),
            (ADDRESS, "stranger.test", HOST, refused(421, "misdirected")),
            (ADDRESS, HOST, "api.provider.test:8443", refused(421, "misdirected")),
            ("140.82.121.9:443", "stranger.test", "stranger.test", refused(403, "destination_denied")),
            ("140.82.121.6:8443", HOST, "api.provider.test:8443", refused(403, "destination_denied")),
            // An address, with the leaf of an address, since no server name was sent.
            (ADDRESS, "140.82.121.6", "140.82.121.6", refused(403, "destination_denied")),
            (ADDRESS, "140.82.121.6", HOST, refused(421, "misdirected")),
            ("10.77.0.1:443", "10.77.0.1", "10.77.0.1", refused(403, "destination_denied")),
            ("[2606:50c0:8000::153]:443", "2606:50c0:8000::153", HOST, refused(421, "misdirected")),
        ] {
            let mut connection = https(&pod, address, name, alpn).await;
            let answer = get(&mut connection, host, "/echo").await;
            assert_eq!(told(&answer), expected, "{address} {name} {host} {alpn}: {}", answer.text());
        }
        let mut connection = https(&pod, ADDRESS, HOST, alpn).await;
        let answer = get_as_nobody(&mut connection, HOST, "/echo").await;
        assert_eq!(told(&answer), refused(401, "identity_required"));
        assert!(!answer.headers.contains_key("proxy-authenticate"));
    }
    assert!(pod.provider.requests().is_empty(), "none of it left the pod");
}

/// A real one, of the agents' user, which even takes the sidecar's leaf.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dials_an_address_is_refused() {
    let Some(pod) = small_pod("addresses", &[]).await else { return };
    for (url, expected) in [
        ("https://140.82.121.6/echo", "403 destination_denied"),
        ("https://[2606:50c0:8000::153]/echo", "403 destination_denied"),
        ("https://140.82.121.66:8443/echo", "403 destination_denied"),
        ("https://10.77.0.1/echo", "403 destination_denied"),
        ("http://140.82.121.6/echo", "403 destination_denied"),
        ("http://[2606:50c0:8000::153]:8080/echo", "403 destination_denied"),
    ] {
        let mut curl = pod.agent("curl");
        curl.args(["--silent", "--globoff", "--max-time", "20", "--cacert"]).arg(pod.ca_file());
        curl.args([
            "--header",
            "Agent-Identity: tenant=acme, role=researcher",
            "--write-out",
            "\n%{http_code}",
        ]);
        let (ok, out, said) = {
            curl.arg(url);
            pod::told(curl).await
        };
        let (answer, status) = out.rsplit_once('\n').unwrap();
        let answer: serde_json::Value = serde_json::from_str(answer).expect(&said);
        assert!(ok, "{url}: {said}");
        assert_eq!(format!("{status} {}", answer["error"].as_str().unwrap()), expected, "{url}");
        let event = pod.recorded(|event| event["id"] == answer["action_id"]).await;
        assert_eq!((&event["decision"], &event["tenant"]), (&"deny".into(), &"acme".into()), "{event}");
    }
    assert!(pod.provider.requests().is_empty(), "none of it left the pod");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_server_name_is_refused_and_recorded_even_if_it_takes_no_leaf() {
    let Some(pod) = small_pod("without a name", &[]).await else { return };
    // It would take a leaf of its own authority only, which is what a client does that verifies another name.
    let error = tls(&pod, ADDRESS, "140.82.121.6", ("h2", pod.roots_file())).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let event = pod.recorded(|event| event["host"] == "140.82.121.6").await;
    assert_eq!(
        (&event["decision"], &event["error"]),
        (&"deny".into(), &"destination_denied".into()),
        "{event}"
    );
    assert!(metrics(&pod).await.contains("keybearer_tls_handshakes_failed_total 1"));

    // A ClientHello that nobody may send: without the null compression (RFC 8446 §4.1.2).
    let hello = [&[0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 1]].concat();
    let mut garbage = pod.connect("140.82.121.9:443");
    garbage.write_all(&hello).await.unwrap();
    let alert = rest(&mut garbage).await;
    assert_eq!((alert.first(), alert.len()), (Some(&0x15), 7), "an alert (RFC 8446 §6): {alert:?}");
    pod.recorded(|event| event["host"] == "140.82.121.9").await;
    assert!(pod.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_refused_and_recorded() {
    let Some(pod) = super::pod("no HTTP", "", "limits: {handshake_timeout: 300ms}").await else { return };
    let mut ssh = pod.connect("140.82.121.4:22");
    ssh.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    assert!(rest(&mut ssh).await.starts_with(b"HTTP/1.1 400 "));
    pod.recorded(|event| event["error"] == "bad_request").await;

    // A client that waits for the server to speak first.
    let mut silent = pod.connect("140.82.121.12:5432");
    assert_eq!(rest(&mut silent).await, b"");
    let event = pod.recorded(|event| event["host"] == "140.82.121.12:5432").await;
    assert_eq!(event["error"], "destination_denied", "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_request_is_judged_by_its_host_and_goes_on_over_tls() {
    let Some(pod) = small_pod("plain", &[]).await else { return };
    let mut connection = http(&pod, "140.82.121.66:80").await;
    let answer = get(&mut connection, HOST, "/echo").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (200, None), "{}", answer.text());
    assert_eq!(pod.provider.requests()[0].peer.sni.as_deref(), Some(HOST));
    for (address, host, expected) in [
        ("140.82.121.6:80", "stranger.test", refused(403, "destination_denied")),
        ("140.82.121.6:80", "140.82.121.6", refused(403, "destination_denied")),
        ("140.82.121.6:80", "api.provider.test:80", refused(403, "destination_denied")),
        ("140.82.121.6:80", "api.provider.test:443", refused(421, "misdirected")),
        ("140.82.121.6:8080", "api.provider.test:8080", refused(403, "destination_denied")),
        ("140.82.121.6:8080", HOST, refused(403, "destination_denied")),
        ("140.82.121.6:8080", "api.provider.test:80", refused(421, "misdirected")),
    ] {
        let mut connection = http(&pod, address).await;
        let answer = get(&mut connection, host, "/echo").await;
        assert_eq!(told(&answer), expected, "{address} {host}: {}", answer.text());
    }
    let mut connection = http(&pod, "140.82.121.66:80").await;
    assert_eq!(told(&get_as_nobody(&mut connection, HOST, "/echo").await), refused(401, "identity_required"));
    // Each request of a connection for itself.
    assert_eq!(
        told(&get(&mut connection, "stranger.test", "/echo").await),
        refused(403, "destination_denied")
    );
    assert_eq!(get(&mut connection, HOST, "/echo").await.status, 200);
    let authority = get_as_nobody(&mut connection, "keybearer.internal", "/ca.pem").await;
    assert_eq!(authority.text(), std::fs::read_to_string(pod.ca_file()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_in_a_circle() {
    let Some(pod) = small_pod("circles", &[]).await else { return };
    for address in ["127.0.0.1:7081", "[::1]:7081"] {
        let mut connection = http(&pod, address).await;
        assert_eq!(
            told(&get(&mut connection, HOST, "/echo").await),
            refused(421, "misdirected"),
            "{address}"
        );
        let mut proxy = pod.connect("127.0.0.1:7080");
        let request = format!(
            "GET http://{address}/ HTTP/1.1\r\nHost: {address}\r\nAgent-Identity: tenant=acme, role=researcher\r\n\
             Connection: close\r\n\r\n"
        );
        proxy.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(rest(&mut proxy).await).unwrap();
        assert!(answer.contains("one of the proxy's own listeners"), "{answer}");
    }
    assert!(pod.provider.requests().is_empty());
}

async fn metrics(pod: &Pod) -> String {
    let mut stream: TcpStream = pod.connect("127.0.0.1:7090");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:7090\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
