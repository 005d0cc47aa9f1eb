//! The clients: what each runs, which CA variable it reads, in which ways it can say who asks.

pub(crate) struct Row {
    pub(crate) client: &'static str,
    pub(crate) does: &'static str,
    pub(crate) tool: Tool,
    pub(crate) script: &'static str,
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// The one CA variable that is set for it; so it is shown which one it reads.
    pub(crate) ca: &'static str,
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
}

const BOTH: &[Way] = &[Way::Header, Way::ProxyUser];

pub(crate) static ROWS: &[Row] = &[
    Row {
        client: "curl, HTTP/1.1",
        does: "call, upload after 100-continue, trailer, events",
        tool: Tool::Program("curl"),
        script: "curl.sh",
        env: &[("CURL_HTTP", "1.1")],
        ca: "CURL_CA_BUNDLE",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "curl, HTTP/2",
        does: "call, upload, trailer, events",
        tool: Tool::Program("curl"),
        script: "curl.sh",
        env: &[("CURL_HTTP", "2")],
        ca: "CURL_CA_BUNDLE",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "curl, absolute-form",
        does: "call, upload, events by a plain `http://` URL",
        tool: Tool::Program("curl"),
        script: "curl_absolute.sh",
        env: &[],
        ca: "",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "wget",
        does: "call, 5 MB download",
        tool: Tool::Program("wget"),
        script: "wget.sh",
        env: &[],
        ca: "KB_CA",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "git",
        does: "clone, push of a 20 MB pack, fetch with a gzip'd request",
        tool: Tool::Program("git"),
        script: "git.sh",
        env: &[],
        ca: "GIT_SSL_CAINFO",
        ways: BOTH,
        base: "https://github.com",
    },
    Row {
        client: "Python requests",
        does: "call, chunked upload, events",
        tool: Tool::Python,
        script: "requests_.py",
        env: &[],
        ca: "REQUESTS_CA_BUNDLE",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Python httpx, HTTP/2",
        does: "eight calls on one connection, upload, events",
        tool: Tool::Python,
        script: "httpx_h2.py",
        env: &[],
        ca: "SSL_CERT_FILE",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Python aiohttp",
        does: "call, chunked upload, events (`trust_env=True`)",
        tool: Tool::Python,
        script: "aiohttp_.py",
        env: &[],
        ca: "SSL_CERT_FILE",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Python websockets",
        does: "messages up to 1 MiB both ways",
        tool: Tool::Python,
        script: "websockets_.py",
        env: &[],
        ca: "SSL_CERT_FILE",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Python grpcio",
        does: "unary and server-streaming calls",
        tool: Tool::Python,
        script: "grpc_.py",
        env: &[],
        ca: "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "OpenAI SDK",
        does: "chat completions and responses, whole and streamed",
        tool: Tool::Python,
        script: "openai_sdk.py",
        env: &[],
        ca: "SSL_CERT_FILE",
        ways: BOTH,
        base: "https://api.openai.com",
    },
    Row {
        client: "Anthropic SDK",
        does: "messages, whole and streamed",
        tool: Tool::Python,
        script: "anthropic_sdk.py",
        env: &[],
        ca: "SSL_CERT_FILE",
        ways: BOTH,
        base: "https://api.anthropic.com",
    },
    Row {
        client: "CrewAI tool",
        does: "model and tool calls, one tool for two tenants' runs at once",
        tool: Tool::Python,
        script: "crewai_tool.py",
        env: &[("KB_MODEL_BASE", "https://api.openai.com")],
        ca: "SSL_CERT_FILE",
        ways: &[Way::Header],
        base: "https://api.provider.test",
    },
    Row {
        client: "LangGraph tool node",
        does: "one graph and tool for two tenants' runs at once",
        tool: Tool::Python,
        script: "langgraph_node.py",
        env: &[],
        ca: "SSL_CERT_FILE",
        ways: &[Way::Header],
        base: "https://api.provider.test",
    },
    Row {
        client: "Node, undici's proxy agent",
        does: "calls side by side, streamed upload, events",
        tool: Tool::Node,
        script: "undici.mjs",
        env: &[],
        ca: "NODE_EXTRA_CA_CERTS",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Node, ws with https-proxy-agent",
        does: "messages up to 1 MiB",
        tool: Tool::Node,
        script: "ws.mjs",
        env: &[],
        ca: "NODE_EXTRA_CA_CERTS",
        ways: BOTH,
        base: "https://api.provider.test",
    },
    Row {
        client: "Node 18 and 20, own `fetch`",
        does: "call",
        tool: Tool::Node,
        script: "fetch_bare.mjs",
        env: &[("NODE_USE_ENV_PROXY", "1")],
        ca: "NODE_EXTRA_CA_CERTS",
        ways: &[Way::DeadProxy],
        base: "https://localhost",
    },
];
