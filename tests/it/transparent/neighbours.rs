//! What another pod on the same network can do with this one's sidecar: nothing.

use std::{fs, io::ErrorKind};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{ADDRESS, HOST, small, small_pod, tls, tls_over};
use crate::support::{
    netns::Namespace,
    pod::{Making, POD, Pod},
    stage::SECRETS,
};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_for_another_pod_or_for_the_world() {
    let Some(pod) = small_pod("neighbours", &[]).await else { return };
    let neighbour = pod.neighbour();
    let _open = pod.net.listener("[::]:8080");
    for (namespace, address) in [&neighbour, &pod.world].into_iter().flat_map(|from| POD.map(|at| (from, at)))
    {
        assert!(namespace.connect(&at(address, 8080)).is_ok(), "the wire is there: {address}");
        for port in [7080, 7081, 7090] {
            let error = namespace.connect(&at(address, port)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address} {port}");
        }
    }
}

/// A pod that forwards packets, and a neighbour that sends it those for the provider.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_pod_sends_through_this_one_is_not_redirected() {
    let Some(pod) = small_pod("forwarding", &[]).await else { return };
    let neighbour = pod.neighbour();
    for (namespace, key, value) in [
        (&pod.net, "ipv4/ip_forward", "1"),
        (&pod.net, "ipv6/conf/all/forwarding", "1"),
        // Nobody is told of the shorter way.
        (&pod.net, "ipv4/conf/all/send_redirects", "0"),
        (&pod.net, "ipv4/conf/eth0/send_redirects", "0"),
        (&neighbour, "ipv6/conf/eth0/accept_redirects", "0"),
    ] {
        namespace.within(|| fs::write(format!("/proc/sys/net/{key}"), value).unwrap());
    }
    neighbour.ip(&format!("route replace default via {}", POD[0]));
    neighbour.ip(&format!("-6 route replace default via {}", POD[1]));
    for address in [ADDRESS, "[2606:50c0:8000::153]:443"] {
        let shown = tls_over(neighbour.connect(address).unwrap(), HOST, ("h2", pod.roots_file())).await;
        assert!(shown.is_ok(), "{address}: the provider's own certificate: {shown:?}");
        assert!(
            tls(&pod, address, HOST, ("h2", pod.ca_file())).await.is_ok(),
            "{address}: the pod's own goes ours"
        );
    }
    assert!(pod.actions().is_empty());
}

/// The kubelet's probes come from outside, so a pod's admin side listens there.
#[tokio::test(flavor = "multi_thread")]
async fn the_admin_side_tells_another_pod_how_it_is_and_does_nothing_for_it() {
    let making = Making { admin: "[::]:7090", ..small() };
    let Some(pod) = Pod::start("admin side", making).await else { return };
    let neighbour = pod.neighbour();
    for address in POD {
        let at = at(address, 7090);
        for (request, status) in [
            ("GET /healthz", 200),
            ("GET /readyz", 200),
            ("GET /metrics", 200),
            ("GET /", 404),
            ("GET /v1/accounts", 404),
            ("POST /v1/accounts", 404),
            ("POST /v1/preflight", 404),
            ("GET /ca.pem", 404),
            ("GET /scim/v2/Users", 404),
            ("GET http://api.provider.test/echo", 421),
            ("CONNECT api.provider.test:443", 421),
        ] {
            let answer = asked(&neighbour, &at, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
            assert!(!answer.contains(SECRETS[0].1), "{request}");
        }
    }
    assert!(pod.provider.requests().is_empty() && pod.actions().is_empty());
}

fn at(address: &str, port: u16) -> String {
    std::net::SocketAddr::new(address.parse().unwrap(), port).to_string()
}

/// What a server says to a request without a body, in which the agent would be known.
async fn asked(from: &Namespace, at: &str, request: &str) -> String {
    let mut stream: TcpStream = from.connect(at).unwrap();
    let host = if request.contains("provider") { HOST } else { at };
    let head = format!(
        "{request} HTTP/1.1\r\nHost: {host}\r\nAgent-Identity: tenant=acme, role=researcher\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
