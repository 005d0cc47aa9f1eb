//! A token endpoint that answers every request alike, and tells what it was asked.

use std::{collections::BTreeMap, sync::Arc};

use oauth2::url::form_urlencoded;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    drain::Drain,
    host::Host,
    tls::{Authority, Downstream, Leaves, Metrics},
};

pub(super) struct Server {
    pub(super) port: u16,
    pub(super) roots: Arc<RootCertStore>,
    asked: tokio::sync::Mutex<mpsc::UnboundedReceiver<Asked>>,
}

/// One request, as it came.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

/// A 200 with JSON.
pub(super) fn json(body: &str) -> String {
    response(200, "application/json", body)
}

pub(super) fn response(status: u16, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
}

impl Server {
    pub(super) async fn answering(answer: &str) -> Self {
        let authority = Arc::new(Authority::open(None).unwrap());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let leaves = Arc::new(Leaves::new(authority, 8, &metrics));
        let downstream = Downstream::new(leaves).unwrap();
        let acceptor = TlsAcceptor::from(downstream.config_for(&Host::parse("idp.test").unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, asked) = mpsc::unbounded_channel();
        let answer = answer.to_owned();
        Drain::default().spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let Some(request) = Asked::read(&mut tls).await else { continue };
                let _ = tell.send(request);
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        Self { port, roots: Arc::new(roots), asked: tokio::sync::Mutex::new(asked) }
    }

    /// The one request that came.
    pub(super) async fn one(&self) -> Asked {
        let mut asked = self.asked.lock().await;
        let one = asked.recv().await.unwrap();
        assert!(asked.try_recv().is_err(), "asked once only");
        one
    }

    pub(super) async fn nothing(&self) {
        assert!(self.asked.lock().await.try_recv().is_err(), "nothing was asked");
    }
}

impl Asked {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut bytes = Vec::new();
        loop {
            let mut more = [0; 4096];
            match stream.read(&mut more).await.ok()? {
                0 => return None,
                n => bytes.extend_from_slice(&more[..n]),
            }
            let text = String::from_utf8(bytes.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let (line, fields) = head.split_once("\r\n").unwrap();
            let headers: BTreeMap<_, _> = fields
                .lines()
                .map(|field| field.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(Self { line: line.to_owned(), headers, body: body.to_owned() });
            }
        }
    }

    /// The parameters of a form.
    pub(super) fn form(&self) -> BTreeMap<String, String> {
        assert_eq!(self.headers["content-type"], "application/x-www-form-urlencoded");
        let pairs: Vec<_> = form_urlencoded::parse(self.body.as_bytes()).into_owned().collect();
        let form: BTreeMap<_, _> = pairs.iter().cloned().collect();
        assert_eq!(form.len(), pairs.len(), "no parameter twice (RFC 6749 §3.2): {pairs:?}");
        form
    }

    /// The fields of a JSON object.
    pub(super) fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }
}
