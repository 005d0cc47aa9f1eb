//! What this module's tests share, and others' that need names of their own: a machine's two files, and a name server on
//! UDP and TCP that says what the test wants.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, Query, ResponseCode},
    rr::{RData, Record},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

use super::{Files, Names};
use crate::drain::Drain;

/// What a name server says of a name. Of any other it says that there is none.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// Addresses, to be kept for so many seconds.
    Has(&'static [&'static str], u32),
    /// By UDP that there are more than fit, by TCP all of them.
    Many(&'static [&'static str]),
    /// That something is wrong with itself.
    Code(ResponseCode),
    /// That something is wrong with itself where it is asked for IPv6.
    NoV6(&'static [&'static str]),
    /// Nothing.
    Silence,
}

/// A machine with names of its own.
pub(crate) struct Machine {
    pub(crate) names: Names,
    dir: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    serving: [JoinHandle<()>; 2],
}

impl Machine {
    /// One whose only name server says this, and whose `resolv.conf` says more than where that is.
    pub(crate) async fn start(zone: &[(&str, Says)], more: &str) -> Self {
        let (tcp, udp) = sockets().await;
        let port = udp.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let files =
            Files { hosts: dir.path().join("hosts"), resolv_conf: dir.path().join("resolv.conf"), port };
        let asked = Arc::default();
        let zone = zone.iter().map(|(name, says)| ((*name).to_owned(), says.clone())).collect();
        let server = Arc::new(Server { zone, asked: Arc::clone(&asked) });
        let drain = Drain::default();
        let serving = [drain.spawn(Arc::clone(&server).by_udp(udp)), drain.spawn(server.by_tcp(tcp))];
        let machine = Self { names: Names::of(files), dir, asked, serving };
        machine.write("resolv.conf", &format!("nameserver 127.0.0.1\n{more}"));
        machine
    }

    /// Writes one of the two files.
    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    /// Removes one.
    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.dir.path().join(file)).unwrap();
    }

    /// What the server was asked since this was last called, as in `udp A db.test.`, sorted.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

/// The same port for both. What another process took meanwhile is given back.
async fn sockets() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (tcp, udp);
        }
    }
}

struct Server {
    zone: HashMap<String, Says>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn by_udp(self: Arc<Self>, socket: UdpSocket) {
        let mut bytes = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
            if let Some(answer) = self.answer(&bytes[..length], "udp") {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    }

    async fn by_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            Drain::default().spawn(Arc::clone(&self).by_connection(stream));
        }
    }

    async fn by_connection(self: Arc<Self>, mut stream: TcpStream) {
        while let Ok(length) = stream.read_u16().await {
            let mut bytes = vec![0; usize::from(length)];
            stream.read_exact(&mut bytes).await.unwrap();
            let answer = self.answer(&bytes, "tcp").unwrap();
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }

    fn answer(&self, bytes: &[u8], by: &str) -> Option<Vec<u8>> {
        let question = Message::from_vec(bytes).unwrap();
        let query = question.queries[0].clone();
        let (name, kind) = (query.name().to_string(), query.query_type());
        self.asked.lock().unwrap().push(format!("{by} {kind} {name}"));
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        match (self.zone.get(name.trim_end_matches('.')), by) {
            (None, _) => answer.metadata.response_code = ResponseCode::NXDomain,
            (Some(Says::Silence), _) => return None,
            (Some(Says::Code(code)), _) => answer.metadata.response_code = *code,
            (Some(Says::NoV6(_)), _) if kind.to_string() == "AAAA" => {
                answer.metadata.response_code = ResponseCode::ServFail;
            }
            (Some(Says::Many(_)), "udp") => answer.metadata.truncation = true,
            (Some(Says::Has(ips, ttl)), _) => fill(&mut answer, &query, ips, *ttl),
            (Some(Says::Many(ips) | Says::NoV6(ips)), _) => fill(&mut answer, &query, ips, 0),
        }
        answer.add_query(query);
        Some(answer.to_vec().unwrap())
    }
}

/// Those of the addresses that were asked for.
fn fill(answer: &mut Message, query: &Query, ips: &[&str], ttl: u32) {
    let all = ips.iter().map(|ip| RData::from(ip.parse::<IpAddr>().unwrap()));
    for data in all.filter(|data| data.record_type() == query.query_type()) {
        answer.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
    }
}
