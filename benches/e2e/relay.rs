//! The yardstick: a CONNECT proxy that copies bytes and does nothing else, on one thread.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::wire::{Buffer, broken};

/// A TLS record with its frame fits, so that a small answer is one read and one write. For answers of 1 MiB this
/// costs less than 8 KiB (tokio's default) and than 64 KiB.
const COPY_BYTES: usize = 17 * 1024;

/// Listens on `listen`; a route is `host=address`.
pub(crate) fn run(listen: &str, routes: &[&str]) -> Result<()> {
    let routes = routes
        .iter()
        .map(|route| {
            let (host, address) = route.split_once('=').context("a route is host=address")?;
            Ok((host.to_owned(), address.parse()?))
        })
        .collect::<Result<HashMap<String, SocketAddr>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept(listen, Arc::new(routes)))
}

async fn accept(listen: &str, routes: Arc<HashMap<String, SocketAddr>>) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let mut tunnels = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        tunnels.spawn(tunnel(stream, Arc::clone(&routes)));
        while tunnels.try_join_next().is_some() {}
    }
}

async fn tunnel(mut client: TcpStream, routes: Arc<HashMap<String, SocketAddr>>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut buffer = Buffer::new();
    let head = buffer.head(&mut client).await?.ok_or_else(|| broken("no request"))?;
    let address = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.strip_prefix("CONNECT "))
        .and_then(|rest| rest.split(':').next())
        .and_then(|host| routes.get(host))
        .ok_or_else(|| broken("not a CONNECT to a known host"))?;
    let mut provider = TcpStream::connect(address).await?;
    provider.set_nodelay(true)?;
    drop(buffer);
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional_with_sizes(&mut client, &mut provider, COPY_BYTES, COPY_BYTES).await?;
    Ok(())
}
