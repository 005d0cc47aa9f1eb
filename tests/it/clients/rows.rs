//! The clients: what each runs, which CA variable it reads, in which ways it can say who asks.

use std::{ffi::OsString, fs, path::Path};

use keybearer::{
    clients::{Trust, java},
    tls::{Bundle, Format, STORE_PASSWORD},
};

pub(crate) struct Row {
    pub(crate) client: &'static str,
    pub(crate) does: &'static str,
    pub(crate) tool: Tool,
    pub(crate) script: &'static str,
    pub(crate) env: &'static [(&'static str, &'static str)],
    pub(crate) ca: Ca,
    pub(crate) ways: &'static [Way],
    /// `https://` and a host of the provider's.
    pub(crate) base: &'static str,
}

#[derive(Clone, Copy)]
pub(crate) enum Tool {
    /// A shell script that needs this program.
    Program(&'static str),
    Python,
    Node,
    Deno,
    Java,
    /// What setup.sh compiles of the script.
    Go,
}

/// How a client is told whom to trust.
#[derive(Clone, Copy)]
pub(crate) enum Ca {
    /// The one variable that is set for it; so it is shown which one it reads.
    Variable(&'static str),
    /// An option of its own. Its script finds the file's name in `KB_CA`.
    Option(&'static str),
    /// Java's options in `JAVA_TOOL_OPTIONS`, by which it is told the proxy, too.
    Java,
    Unneeded,
}

impl Ca {
    /// The variable for who trusts the certificates in that file and uses that proxy.
    pub(crate) fn variable(self, pem: &Path, proxy: Option<&str>) -> Option<(&'static str, OsString)> {
        match self {
            Self::Variable(name) => Some((name, pem.into())),
            Self::Option(_) => Some(("KB_CA", pem.into())),
            Self::Java => Some((java::VARIABLE, options(pem, proxy).into())),
            Self::Unneeded => None,
        }
    }
}

/// As `keybearer run` and the webhook tell Java, of a store that is made beside the file.
fn options(pem: &Path, proxy: Option<&str>) -> String {
    let store = Format::Pkcs12.beside(pem);
    let bundle = Bundle::of_ca(&fs::read_to_string(pem).unwrap());
    fs::write(&store, bundle.in_format(Format::Pkcs12)).unwrap();
    let trust = java::trust(&Trust { pem, store: &store, password: STORE_PASSWORD });
    java::options(&[trust].into_iter().chain(proxy.map(java::proxy)).collect::<Vec<_>>())
}

/// How a client says who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// `Agent-Identity` in each request.
    Header,
    /// The proxy URL's user name.
    ProxyUser,
    /// Given a proxy where nobody listens, and a provider that it can reach without one.
    DeadProxy,
    /// No proxy variable at all, in a pod whose connections are redirected: for each, and in no list of `ways`.
    Transparent,
}

const BOTH: &[Way] = &[Way::Header, Way::ProxyUser];
/// It cannot be told to send a header.
const USER: &[Way] = &[Way::ProxyUser];

/// What calls providers, with its tenant's credential. In a pod each says who asks.
pub(crate) static AGENTS: &[Row] = &[
    Row {
        client: "curl, HTTP/1.1",
        does: "call, upload after 100-continue, trailer, events",
        tool: Tool::Program("curl"),
        script: "curl.sh",
        env: &[("CURL_HTTP", "1.1")],
        ca: Ca::Variable("CURL_CA_BUNDLE"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "curl, HTTP/2",
        does: "call, upload, trailer, events",
        tool: Tool::Program("curl"),
        script: "curl.sh",
        env: &[("CURL_HTTP", "2")],
        ca: Ca::Variable("CURL_CA_BUNDLE"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "curl, absolute-form",
        does: "call, upload, events by a plain `http://` URL",
        tool: Tool::Program("curl"),
        script: "curl_absolute.sh",
        env: &[],
        ca: Ca::Unneeded,
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "wget",
        does: "call, 5 MB download",
        tool: Tool::Program("wget"),
        script: "wget.sh",
        env: &[],
        ca: Ca::Option("--ca-certificate"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "git",
        does: "clone, push of a 20 MB pack, fetch with a gzip'd request",
        tool: Tool::Program("git"),
        script: "git.sh",
        env: &[],
        ca: Ca::Variable("GIT_SSL_CAINFO"),
        ways: BOTH,
        base: "https://github.com",
    },
    Row {
        client: "Python requests",
        does: "call, chunked upload, events",
        tool: Tool::Python,
        script: "requests_.py",
        env: &[],
        ca: Ca::Variable("REQUESTS_CA_BUNDLE"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Python httpx, HTTP/2",
        does: "eight calls on one connection, upload, events",
        tool: Tool::Python,
        script: "httpx_h2.py",
        env: &[],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Python aiohttp",
        does: "call, chunked upload, events (`trust_env=True`)",
        tool: Tool::Python,
        script: "aiohttp_.py",
        env: &[],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Python websockets",
        does: "messages up to 1 MiB both ways",
        tool: Tool::Python,
        script: "websockets_.py",
        env: &[],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Python grpcio",
        does: "unary and server-streaming calls",
        tool: Tool::Python,
        script: "grpc_.py",
        env: &[],
        ca: Ca::Variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "OpenAI SDK",
        does: "chat completions and responses, whole and streamed",
        tool: Tool::Python,
        script: "openai_sdk.py",
        env: &[],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: BOTH,
        base: "https://api.openai.com",
    },
    Row {
        client: "Anthropic SDK",
        does: "messages, whole and streamed",
        tool: Tool::Python,
        script: "anthropic_sdk.py",
        env: &[],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: BOTH,
        base: "https://api.anthropic.com",
    },
    Row {
        client: "CrewAI tool",
        does: "model and tool calls, one tool for two tenants' runs at once",
        tool: Tool::Python,
        script: "crewai_tool.py",
        env: &[("KB_MODEL_BASE", "https://api.openai.com")],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: &[Way::Header],
        base: "https://api.provider.test",
    },
    Row {
        client: "LangGraph tool node",
        does: "one graph and tool for two tenants' runs at once",
        tool: Tool::Python,
        script: "langgraph_node.py",
        env: &[],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: &[Way::Header],
        base: "https://api.provider.test",
    },
    Row {
        client: "Node, undici's proxy agent",
        does: "calls side by side, streamed upload, events",
        tool: Tool::Node,
        script: "undici.mjs",
        env: &[],
        ca: Ca::Variable("NODE_EXTRA_CA_CERTS"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Node, ws with https-proxy-agent",
        does: "messages up to 1 MiB",
        tool: Tool::Node,
        script: "ws.mjs",
        env: &[],
        ca: Ca::Variable("NODE_EXTRA_CA_CERTS"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Node 18 and 20, own `fetch`",
        does: "call",
        tool: Tool::Node,
        script: "fetch_bare.mjs",
        env: &[("NODE_USE_ENV_PROXY", "1")],
        ca: Ca::Variable("NODE_EXTRA_CA_CERTS"),
        ways: &[Way::DeadProxy],
        base: "https://localhost",
    },
    Row {
        client: "Deno, own `fetch`",
        does: "calls side by side, streamed upload, events",
        tool: Tool::Deno,
        script: "deno.sh",
        env: &[],
        ca: Ca::Variable("DENO_CERT"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Java, own `HttpClient`",
        does: "calls on one connection, chunked upload, events",
        tool: Tool::Java,
        script: "Http.java",
        env: &[],
        ca: Ca::Java,
        ways: &[Way::Header],
        base: "https://api.provider.test",
    },
    Row {
        client: "Go, own `net/http`, a static program",
        does: "calls side by side, chunked upload, events",
        tool: Tool::Go,
        script: "http.go",
        env: &[],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "gh, a Go program",
        does: "reads a repository, opens an issue",
        tool: Tool::Program("gh"),
        script: "gh.sh",
        env: &[],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: BOTH,
        base: "https://api.github.com",
    },
];

/// What fetches packages, without a credential. In a pod they are who the configuration says.
pub(crate) static PACKAGE_MANAGERS: &[Row] = &[
    Row {
        client: "pip",
        does: "installs a package from pypi.org and files.pythonhosted.org",
        tool: Tool::Python,
        script: "pip_.py",
        env: &[],
        ca: Ca::Variable("PIP_CERT"),
        ways: USER,
        base: "https://pypi.org",
    },
    Row {
        client: "npm",
        does: "installs a package from registry.npmjs.org",
        tool: Tool::Program("npm"),
        script: "npm.sh",
        env: &[],
        ca: Ca::Variable("NPM_CONFIG_CAFILE"),
        ways: USER,
        base: "https://registry.npmjs.org",
    },
    Row {
        client: "cargo",
        does: "adds and fetches a crate from index.crates.io and static.crates.io",
        tool: Tool::Program("cargo"),
        script: "cargo.sh",
        env: &[("KB_CARGO", env!("CARGO"))],
        ca: Ca::Variable("CARGO_HTTP_CAINFO"),
        ways: USER,
        base: "https://index.crates.io",
    },
    Row {
        client: "apt",
        does: "lists and a package from deb.debian.org",
        tool: Tool::Program("apt-get"),
        script: "apt.sh",
        env: &[],
        ca: Ca::Option("Acquire::https::CaInfo"),
        ways: USER,
        base: "https://deb.debian.org",
    },
    Row {
        client: "apt, `http://` sources",
        does: "the same",
        tool: Tool::Program("apt-get"),
        script: "apt.sh",
        env: &[],
        ca: Ca::Unneeded,
        ways: USER,
        base: "http://deb.debian.org",
    },
    Row {
        client: "skopeo, a Go program as docker is",
        does: "pulls an image from mcr.microsoft.com",
        tool: Tool::Program("skopeo"),
        script: "skopeo.sh",
        env: &[],
        ca: Ca::Variable("SSL_CERT_FILE"),
        ways: USER,
        base: "https://mcr.microsoft.com",
    },
];

/// All of them, in the order of the table.
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    AGENTS.iter().chain(PACKAGE_MANAGERS)
}
