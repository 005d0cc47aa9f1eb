//! A WebSocket that echoes: by h1 `Upgrade` (RFC 6455) and by h2 extended CONNECT (RFC 8441).

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, StatusCode, header};
use hyper::{ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::Shared;

pub(super) async fn upgrade(State(shared): State<Shared>, mut request: Request) -> Response {
    let Some(answer) = agreement(&request) else {
        return (StatusCode::UPGRADE_REQUIRED, [(header::UPGRADE, "websocket")]).into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    shared.drain.spawn(echo(upgrade));
    answer
}

/// What to answer to a well-formed handshake.
fn agreement(request: &Request) -> Option<Response> {
    let answer = Response::builder();
    if request.method() == Method::CONNECT {
        let protocol = request.extensions().get::<Protocol>()?;
        return (protocol.as_str() == "websocket").then(|| answer.body(Body::empty()).expect("static parts"));
    }
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY)?;
    answer
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .body(Body::empty())
        .ok()
}

async fn echo(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            break;
        }
    }
}
