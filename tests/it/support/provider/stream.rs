//! Server-sent events, as fast as they go or one for each step of the test.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt as _, stream};
use http::header;
use tokio::sync::Semaphore;

use super::Shared;

/// Lets a test decide when the next event, or a slow head, is sent. Clones share the steps.
#[derive(Clone, Debug)]
pub(crate) struct Pace(Arc<Semaphore>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Pace {
    pub(crate) fn step(&self) {
        self.0.add_permits(1);
    }

    pub(super) async fn wait(&self) {
        self.0.acquire().await.expect("never closed").forget();
    }
}

/// `count` events at once, each its own frame.
pub(super) async fn free(Path(count): Path<usize>) -> Response {
    sse(stream::iter(0..count).map(|n| format!("data: event {n}\n\n")))
}

/// `count` events, each after a step of the test.
pub(super) async fn paced(State(shared): State<Shared>, Path(count): Path<usize>) -> Response {
    sse(stream::iter(0..count).then(move |n| {
        let pace = shared.pace.clone();
        async move {
            pace.wait().await;
            format!("data: event {n}\n\n")
        }
    }))
}

/// An event stream. The task yields between events, so that they leave as separate frames, as a real provider's do.
pub(super) fn sse(events: impl Stream<Item = String> + Send + 'static) -> Response {
    let frames = events.then(|event| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Bytes::from(event))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(frames)).into_response()
}
