//! A reader that takes nothing stands in nobody's way.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    agent::identity,
    provider::Speaks,
    stage::{HOST, Stage, Staging},
};

/// Asks for more than any window has, and reads the head alone.
async fn stalled(stage: &Stage) -> TcpStream {
    let mut stream = TcpStream::connect(stage.proxy()).await.unwrap();
    let who = identity("acme", "researcher");
    let ask =
        format!("GET http://{HOST}/bytes/50000000 HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: {who}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_take_nothing_leave_their_connection_to_others() {
    let stage = Stage::set(Staging { speaks: Speaks::Http2, ..Staging::default() }).await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(stalled(&stage).await);
    }
    let url = format!("http://{HOST}/bytes/1000000");
    for _ in 0..30 {
        let asked = stage.get("acme", "researcher", &url);
        let answer = tokio::time::timeout(std::time::Duration::from_secs(20), asked).await;
        assert_eq!(answer.expect("it is not kept waiting").body.len(), 1_000_000);
    }
    let connections: std::collections::BTreeSet<_> =
        stage.provider.requests().iter().map(|seen| seen.peer.connection).collect();
    assert_eq!(connections.len(), 1);
}
