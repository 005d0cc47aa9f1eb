//! The request as it leaves: everything of the agent's that authenticates taken out, ours put in, in the
//! spelling that was judged (laws 2, 4 and 7).

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, header, request::Parts, uri::PathAndQuery};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{
    Proxy,
    arrival::Arrival,
    body::RequestBody,
    gather::{Gathered, Gathering},
    payload,
    record::Record,
    refusal::{Code, Refusal},
    strip::{self, Stripped},
    upstream::{Endpoint, Outbound},
    websocket,
};
use crate::{catalog::Connector, credential::Credential, policy::Permit};

/// Everything that is known when a request leaves.
pub(super) struct Departure<'a> {
    /// What was asked.
    pub(super) arrival: &'a Arrival,
    /// Of which connector.
    pub(super) connector: &'a Arc<Connector>,
    /// Where it goes.
    pub(super) endpoint: Endpoint,
    /// With what.
    pub(super) credential: &'a Arc<Credential>,
}

impl Departure<'_> {
    /// Makes the request that goes out.
    ///
    /// # Errors
    /// `body_too_large` or `bad_request` where a form has to be read before it can be sent.
    pub(super) async fn prepare(
        self,
        permit: &Permit,
        parts: Parts,
        body: Incoming,
        proxy: &Proxy,
        record: &mut Record,
    ) -> Result<Outbound, Refusal> {
        let Self { arrival, connector, endpoint, credential } = self;
        let mut stripped = Stripped::new();
        if arrival.userinfo {
            stripped.push(Cow::Borrowed("userinfo"));
        }
        let Parts { mut headers, .. } = parts;
        strip::head(&mut headers, connector, &mut stripped);
        let query = match arrival.query.as_deref() {
            Some(query) => strip::parameters(query, &connector.strip.query, &mut stripped)
                .map_or_else(|| Some(query.to_owned()), |left| Some(left).filter(|left| !left.is_empty())),
            None => None,
        };
        let is_safe = arrival.method.is_safe();
        let gathering = proxy.gathering(&permit.account().tenant);
        let form = Form { connector, gathering: &gathering, is_safe };
        let body = form.body(body, &mut headers, &mut stripped, record).await?;
        plain_length(&mut headers, &body);
        record.stripped(stripped);
        let query = credential.inject(&mut headers, query);
        set_own(&mut headers, arrival, connector);
        let mut request = Request::new(body);
        *request.method_mut() = arrival.method.clone();
        *request.uri_mut() = uri(arrival, query.as_deref())?;
        *request.headers_mut() = headers;
        let request = match credential.signer() {
            None => request,
            Some(signer) => {
                Box::pin(payload::sign(request, signer, connector, &endpoint, &gathering)).await?
            }
        };
        let outbound = Outbound::new(permit, endpoint, request);
        Ok(if arrival.websocket { outbound.upgrading() } else { outbound })
    }
}

/// The fields that are the proxy's to write.
fn set_own(headers: &mut HeaderMap, arrival: &Arrival, connector: &Connector) {
    // hyper answers `Expect: 100-continue` itself when the provider begins to take the body.
    headers.remove(header::EXPECT);
    if !connector.compression {
        // A compressed echo of the credential could not be found (law 9), in a body, a message or a frame.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.remove("grpc-accept-encoding");
        headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    }
    if arrival.websocket {
        websocket::ask(headers);
    }
}

/// The length as it was read: `010` passes for a length, and some readers take it for eight.
fn plain_length(headers: &mut HeaderMap, body: &RequestBody) {
    if let (Some(field), Some(length)) = (headers.get_mut(header::CONTENT_LENGTH), body.size_hint().exact()) {
        *field = HeaderValue::from(length);
    }
}

/// The canonical path and what is left of the query; the connection adds the rest.
fn uri(arrival: &Arrival, query: Option<&str>) -> Result<Uri, Refusal> {
    let path = arrival.path.as_str();
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let unreadable = |_| Refusal::bad_request("the query has characters that a URL cannot have");
    PathAndQuery::try_from(text).map(Uri::from).map_err(unreadable)
}

/// The bodies that have to be read before they are sent: forms to a provider that takes tokens in them.
struct Form<'a> {
    connector: &'a Arc<Connector>,
    gathering: &'a Gathering<'a>,
    /// Whether the method is one that seldom has a body (RFC 9110 §9.2.1).
    is_safe: bool,
}

