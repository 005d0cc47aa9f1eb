//! Web sockets: an upgrade on HTTP/1.1, an extended CONNECT on HTTP/2 (RFC 8441), always an upgrade towards the
//! provider. After the switch bytes are copied both ways; what comes from the provider is scrubbed.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::timeout,
};

use super::{
    Proxy,
    answer::{Answer, HOLD},
    body::ByteCount,
    forward,
    record::Record,
    scrub::{self, Scrubber},
    strip, upstream,
};
use crate::credential::Credential;

const CONNECTION_UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// One read. A frame of any size passes through in pieces.
const PIECE: usize = 16 * 1024;

type Io = TokioIo<Upgraded>;

/// Writes the request for an upgrade. An agent on HTTP/2 sent no key (RFC 8441 §5), so it gets one.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, CONNECTION_UPGRADE);
    headers.insert(header::UPGRADE, WEBSOCKET);
    headers.entry(header::SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    if !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        let nonce = BASE64_STANDARD.encode(uuid::Uuid::now_v7().as_bytes());
        if let Ok(nonce) = HeaderValue::try_from(nonce) {
            headers.insert(header::SEC_WEBSOCKET_KEY, nonce);
        }
    }
}

/// Answers the agent's upgrade with the provider's, and copies between them until either side ends, the
/// credential does, or the proxy has to stop.
#[must_use]
pub(super) fn answer(
    proxy: &Proxy,
    mut response: Response<upstream::Body>,
    (agent, version): (Option<OnUpgrade>, Version),
    credential: Arc<Credential>,
    mut record: Box<Record>,
) -> Response<Answer> {
    let Some(agent) = agent.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) else {
        return forward::answer(response, credential, record);
    };
    let provider = hyper::upgrade::on(&mut response);
    let mut switched = Response::new(Answer::ours(Bytes::new()));
    *switched.headers_mut() = std::mem::take(response.headers_mut());
    let headers = switched.headers_mut();
    strip::answer_head(headers);
    scrub::headers(headers, credential.needles());
    if version == Version::HTTP_2 {
        headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        *switched.status_mut() = StatusCode::OK;
    } else {
        headers.insert(header::CONNECTION, CONNECTION_UPGRADE);
        headers.insert(header::UPGRADE, WEBSOCKET);
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
    proxy.drain.spawn(async move {
        let sides = tokio::try_join!(agent, provider);
        let Ok((agent, provider)) = sides else { return record.broke_off("upstream_unreachable") };
        let sent = ByteCount::default();
        let received = record.bytes_in();
        let copying = copy(agent, provider, &credential, &received, &sent);
        tokio::select! {
            _ended = copying => {}
            () = credential.ended().cancelled() => record.broke_off("account_frozen"),
        }
        record.sent(usize::try_from(sent.total()).unwrap_or(usize::MAX));
    });
    switched
}

async fn copy(
    agent: Upgraded,
    provider: Upgraded,
    credential: &Credential,
    received: &ByteCount,
    sent: &ByteCount,
) -> io::Result<()> {
    let (from_agent, to_agent) = split(TokioIo::new(agent));
    let (from_provider, to_provider) = split(TokioIo::new(provider));
    let scrubber = Scrubber::new(Arc::clone(credential.needles()));
    tokio::try_join!(
        outwards(from_agent, to_provider, received),
        inwards(from_provider, to_agent, scrubber, sent)
    )?;
    Ok(())
}

async fn outwards(mut from: ReadHalf<Io>, mut to: WriteHalf<Io>, count: &ByteCount) -> io::Result<()> {
    let mut piece = BytesMut::with_capacity(PIECE);
    while from.read_buf(&mut piece).await? > 0 {
        count.add(piece.len());
        to.write_all(&piece).await?;
        to.flush().await?;
        piece.clear();
    }
    to.shutdown().await
}

async fn inwards(
    mut from: ReadHalf<Io>,
    mut to: WriteHalf<Io>,
    mut scrubber: Scrubber,
    count: &ByteCount,
) -> io::Result<()> {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        // What is held back goes on if nothing follows it, so that a message's last bytes are not kept.
        let patience = if scrubber.may_let_go() { HOLD } else { Duration::MAX };
        let clean = match timeout(patience, from.read_buf(&mut piece)).await {
            Err(_) => scrubber.let_go(),
            Ok(Ok(0)) => break,
            Ok(read) => {
                read?;
                scrubber.push(piece.freeze())
            }
        };
        count.add(clean.len());
        to.write_all(&clean).await?;
        to.flush().await?;
    }
    to.write_all(&scrubber.finish()).await?;
    to.shutdown().await
}
