//! Bodies on their way: counted, never collected.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    gather::{Gathered, Held},
    strip::{self, Stripped},
};
use crate::catalog::Connector;

/// Bytes that have passed, readable while they still pass.
#[derive(Clone, Debug, Default)]
pub(super) struct ByteCount(Arc<Passed>);

#[derive(Debug, Default)]
struct Passed {
    bytes: AtomicU64,
    cut: AtomicBool,
    awaited: AtomicBool,
}

impl ByteCount {
    /// Adds to the count.
    pub(super) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub(super) fn total(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether they ended before they should have, or could not be read to their end.
    #[must_use]
    pub(super) fn was_cut(&self) -> bool {
        self.0.cut.load(Ordering::Relaxed)
    }

    /// Whether the agent is to send the next of them.
    #[must_use]
    pub(super) fn is_awaited(&self) -> bool {
        self.0.awaited.load(Ordering::Relaxed)
    }

    fn awaits(&self, it: bool) {
        self.0.awaited.store(it, Ordering::Relaxed);
    }

    fn cut(&self) {
        self.0.cut.store(true, Ordering::Relaxed);
    }
}

/// What is taken out of a request after its head has left: its trailers. Readable when they have passed.
#[derive(Clone, Debug, Default)]
pub(super) struct Late(Arc<Mutex<Stripped>>);

impl Late {
    /// What was taken out so far, to be told once.
    #[must_use]
    pub(super) fn take(&self) -> Stripped {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The body of a request on its way to the provider.
pub struct RequestBody(Source);

enum Source {
    Incoming {
        first: Option<Result<Frame<Bytes>, hyper::Error>>,
        body: Incoming,
        count: ByteCount,
        late: Late,
        connector: Arc<Connector>,
    },
    Whole {
        bytes: Option<Bytes>,
        _room: Option<Held>,
    },
}

impl RequestBody {
    /// The agent's body, passed on as it arrives; `first` was taken out of it already.
    #[must_use]
    pub(super) const fn streamed(
        first: Option<Result<Frame<Bytes>, hyper::Error>>,
        body: Incoming,
        count: ByteCount,
        late: Late,
        connector: Arc<Connector>,
    ) -> Self {
        Self(Source::Incoming { first, body, count, late, connector })
    }

    /// A body that had to be read before it could be sent.
    #[must_use]
    pub(super) fn whole(Gathered { bytes, room }: Gathered) -> Self {
        Self(Source::Whole { bytes: Some(bytes), _room: Some(room) })
    }

    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Source::Whole { bytes: None, _room: None })
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Source::Whole { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Incoming { first, body, count, late, connector } => {
                let polled = match first.take() {
                    None => Pin::new(body).poll_frame(cx),
                    first => Poll::Ready(first),
                };
                count.awaits(polled.is_pending());
                let frame = ready!(polled);
                if matches!(frame, Some(Err(_))) {
                    count.cut();
                }
                Poll::Ready(frame.map(|frame| frame.map(|frame| checked(frame, count, late, connector))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Whole { bytes, .. } => bytes.as_ref().is_none_or(Bytes::is_empty),
            Source::Incoming { first, body, .. } => first.is_none() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Whole { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Source::Incoming { body, .. } => body.size_hint(),
        }
    }
}

/// Counts data; takes out of trailers what a header could not have carried either.
fn checked(mut frame: Frame<Bytes>, count: &ByteCount, late: &Late, connector: &Connector) -> Frame<Bytes> {
    if let Some(data) = frame.data_ref() {
        count.add(data.len());
    } else if let Some(trailers) = frame.trailers_mut() {
        strip::trailers(trailers, connector, &mut late.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
    frame
}
