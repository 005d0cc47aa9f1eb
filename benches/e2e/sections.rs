//! What is measured, and the figures it is read beside.

/// Spoken by the provider's HTTP/1.1-only port.
pub(crate) const H1_HOST: &str = "api.bench.test";
/// Spoken by the provider's h2 port.
pub(crate) const H2_HOST: &str = "h2.bench.test";
/// All hosts of the benchmark.
pub(crate) const HOSTS: [&str; 2] = [H1_HOST, H2_HOST];
/// What the provider asks for and the proxies put in.
pub(crate) const CREDENTIAL: &str = "bench-credential-5f0a1c7e93";
/// What agents send and interceptors must replace.
pub(crate) const AGENTS_OWN: &str = "from-the-agent-itself";

/// One of the provider's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Small,
    Large,
}

impl Item {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "1k",
            Self::Large => "1m",
        }
    }

    /// Bytes of the body.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Small => 1 << 10,
            Self::Large => 1 << 20,
        }
    }

    pub(crate) fn path(self) -> String {
        format!("/v1/items/{}", self.name())
    }
}

/// How a client reaches the provider through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// CONNECT and TLS once, then request after request.
    Tunnel,
    /// The same with h2 in the tunnel, one request at a time on each connection.
    TunnelH2,
    /// CONNECT and TLS for every request, full handshakes.
    TunnelEach,
    /// `GET http://host/` to the proxy, which speaks TLS to the provider.
    Absolute,
}

impl Way {
    pub(crate) fn host(self) -> &'static str {
        if self == Self::TunnelH2 { H2_HOST } else { H1_HOST }
    }

    pub(crate) fn alpn(self) -> &'static [u8] {
        if self == Self::TunnelH2 { b"h2" } else { b"http/1.1" }
    }
}

/// A figure from STYLE's table or the goal, `None` where it has none.
pub(crate) struct Earlier {
    pub(crate) who: &'static str,
    /// Requests a second, as text since goals have a sign (`≥ 3000`).
    pub(crate) rate: &'static str,
    pub(crate) ratio: &'static str,
    pub(crate) cpu: &'static str,
    pub(crate) p99: &'static str,
    pub(crate) rss: &'static str,
}

/// One table.
pub(crate) struct Section {
    /// Its name in `BENCH_SECTIONS`.
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) way: Way,
    pub(crate) clients: usize,
    /// Requests a second of all clients together. Without, each asks again as soon as it has its answer.
    pub(crate) pace: Option<u32>,
    pub(crate) item: Item,
    pub(crate) goal: Earlier,
    pub(crate) earlier: &'static [Earlier],
}

const NONE: Earlier = Earlier { who: "keybearer", rate: "", ratio: "", cpu: "", p99: "", rss: "" };

const fn seen(
    who: &'static str,
    rate: &'static str,
    ratio: &'static str,
    cpu: &'static str,
    rss: &'static str,
) -> Earlier {
    Earlier { who, rate, ratio, cpu, p99: "", rss }
}

/// What is measured of keybearer alone, after the tables: ten thousand tokens that end together, and how fast a freeze
/// reaches another replica.
pub(crate) const ALONE: [&str; 3] = ["idle", "herd", "freeze"];

