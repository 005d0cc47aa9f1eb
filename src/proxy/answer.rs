//! The answer on its way to the agent: streamed, scrubbed, counted, and the owner of the action's record.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{record::Record, scrub, scrub::Scrubber, strip, upstream};
use crate::credential::{Credential, Needles};

/// How long bytes are held back that could be the beginning of an echoed secret, when nothing follows them.
pub(super) const HOLD: Duration = Duration::from_millis(25);

/// How long an answer that the provider broke off is kept open. What came of it is still in the hands of whoever writes to
/// the agent: HTTP/1.1 has not begun to write while it is told of an error, and HTTP/2 takes back what it has not written.
const LINGER: Duration = Duration::from_millis(100);

/// The body of an answer.
pub(super) struct Answer(Kind);

enum Kind {
    Ours(Option<Bytes>),
    Theirs(Box<Theirs>),
}

/// A provider's body. Its end, whatever it is, ends the record.
struct Theirs {
    body: upstream::Body,
    scrubber: Scrubber,
    needles: Arc<Needles>,
    /// What comes after the bytes that were held back at the end.
    trailers: Option<HeaderMap>,
    hold: Option<Pin<Box<Sleep>>>,
    broken: Option<Broken>,
    credential: Arc<Credential>,
    frozen: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    record: Box<Record>,
}

/// Why the provider's body ended before its end, to be told when what came of it has left.
struct Broken {
    error: io::Error,
    linger: Pin<Box<Sleep>>,
}

impl Answer {
    /// A body of our own.
    #[must_use]
    pub(super) const fn ours(bytes: Bytes) -> Self {
        Self(Kind::Ours(Some(bytes)))
    }

    /// The provider's body. It ends at once when the credential does.
    #[must_use]
    pub(super) fn theirs(body: upstream::Body, credential: Arc<Credential>, record: Box<Record>) -> Self {
        let needles = Arc::clone(credential.needles());
        Self(Kind::Theirs(Box::new(Theirs {
            body,
            scrubber: Scrubber::new(Arc::clone(&needles)),
            needles,
            trailers: None,
            hold: None,
            broken: None,
            credential,
            frozen: None,
            record,
        })))
    }
}

impl Theirs {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if self.credential.ended().is_cancelled() {
            return self.end_frozen();
        }
        if self.broken.is_some() {
            return self.poll_broken(cx);
        }
        loop {
            let data = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return self.poll_waiting(cx),
                Poll::Ready(None) => self.scrubber.finish(),
                Poll::Ready(Some(Err(error))) => {
                    self.record.broke_off("upstream_unreachable");
                    self.broken = Some(Broken { error, linger: Box::pin(sleep(LINGER)) });
                    return self.poll_broken(cx);
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let data = self.scrubber.push(data);
                        if data.is_empty() {
                            continue; // all of it may be the beginning of an echo
                        }
                        data
                    }
                    Err(frame) => {
                        let Ok(trailers) = frame.into_trailers() else { continue };
                        self.trailers = Some(self.checked(trailers));
                        self.scrubber.finish()
                    }
                },
            };
            if data.is_empty() {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            self.hold = None;
            return Poll::Ready(Some(Ok(self.counted(data))));
        }
    }

    /// While the provider is silent: a freeze ends the stream, and what was held back long enough goes on.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let ended = self.credential.ended();
        let frozen = self.frozen.get_or_insert_with(|| Box::pin(ended.clone().cancelled_owned()));
        if frozen.as_mut().poll(cx).is_ready() {
            return self.end_frozen();
        }
        if self.scrubber.may_let_go() {
            let hold = self.hold.get_or_insert_with(|| Box::pin(sleep(HOLD)));
            if hold.as_mut().poll(cx).is_ready() {
                self.hold = None;
                let data = self.scrubber.let_go();
                return Poll::Ready(Some(Ok(self.counted(data))));
            }
        }
        Poll::Pending
    }

    /// After the provider broke off: first what was held back goes on, and only when it had its time to leave, the error.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.scrubber.may_let_go() {
            let data = self.scrubber.let_go();
            return Poll::Ready(Some(Ok(self.counted(data))));
        }
        let Some(Broken { linger, .. }) = &mut self.broken else { return Poll::Ready(None) };
        ready!(linger.as_mut().poll(cx));
        Poll::Ready(self.broken.take().map(|broken| Err(broken.error)))
    }

    fn end_frozen(&mut self) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.record.broke_off("account_frozen");
        Poll::Ready(Some(Err(io::Error::other("the account was frozen"))))
    }

    fn counted(&mut self, data: Bytes) -> Frame<Bytes> {
        self.record.sent(data.len());
        Frame::data(data)
    }

    fn checked(&self, mut trailers: HeaderMap) -> HeaderMap {
        strip::answer_head(&mut trailers);
        scrub::headers(&mut trailers, &self.needles);
        trailers
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Kind::Ours(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Kind::Theirs(theirs) => theirs.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Ours(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::Theirs(theirs) => {
                theirs.body.is_end_stream() && !theirs.scrubber.holds() && theirs.trailers.is_none()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Ours(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            // Masking keeps lengths; this is asked before anything can be held back.
            Kind::Theirs(theirs) => theirs.body.size_hint(),
        }
    }
}
