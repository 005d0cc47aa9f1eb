//! A provider that is nothing but a socket: it writes down every byte, and answers what the test says.
//!
//! It reads requests one after the other by the framing that they declare, which is right for what hyper writes.
//! Whatever else arrives would be read as one more request, so a smuggled one shows.

use keybearer::drain::Drain;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// What a provider does once it has read a request.
#[derive(Clone)]
pub(crate) enum Script {
    /// Answers these bytes and reads on.
    Answer(&'static str),
    /// Answers these bytes and closes, which a client that keeps the connection finds out later.
    AnswerAndClose(&'static str),
    /// Closes without an answer.
    Close,
    /// Says nothing.
    Silence,
}

/// An empty answer to anything.
pub(crate) const OK: Script = Script::Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");

/// A running raw provider; it stops with the test.
pub(crate) struct Raw {
    address: SocketAddr,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    requests: Mutex<Vec<Vec<u8>>>,
    connections: AtomicUsize,
    closed: AtomicUsize,
    changed: Notify,
}

impl Raw {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log::default());
        Drain::default().spawn(accept(listener, script, Arc::clone(&log)));
        Self { address, log }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far, as its bytes were.
    pub(crate) fn requests(&self) -> Vec<String> {
        let requests = self.log.requests.lock().unwrap();
        requests.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// Every request there ever was, once nobody can send another: when each connection has ended.
    pub(crate) async fn ended(&self) -> Vec<String> {
        const LAST: &str = "END\r\n\r\n";
        // Connections are accepted in the order in which they were made, so this one comes after all others.
        let mut last = TcpStream::connect(self.address).await.unwrap();
        last.write_all(LAST.as_bytes()).await.unwrap();
        let _eof_or_answer = last.read_u8().await;
        drop(last);
        self.closed(self.connections()).await;
        self.requests().into_iter().filter(|request| request != LAST).collect()
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn closed(&self, count: usize) {
        loop {
            let changed = self.log.changed.notified();
            if self.log.closed.load(Ordering::SeqCst) >= count {
                return;
            }
            changed.await;
        }
    }
}

async fn accept(listener: TcpListener, script: Script, log: Arc<Log>) {
    while let Ok((stream, _)) = listener.accept().await {
        log.connections.fetch_add(1, Ordering::SeqCst);
        let (script, log) = (script.clone(), Arc::clone(&log));
        Drain::default().spawn(async move {
            serve(stream, script, &log).await;
            log.closed.fetch_add(1, Ordering::SeqCst);
            log.changed.notify_waiters();
        });
    }
}

async fn serve(mut stream: TcpStream, script: Script, log: &Log) {
    while let Some(request) = message(&mut stream).await {
        log.requests.lock().unwrap().push(request);
        match script {
            Script::Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Script::AnswerAndClose(text) => return stream.write_all(text.as_bytes()).await.unwrap(),
            Script::Close => return,
            Script::Silence => {}
        }
    }
}

/// Reads one message, head and body; `None` at the end of the stream. What is cut short is given as it is.
pub(crate) async fn message<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return (!bytes.is_empty()).then_some(bytes) };
        bytes.push(byte);
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        let begin = bytes.len();
        while !is_whole(&bytes[begin..]) {
            let Ok(byte) = stream.read_u8().await else { return Some(bytes) };
            bytes.push(byte);
        }
    } else if let Some((_, rest)) = head.split_once("\r\ncontent-length: ") {
        let length: usize = rest.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        bytes.extend(body);
    }
    Some(bytes)
}

/// Whether a chunked body has its last chunk and the end of its trailers.
fn is_whole(mut body: &[u8]) -> bool {
    loop {
        let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") else { return false };
        let size = std::str::from_utf8(&body[..end]).unwrap().split(';').next().unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body[end..].ends_with(b"\r\n\r\n");
        }
        let Some(rest) = body.get(end + 2 + size + 2..) else { return false };
        body = rest;
    }
}