/// Every table, in the order of printing. The 32-client ones come first, on young processes.
pub(crate) const SECTIONS: [Section; 7] = [
    Section {
        key: "keepalive",
        title: "keep-alive CONNECT + TLS, HTTP/1.1, 1 KiB answers, 32 clients",
        way: Way::Tunnel,
        clients: 32,
        pace: None,
        item: Item::Small,
        goal: Earlier { ratio: "≥ 0.95", cpu: "≤ 26", p99: "≤ 1.2 × relay", rss: "≤ 12", ..NONE },
        earlier: &[
            seen("relay", "", "1.00", "16", "5"),
            seen("hand-written", "", "1.04", "20", "9"),
            seen("hudsucker", "", "0.95", "26", "12"),
            seen("HAProxy (reverse)", "", "0.97", "27", "23"),
            seen("onecli gateway", "", "0.47", "52", "22"),
            seen("Squid ssl-bump", "", "0.29", "91", "46"),
            seen("Envoy", "", "0.27", "97", "72"),
            seen("goproxy", "", "0.17", "158", "16"),
            seen("nono", "", "0.04", "502", "14"),
            seen("mitmproxy", "", "0.02", "1622", "85"),
        ],
    },
    Section {
        key: "paced",
        title: "the same at 5,000 requests a second in all, whatever the answers do",
        way: Way::Tunnel,
        clients: 32,
        pace: Some(5_000),
        item: Item::Small,
        goal: Earlier { ratio: "≥ 0.95", p99: "≤ 1.2 × relay", ..NONE },
        earlier: &[],
    },
    Section {
        key: "h2",
        title: "h2 inside the tunnel, 1 KiB answers, 32 clients",
        way: Way::TunnelH2,
        clients: 32,
        pace: None,
        item: Item::Small,
        goal: Earlier { cpu: "≤ 33", ..NONE },
        earlier: &[
            seen("relay", "", "", "16", ""),
            seen("hudsucker", "", "", "33", ""),
            seen("HAProxy (reverse)", "", "", "28", ""),
            seen("Envoy", "", "", "94", ""),
            seen("mitmproxy", "", "", "2060", ""),
        ],
    },
    Section {
        key: "absolute",
        title: "absolute-form http://, TLS to the provider, 1 KiB answers, 32 clients (relay: CONNECT)",
        way: Way::Absolute,
        clients: 32,
        pace: None,
        item: Item::Small,
        goal: Earlier { cpu: "≤ 25", ..NONE },
        earlier: &[
            seen("relay", "", "", "16", ""),
            seen("hand-written", "", "", "20", ""),
            seen("hudsucker", "", "", "27", ""),
            seen("HAProxy (reverse)", "", "", "23", ""),
            seen("Squid", "", "", "84", ""),
            seen("Envoy", "", "", "62", ""),
            seen("goproxy", "", "", "59", ""),
            seen("mitmproxy", "", "", "1460", ""),
        ],
    },
    Section {
        key: "each",
        title: "new CONNECT + TLS for each request, full handshakes, 1 KiB answers, 32 clients",
        way: Way::TunnelEach,
        clients: 32,
        pace: None,
        item: Item::Small,
        goal: Earlier { rate: "≥ 3000", cpu: "≤ 215", ..NONE },
        earlier: &[
            seen("relay", "1270", "", "192", ""),
            seen("hand-written", "3100", "", "201", ""),
            seen("hudsucker", "1170", "", "350", ""),
            seen("HAProxy (reverse)", "2180", "", "454", ""),
            seen("onecli gateway", "830", "", "536", ""),
            seen("Squid ssl-bump", "1440", "", "693", ""),
            seen("Envoy", "1730", "", "510", ""),
            seen("goproxy", "2190", "", "451", ""),
            seen("nono", "1305", "", "592", ""),
            seen("mitmproxy", "144", "", "6974", ""),
        ],
    },
    Section {
        key: "keepalive256",
        title: "keep-alive CONNECT + TLS, HTTP/1.1, 1 KiB answers, 256 clients",
        way: Way::Tunnel,
        clients: 256,
        pace: None,
        item: Item::Small,
        goal: Earlier { ratio: "≥ 0.90", ..NONE },
        earlier: &[],
    },
    Section {
        key: "large",
        title: "keep-alive CONNECT + TLS, HTTP/1.1, 1 MiB answers, 8 clients",
        way: Way::Tunnel,
        clients: 8,
        pace: None,
        item: Item::Large,
        goal: Earlier { cpu: "≤ 1.5 × relay", ..NONE },
        earlier: &[],
    },
];
