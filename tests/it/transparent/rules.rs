//! `keybearer redirect`: what it installs, how often, and what is left when it is removed.

use std::{io::ErrorKind, net::UdpSocket, time::Duration};

use keybearer::drain::Drain;
use serde_json::Value;
use tokio::process::Command;

use tokio::io::AsyncReadExt as _;

use super::{
    ADDRESS, HOST, small_pod, tls,
    tunnels::{GREETING, greeter},
};
use crate::support::{
    netns::Namespace,
    pod::{self, Pod, SIDECAR, WORLD},
};

/// The tools, each with what lists its rules.
const TOOLS: [(&str, &[&[&str]]); 2] =
    [("nft", &[&["nft", "list", "ruleset"]]), ("iptables", &[&["iptables-save"], &["ip6tables-save"]])];

/// Whose leaf a connection to the provider is shown: ours or its own.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Ours,
    Its,
}

#[tokio::test(flavor = "multi_thread")]
async fn installing_twice_is_once_and_removing_leaves_nothing() {
    let Some(pod) = small_pod("install", &[]).await else { return };
    assert!(pod.redirect("remove", &[]).await.0);
    let bare = listings(&pod).await;
    for (tool, _) in TOOLS {
        let with = ["--with", tool];
        let (ok, out, _) = pod.redirect("check", &with).await;
        assert!(!ok && out.contains("missing: redirect TCP to port 7081"), "{out}");
        assert_eq!(shown(&pod, ADDRESS).await, Shown::Its, "nothing is redirected");

        assert!(pod.redirect("install", &with).await.0);
        let once = listings(&pod).await;
        assert_eq!(shown(&pod, ADDRESS).await, Shown::Ours, "{tool}");
        assert_eq!(shown(&pod, "[2606:50c0:8000::153]:443").await, Shown::Ours, "{tool}");
        let again = pod.redirect("install", &with).await;
        assert!(again.0, "{again:?}");
        assert_eq!(listings(&pod).await, once, "{tool}: twice is once");
        let right = pod.redirect("check", &with).await;
        assert!(right.0, "{right:?}");

        for (wanted, told) in [
            (&["--proxy-uid", "7"][..], "missing: leave uid 7 alone"),
            (&["--proxy-uid", "7"], "not asked for: leave uid 65532 alone"),
            (&["--exclude-port", "22"], "missing: leave TCP port 22 alone"),
            (&["--reject-udp"], "missing: reject anything else"),
        ] {
            let (ok, out, _) = pod.redirect("check", &[&with[..], wanted].concat()).await;
            assert!(!ok && out.contains(told), "{tool} {wanted:?}: {out}");
        }
        assert!(pod.redirect("remove", &with).await.0);
        assert!(pod.redirect("remove", &with).await.0, "nothing to remove is no failure");
        assert_eq!(shown(&pod, ADDRESS).await, Shown::Its, "{tool}");
    }
    let left = listings(&pod).await.replace("KEYBEARER", "ours");
    assert!(!bare.contains("keybearer") && !left.contains("ours") && !left.contains("keybearer"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_3_is_refused_at_once_and_dns_is_left_alone() {
    let Some(pod) = small_pod("udp", &[]).await else { return };
    for address in
        ["140.82.121.6:4433", "[2606:50c0:8000::153]:4433", "140.82.121.6:443", "[2606:50c0:8000::153]:443"]
    {
        echo(&pod.world, address);
    }
    Drain::default().detach(greeter(pod.world.listener("[::]:53")));
    for (tool, _) in TOOLS {
        assert!(pod.redirect("remove", &[]).await.0);
        assert!(pod.redirect("install", &["--with", tool]).await.0);
        for address in ["140.82.121.6:443", "[2606:50c0:8000::153]:443"] {
            assert!(is_refused(&pod.net, address), "{tool} {address}");
        }
        for address in ["140.82.121.6:4433", "[2606:50c0:8000::153]:4433"] {
            assert!(!is_refused(&pod.net, address), "{tool} {address}: only HTTP/3");
        }
        assert!(pod.redirect("install", &["--with", tool, "--reject-udp"]).await.0);
        for address in ["140.82.121.6:443", "140.82.121.6:4433", "[2606:50c0:8000::153]:4433"] {
            assert!(is_refused(&pod.net, address), "{tool} {address}");
        }
        for server in WORLD {
            pod.net.resolve_at(server);
            let mut look_up = pod.agent("getent");
            look_up.args(["ahostsv4", HOST]);
            let (ok, out, _) = pod::told(look_up).await;
            assert!(ok && out.contains("140.82.121.6"), "{tool} {server}: {out}");
        }
        for address in ["140.82.121.66:53", "[2606:50c0:8000::155]:53"] {
            let mut greeting = [0; GREETING.len()];
            pod.connect(address).read_exact(&mut greeting).await.unwrap();
            assert_eq!(greeting, GREETING, "{tool} {address}: DNS over TCP");
        }
        assert_eq!(shown(&pod, ADDRESS).await, Shown::Ours, "{tool}: TCP is redirected as before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_excluded_goes_past_the_proxy_and_nothing_else() {
    const OPTIONS: [&str; 6] = [
        "--exclude-network",
        "140.82.121.6/31",
        "--exclude-network",
        "2606:50c0:8000::/64",
        "--exclude-uid",
        "1234",
    ];
    let Some(pod) = small_pod("exclusions", &OPTIONS).await else { return };
    for (tool, _) in TOOLS {
        assert!(pod.redirect("remove", &[]).await.0);
        let options = [&["--with", tool][..], &OPTIONS].concat();
        assert!(pod.redirect("install", &options).await.0);
        assert_eq!(shown(&pod, ADDRESS).await, Shown::Its, "{tool}: an excluded network");
        assert_eq!(shown(&pod, "[2606:50c0:8000::153]:443").await, Shown::Its, "{tool}: and of IPv6");
        assert_eq!(shown(&pod, "140.82.121.9:443").await, Shown::Ours, "{tool}: another address");
        assert_eq!(fetched(&pod, 1234).await, Shown::Its, "{tool}: an excluded user");
        assert_eq!(fetched(&pod, SIDECAR).await, Shown::Its, "{tool}: the sidecar's own");
        assert_eq!(fetched(&pod, 1235).await, Shown::Ours, "{tool}: another user");
        assert!(pod.redirect("install", &["--with", tool, "--exclude-port", "443"]).await.0);
        assert_eq!(shown(&pod, "140.82.121.9:443").await, Shown::Its, "{tool}: an excluded port");
        assert!(pod.redirect("check", &["--with", tool, "--exclude-port", "443"]).await.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_or_cannot_is_told_what_to_do() {
    let Some(pod) = small_pod("errors", &[]).await else { return };
    let program = pod.ca_file().ancestors().nth(3).unwrap().join("keybearer");
    for verb in ["install", "remove", "check"] {
        let mut command = pod.agent(&program);
        command.args(["redirect", verb]);
        let (ok, _, said) = pod::told(command).await;
        assert!(!ok && said.contains("CAP_NET_ADMIN") && said.contains("add: [NET_ADMIN]"), "{verb}: {said}");

        let mut command = Command::new(&program);
        command.args(["redirect", verb]).env("PATH", "/nowhere");
        let (ok, _, said) = pod::told(command).await;
        assert!(!ok && said.contains("no nft or iptables on the PATH"), "{verb}: {said}");
    }
    let (_, out, _) = pod.redirect("install", &["--dry-run", "--output", "json"]).await;
    let runs: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&runs[0]["program"], &runs[0]["arguments"][0]), (&"nft".into(), &"-f".into()));
    let (ok, out, _) = pod.redirect("check", &["--output", "json"]).await;
    let state: Value = serde_json::from_str(&out).unwrap();
    assert!(ok && state["ok"] == true && state["wrong"].as_array().unwrap().is_empty(), "{state}");
}

/// Everything that the tools list of the pod's namespace. Packets are counted, and are no rule.
async fn listings(pod: &Pod) -> String {
    let mut all = String::new();
    for words in TOOLS.iter().flat_map(|(_, lists)| lists.iter()) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", pod.net.name()]).args(words.iter());
        let (_, out, _) = pod::told(command).await;
        let rules = out.lines().filter(|line| !line.starts_with('#') && !line.starts_with(':'));
        all.extend(rules.map(|line| format!("{}\n", line.split(" packets ").next().unwrap())));
    }
    all
}

/// A connection of root's in the pod.
async fn shown(pod: &Pod, address: &str) -> Shown {
    let ours = tls(pod, address, HOST, ("h2", pod.ca_file())).await.is_ok();
    let its = tls(pod, address, HOST, ("h2", pod.roots_file())).await.is_ok();
    assert_ne!(ours, its, "{address}");
    if ours { Shown::Ours } else { Shown::Its }
}

/// A connection of another user's, to an address that no exclusion is about.
async fn fetched(pod: &Pod, uid: u32) -> Shown {
    let mut command = pod.user(uid, "curl");
    command.args(["-sS", "--max-time", "20", "--resolve", "api.provider.test:443:140.82.121.9", "--cacert"]);
    command.arg(pod.roots_file()).args(["-o", "/dev/null", "https://api.provider.test/echo"]);
    let (ok, _, said) = pod::told(command).await;
    assert!(ok || said.contains("certificate"), "{said}");
    if ok { Shown::Its } else { Shown::Ours }
}

/// Whether a datagram is refused at once, and not answered by the world.
fn is_refused(net: &Namespace, address: &str) -> bool {
    let heard = net.within(|| {
        let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // The kernel tells of it by this call or by the next.
        socket.send(b"hello").and_then(|_| socket.recv(&mut [0; 16]))
    });
    let refused = heard.as_ref().is_err_and(|error| {
        matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied)
    });
    assert!(refused || heard.is_ok(), "{address}: {heard:?}");
    refused
}

/// Sends every datagram back.
fn echo(world: &Namespace, address: &str) {
    let socket = world.within(|| UdpSocket::bind(address).unwrap());
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
    Drain::default().detach(async move {
        let mut datagram = [0; 16];
        while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(&datagram[..length], from).await;
        }
    });
}