impl Form<'_> {
    async fn body(
        &self,
        mut body: Incoming,
        headers: &mut HeaderMap,
        stripped: &mut Stripped,
        record: &Record,
    ) -> Result<RequestBody, Refusal> {
        if body.is_end_stream() {
            return Ok(RequestBody::empty());
        }
        match self.kind(headers)? {
            None => {
                let mut first = None;
                if self.is_safe && body.size_hint().exact().is_none() {
                    // An agent on HTTP/2 may end an empty body with a frame of its own. It is waited for: few
                    // providers take a GET in chunks, and some answer before the last one and close.
                    let read = self.gathering.frame(&mut body).await;
                    first = read.map_err(|unread| unread.refusal(|| self.too_long()))?;
                    if first.is_none() {
                        return Ok(RequestBody::empty());
                    }
                }
                let connector = Arc::clone(self.connector);
                Ok(RequestBody::streamed(first, body, record.bytes_in(), record.late(), connector))
            }
            Some(Kind::Multipart) => {
                let form = self.read(body, record).await?;
                self.refuse_parts(&form.bytes)?;
                Ok(RequestBody::whole(form))
            }
            Some(Kind::Urlencoded) => {
                let mut form = self.read(body, record).await?;
                let text = std::str::from_utf8(&form.bytes);
                let text = text.map_err(|_| Refusal::bad_request("the form is not UTF-8"))?;
                if let Some(left) = strip::parameters(text, &self.connector.strip.form, stripped) {
                    form.bytes = Bytes::from(left);
                }
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(form.bytes.len()));
                Ok(RequestBody::whole(form))
            }
        }
    }

    /// Which kind of form it is, if any.
    ///
    /// # Errors
    /// `bad_request` for a form that the provider could read in another way than it is read here.
    fn kind(&self, headers: &HeaderMap) -> Result<Option<Kind>, Refusal> {
        if self.connector.strip.form.is_empty() {
            return Ok(None);
        }
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let first = types.next().map_or("", |mime| mime.to_str().unwrap_or_default());
        if types.next().is_some() || first.contains(',') {
            return Err(Refusal::bad_request("the request has more than one Content-Type"));
        }
        let (mime, parameters) = first.split_once(';').unwrap_or((first, ""));
        let kind = match mime.trim().to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => Kind::Urlencoded,
            "multipart/form-data" => Kind::Multipart,
            _ => return Ok(None),
        };
        if headers.contains_key(header::CONTENT_ENCODING)
            || parameters.to_ascii_lowercase().contains("utf-16")
        {
            return Err(Refusal::bad_request(
                "a form has to be sent as it is: in UTF-8 and without Content-Encoding",
            ));
        }
        Ok(Some(kind))
    }

    async fn read(&self, body: Incoming, record: &Record) -> Result<Gathered, Refusal> {
        let read = self.gathering.whole(body).await;
        let form = read.map_err(|unread| unread.refusal(|| self.too_long()))?;
        record.bytes_in().add(form.bytes.len());
        Ok(form)
    }

    fn too_long(&self) -> Refusal {
        let (name, limit) = (&self.connector.name, self.gathering.limit);
        let detail = format!(
            "body_too_large: a form to {name} is read before it is sent and may have {limit} bytes; send JSON, or less"
        );
        Refusal::new(Code::BodyTooLarge, detail).with("limit", limit)
    }

    /// Taking a part out of a multipart body would be a second reading of it; such a request is refused.
    fn refuse_parts(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let named = |rest: &str| {
            let Some(value) = rest.trim_start().strip_prefix('=') else { return rest.starts_with('*') };
            let value = value.trim_start();
            let name = value
                .strip_prefix('"')
                .map_or_else(|| value.split([';', '\r', '\n']).next(), |quoted| quoted.split('"').next());
            name.is_some_and(|name| {
                let bare = name.split('[').next().unwrap_or(name).trim();
                strip::is_parameter(bare, &self.connector.strip.form)
            })
        };
        if text.split("name").skip(1).any(named) {
            return Err(Refusal::bad_request(
                "a part of the multipart form would carry a token; leave it out",
            ));
        }
        Ok(())
    }
}

enum Kind {
    Urlencoded,
    Multipart,
}
