//! What is spoken on both sides, in every way in, and that nothing of it is lost between them.

mod endings;
mod expect;
mod forms;
mod grpc;
mod identities;
mod idle;
mod reuse;
mod stalls;
mod stop;
mod tunnels;
mod versions;
mod websockets;

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::StreamBody;

use crate::support::{
    agent::{Connection, http_over, identity, inside},
    stage::{HOST, Stage},
};

/// A body that comes in pieces and may end in trailers.
type Pieces = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

fn pieces(data: &[&'static str], trailers: &[(&'static str, &'static str)]) -> Pieces {
    let mut frames: Vec<_> =
        data.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).collect();
    if !trailers.is_empty() {
        let fields = trailers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        frames.push(Ok(Frame::trailers(fields.collect::<HeaderMap>())));
    }
    StreamBody::new(futures_util::stream::iter(frames))
}

/// A tunnel to the usual host, for requests whose bodies come in pieces.
async fn tunnel(stage: &Stage, alpn: &str) -> Connection<Pieces> {
    let stream = stage.connected(&format!("{HOST}:443"), "").await;
    http_over(stage.tls(stream, HOST, &[alpn]).await).await
}

/// A request of acme's researcher in a tunnel to the usual host.
fn request<B>(connection: &Connection<B>, method: &str, path: &str) -> http::request::Builder {
    inside(connection, method, HOST, path).header("agent-identity", identity("acme", "researcher"))
}

fn empty(request: http::request::Builder) -> Request<Pieces> {
    request.body(pieces(&[], &[])).unwrap()
}
