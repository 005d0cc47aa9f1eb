//! What the provider saw: each request as it arrived, its body measured while it is read.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use http_body::{Frame, SizeHint};
use sha2::{Digest, Sha256};

use crate::support::server::Peer;

/// One request, as the provider received it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) peer: Peer,
    pub(crate) version: Version,
    pub(crate) method: Method,
    /// Path and query, byte for byte.
    pub(crate) path: String,
    /// `:authority` in h2, the `Host` header in h1.
    pub(crate) authority: Option<String>,
    pub(crate) headers: HeaderMap,
    /// Whose credential it carried, if it was the right one for the endpoint.
    pub(crate) tenant: Option<String>,
    pub(crate) body: SeenBody,
}

/// As much of a body as was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenBody {
    pub(crate) len: u64,
    /// Set once the body has ended as its framing says it should.
    pub(crate) sha256: Option<String>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Seen {
    /// Whether the text occurs in anything of the head: the path, a header's name or value.
    pub(crate) fn head_contains(&self, text: &str) -> bool {
        self.path.contains(text)
            || self.headers.iter().any(|(name, value)| {
                name.as_str().contains(text) || String::from_utf8_lossy(value.as_bytes()).contains(text)
            })
    }
}

/// Everything seen, in order of arrival. Clones share the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<Seen>>>);

impl Journal {
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    /// Notes the request's head now and its body as it is read.
    pub(crate) fn note(&self, request: Request<Body>, peer: Peer, tenant: Option<String>) -> Request<Body> {
        let (head, body) = request.into_parts();
        let host =
            head.headers.get(http::header::HOST).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        let seen = Seen {
            peer,
            version: head.version,
            method: head.method.clone(),
            path: head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string),
            authority: head.uri.authority().map(ToString::to_string).or(host),
            headers: head.headers.clone(),
            tenant,
            body: SeenBody::default(),
        };
        let index = {
            let mut all = self.0.lock().unwrap();
            all.push(seen);
            all.len() - 1
        };
        let body = Measured { inner: body, digest: Sha256::new(), journal: self.clone(), index };
        Request::from_parts(head, Body::new(body))
    }

    fn body(&self, index: usize, change: impl FnOnce(&mut SeenBody)) {
        change(&mut self.0.lock().unwrap()[index].body);
    }
}

/// Counts and hashes what passes.
struct Measured {
    inner: Body,
    digest: Sha256,
    journal: Journal,
    index: usize,
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.digest.update(data);
                }
                let (len, trailers) =
                    (frame.data_ref().map_or(0, Bytes::len) as u64, frame.trailers_ref().cloned());
                self.journal.body(self.index, |seen| {
                    seen.len += len;
                    seen.trailers = trailers.or_else(|| seen.trailers.take());
                });
            }
            Some(Err(_)) => {}
            None => {
                let hash = hex(&self.digest.clone().finalize());
                self.journal.body(self.index, |seen| seen.sha256 = Some(hash));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // Never early: the end has to be polled, for that is where the hash is noted.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
