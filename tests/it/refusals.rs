//! Every refusal of the contract's §5, whole: status, headers, members, its event, and that nothing was sent.

mod faults;
mod identities;
mod requests;
mod silence;
mod upstreams;

use http::{HeaderMap, Request, header};
use serde_json::{Map, Value, json};
use sfv::{BareItem, ListEntry, Parser};

use crate::support::{
    agent::{Answer, Body, Connection, Tunnel, absolute, identity, inside},
    stage::{HOST, Stage},
};

/// What an answer has to be.
pub(crate) struct Refusal<'a> {
    pub(crate) status: u16,
    pub(crate) code: &'a str,
    /// The error type of RFC 9209 §2.3.
    pub(crate) proxy_error: &'a str,
    /// The members beyond those that each problem has.
    pub(crate) members: Value,
}

impl Refusal<'_> {
    /// Checks everything that is said, and what is on record about it.
    pub(crate) async fn check(&self, stage: &Stage, answer: &Answer) {
        let event = stage.action(self.check_answer(answer)).await;
        assert_eq!(event["error"], self.code);
        assert_eq!(event["status"], self.status);
    }

    /// As [`Refusal::check`], for what cannot be on record. Returns the action's id.
    pub(crate) fn check_answer<'b>(&self, answer: &'b Answer) -> &'b str {
        assert_eq!(answer.status, self.status, "{}", answer.text());
        let headers = &answer.headers;
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(proxy_status(headers), (self.proxy_error.to_owned(), self.code.to_owned()));
        assert_eq!(headers.contains_key(header::RETRY_AFTER), self.status == 503, "{headers:?}");
        assert_eq!(headers.contains_key(header::PROXY_AUTHENTICATE), self.status == 407, "{headers:?}");
        let Value::Object(mut document) = answer.json() else { panic!("no object: {}", answer.text()) };
        let mut take = |name: &str| document.remove(name).unwrap_or_default();
        let id = headers["keybearer-action"].to_str().unwrap();
        assert_eq!(take("type"), format!("urn:keybearer:problem:{}", self.code));
        assert_eq!((take("status"), take("error")), (json!(self.status), json!(self.code)));
        assert_eq!(take("action_id"), id);
        assert!(take("title").as_str().is_some_and(|title| !title.is_empty()));
        let detail = take("detail");
        assert!(detail.as_str().unwrap().starts_with(&format!("{}: ", self.code)), "{detail}");
        assert_eq!(Value::Object(document), self.members);
        id
    }
}

/// The error type and details of `Proxy-Status`, which must be one member of a list that names us, with an
/// error type that RFC 9209 registers.
fn proxy_status(headers: &HeaderMap) -> (String, String) {
    const REGISTERED: [&str; 14] = [
        "destination_not_found",
        "destination_unavailable",
        "destination_ip_prohibited",
        "connection_terminated",
        "connection_refused",
        "dns_error",
        "connection_limit_reached",
        "tls_certificate_error",
        "http_request_error",
        "http_request_denied",
        "http_response_timeout",
        "http_response_incomplete",
        "proxy_internal_error",
        "proxy_configuration_error",
    ];
    let list: sfv::List = Parser::new(headers["proxy-status"].as_bytes()).parse().unwrap();
    let [ListEntry::Item(item)] = &list[..] else { panic!("one item: {list:?}") };
    assert!(matches!(&item.bare_item, BareItem::Token(name) if name.as_str() == "keybearer"), "{item:?}");
    let params = &item.params;
    assert_eq!(params.len(), 2, "{params:?}");
    let (Some(BareItem::Token(error)), Some(BareItem::String(details))) =
        (params.get("error"), params.get("details"))
    else {
        panic!("an error token and a details string: {params:?}")
    };
    assert!(REGISTERED.contains(&error.as_str()), "{error:?}");
    (error.as_str().to_owned(), details.as_str().to_owned())
}

/// How a request comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Absolute,
    /// Inside TLS, in the version that is named to ALPN.
    Tunnel(&'static str),
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Absolute, Self::Tunnel("http/1.1"), Self::Tunnel("h2")];

    pub(crate) async fn open(self, stage: &Stage, host: &str) -> Connection {
        match self {
            Self::Absolute => stage.direct().await,
            Self::Tunnel(alpn) => {
                let connect = format!("{host}:443");
                let sni = host.trim_matches(['[', ']']);
                stage.tunnel_with(Tunnel { connect: &connect, sni, alpn: &[alpn], headers: "" }).await
            }
        }
    }

    pub(crate) fn request(
        self,
        connection: &Connection,
        method: &str,
        host: &str,
        path: &str,
    ) -> http::request::Builder {
        match self {
            Self::Absolute => absolute(method, &format!("http://{host}{path}")),
            Self::Tunnel(_) => inside(connection, method, host, path),
        }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(self, stage: &Stage, asked: &Asked<'_>) -> Answer {
        let mut connection = self.open(stage, asked.host).await;
        let mut request = self.request(&connection, asked.method, asked.host, asked.path);
        for (name, value) in &asked.headers {
            request = request.header(*name, value);
        }
        connection.call(request.body(Body::from(asked.body)).unwrap()).await
    }
}

/// One request.
#[derive(Clone)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: &'static str,
}

impl<'a> Asked<'a> {
    /// A request to the usual host.
    pub(crate) fn of(tenant: &str, role: &str, method: &'a str, path: &'a str) -> Self {
        let headers = vec![("agent-identity", identity(tenant, role))];
        Self { method, host: HOST, path, headers, body: "" }
    }

    pub(crate) fn at(self, host: &'a str) -> Self {
        Self { host, ..self }
    }

    pub(crate) fn with(mut self, name: &'a str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn anonymous(mut self) -> Self {
        self.headers.clear();
        self
    }
}

/// The members of an object, and more.
fn and(members: &Value, more: &Value) -> Value {
    let both = [members, more].map(|members| members.as_object().cloned().unwrap_or_default());
    Value::Object(both.into_iter().flatten().collect::<Map<_, _>>())
}

/// The head of an answer to CONNECT, and its body, as an answer.
async fn answer_to_connect(stage: &Stage, authority: &str, headers: &str) -> Answer {
    use tokio::io::AsyncReadExt as _;

    let (status, head, mut stream) = stage.connect(authority, headers).await;
    let mut read = Request::builder();
    for line in head.lines().skip(1).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        read = read.header(name, value);
    }
    let headers = std::mem::take(read.headers_mut().unwrap());
    let mut body = vec![0; headers[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    let status = http::StatusCode::from_u16(status).unwrap();
    Answer { status, headers, body: body.into(), trailers: None }
}
