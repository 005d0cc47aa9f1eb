//! A broker that says what it is told to say.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    io::DuplexStream,
    sync::{Semaphore, mpsc},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    credential::wire::{Ask, CREDENTIAL, Code, Line, Problem, Question, WATCH},
    drain::Drain,
    id::AccountKey,
};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a broker has, and what it was asked.
pub(super) struct Book {
    /// What it says of an account: an answer, or a problem.
    pub(super) accounts: HashMap<AccountKey, Value>,
    /// Every question, in its order: what for, and by whose token.
    pub(super) asked: Vec<(Ask, String)>,
    /// The token that it takes; any, if that is left open.
    pub(super) token: Option<String>,
    /// Why there is no watch.
    pub(super) refuses_watch: Option<Code>,
    /// Whether it says every second that it would hear of a change.
    pub(super) beats: bool,
    /// Where finished answers wait for being sent.
    pub(super) held: Option<Arc<Semaphore>>,
    /// Whether anybody gets through to it.
    pub(super) is_away: bool,
    watches: Vec<mpsc::UnboundedSender<String>>,
    connections: Vec<CancellationToken>,
}

#[derive(Clone)]
pub(super) struct Broker {
    book: Arc<Mutex<Book>>,
    tls: Arc<ServerConfig>,
    drain: Drain,
}

impl Broker {
    pub(super) fn new(tls: Arc<ServerConfig>, drain: &Drain) -> Self {
        let book = Book {
            accounts: HashMap::new(),
            asked: Vec::new(),
            token: None,
            refuses_watch: None,
            beats: true,
            held: None,
            is_away: false,
            watches: Vec::new(),
            connections: Vec::new(),
        };
        Self { book: Arc::new(Mutex::new(book)), tls, drain: drain.clone() }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// How often it was asked for this.
    pub(super) fn count(&self, ask: Ask) -> usize {
        self.book().asked.iter().filter(|(asked, _)| *asked == ask).count()
    }

    /// Tells every watch.
    pub(super) fn tell(&self, line: &Line) {
        self.say(&serde_json::to_string(line).unwrap());
    }

    pub(super) fn say(&self, text: &str) {
        self.book().watches.retain(|watch| watch.send(format!("{text}\n")).is_ok());
    }

    /// Ends every watch as a broker does that stops, and lets what was asked be answered.
    pub(super) fn end_watches(&self) {
        self.book().watches.clear();
    }

    /// Cuts every connection, and lets nobody through.
    pub(super) fn die(&self) {
        let mut book = self.book();
        book.is_away = true;
        book.watches.clear();
        book.connections.drain(..).for_each(|connection| connection.cancel());
    }

    /// Lets everybody through again.
    pub(super) fn live(&self) {
        self.book().is_away = false;
    }

    /// Takes a connection, unless it is away.
    pub(super) fn accept(&self, stream: DuplexStream) -> bool {
        let cut = CancellationToken::new();
        {
            let mut book = self.book();
            if book.is_away {
                return false;
            }
            book.connections.push(cut.clone());
        }
        let broker = self.clone();
        self.drain.detach(async move {
            tokio::select! {
                () = broker.serve(stream) => {}
                () = cut.cancelled() => {}
            }
        });
        true
    }

    async fn serve(&self, stream: DuplexStream) {
        let Ok(stream) = TlsAcceptor::from(Arc::clone(&self.tls)).accept(stream).await else { return };
        let broker = self.clone();
        let service = service_fn(move |request| {
            let broker = broker.clone();
            async move { Ok::<_, Infallible>(broker.answer(request).await) }
        });
        let served =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
        let _ = served.await; // a test cuts it
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let bearer = head.headers[header::AUTHORIZATION].to_str().unwrap().to_owned();
        let wanted = self.book().token.clone();
        if wanted.is_some_and(|token| bearer != format!("Bearer {token}")) {
            return problem(&Problem::new(Code::WorkloadInvalid, "the token is another one's"));
        }
        match head.uri.path() {
            CREDENTIAL => {
                let body = body.collect().await.unwrap().to_bytes();
                self.credential(&serde_json::from_slice(&body).unwrap(), bearer).await
            }
            WATCH => self.watch(),
            path => panic!("nobody asks for {path}"),
        }
    }

    async fn credential(&self, question: &Question, bearer: String) -> Response<Body> {
        let (answer, held) = {
            let mut book = self.book();
            book.asked.push((question.ask, bearer));
            (book.accounts.get(&question.account).cloned(), book.held.clone())
        };
        if let Some(held) = held {
            held.acquire().await.unwrap().forget();
        }
        let Some(mut answer) = answer else {
            return problem(&Problem::new(Code::AccountMissing, "nobody connected it"));
        };
        if let Ok(told) = serde_json::from_value::<Problem>(answer.clone()) {
            return problem(&told);
        }
        if question.ask != Ask::Give {
            answer.as_object_mut().unwrap().remove("fields");
        }
        said(StatusCode::OK, answer.to_string())
    }

    fn watch(&self) -> Response<Body> {
        let mut book = self.book();
        if let Some(code) = book.refuses_watch {
            return problem(&Problem::new(code, "not now"));
        }
        let (watch, lines) = mpsc::unbounded_channel();
        watch.send("{\"begin\":{}}\n".to_owned()).unwrap();
        book.watches.push(watch);
        let broker = self.clone();
        let lines = stream::unfold((lines, broker), |(mut lines, broker)| async move {
            loop {
                let beat = tokio::time::sleep(Duration::from_secs(1));
                tokio::select! {
                    biased;
                    line = lines.recv() => return Some((line?, (lines, broker))),
                    () = beat => if broker.book().beats {
                        return Some(("{\"heard\":true}\n".to_owned(), (lines, broker)));
                    }
                }
            }
        });
        let frames = lines.map(|line| Ok(Frame::data(Bytes::from(line))));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

fn problem(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.error.status()).unwrap();
    said(status, serde_json::to_string(problem).unwrap())
}

fn said(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    response
}
