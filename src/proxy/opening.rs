//! How a connection begins: with TLS, or with something else. Read before it is decided whose it is.

use std::io;

use bytes::{Bytes, BytesMut};
use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::connection::Protocol;
use crate::host::Host;

/// The first byte of a TLS handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// How an HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Enough for most `ClientHello`s in one read.
const FIRST_READ: usize = 2048;
/// No `ClientHello` is longer (RFC 8446 §4: a handshake message may be; rustls takes none).
const LONGEST_HELLO: usize = 0x1_0000 + FIRST_READ;

/// The beginning of a connection.
pub(super) enum Opening {
    /// It ended before a byte came.
    Closed,
    /// Not TLS. These bytes were read.
    Plain(Bytes),
    /// TLS.
    Tls {
        /// The handshake, up to where a certificate is needed.
        hello: Box<Accepted>,
        /// The server name (RFC 6066 §3), where there is one.
        name: Option<Host>,
        /// The bytes that were read.
        read: Bytes,
    },
}

impl Opening {
    /// Reads as far as needed, beginning with what was read before. What is no `ClientHello` is answered with the
    /// alert that belongs to it.
    ///
    /// # Errors
    /// What the connection or the handshake fails with, and a server name that is no host.
    pub(super) async fn read<I>(io: &mut I, read: Bytes) -> io::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut read = BytesMut::from(read);
        if read.is_empty() {
            more(io, &mut read).await?;
        }
        match read.first() {
            None => Ok(Self::Closed),
            Some(&TLS_HANDSHAKE) => Self::hello(io, read).await,
            Some(_) => Ok(Self::Plain(read.freeze())),
        }
    }

    async fn hello<I>(io: &mut I, mut read: BytesMut) -> io::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut acceptor = Acceptor::default();
        let mut fed = 0;
        loop {
            while fed < read.len() {
                fed += acceptor.read_tls(&mut &read[fed..])?;
            }
            match acceptor.accept() {
                Ok(Some(hello)) => {
                    let name = hello.client_hello().server_name().map(Host::parse).transpose();
                    let name = name.map_err(io::Error::other)?;
                    return Ok(Self::Tls { hello: Box::new(hello), name, read: read.freeze() });
                }
                Ok(None) if read.len() > LONGEST_HELLO => {
                    return Err(io::Error::other("the ClientHello is too long"));
                }
                Ok(None) => {
                    if more(io, &mut read).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    alert.write_all(&mut bytes)?;
                    io.write_all(&bytes).await?;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }
}

/// Reads until it is told whether HTTP/2 is spoken, which announces itself by its preface (RFC 9113 §3.4), beginning
/// with what was read before. Nothing is read that ended before its first byte.
pub(super) async fn announced<I>(io: &mut I, read: Bytes) -> io::Result<(Protocol, Bytes)>
where
    I: AsyncRead + Unpin,
{
    let mut read = BytesMut::from(read);
    loop {
        if read.starts_with(PREFACE) {
            return Ok((Protocol::H2, read.freeze()));
        }
        if !PREFACE.starts_with(&read) || more(io, &mut read).await? == 0 {
            return Ok((Protocol::H1, read.freeze()));
        }
    }
}

/// Reads once.
pub(super) async fn more<I: AsyncRead + Unpin>(io: &mut I, read: &mut BytesMut) -> io::Result<usize> {
    read.reserve(FIRST_READ);
    io.read_buf(read).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// The first bytes of a client that wants this name.
    fn hello(name: &'static str) -> Vec<u8> {
        crate::tls::init_crypto();
        let config =
            ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// What is read where `before` came already, and `after` comes before the end.
    async fn read(before: &[u8], after: &[u8]) -> io::Result<Opening> {
        let (mut agent, mut ours) = tokio::io::duplex(0x4000);
        agent.write_all(after).await.unwrap();
        agent.shutdown().await.unwrap();
        Opening::read(&mut ours, Bytes::copy_from_slice(before)).await
    }

    #[tokio::test]
    async fn the_server_name_is_found_wherever_the_hello_was_cut_and_no_byte_is_lost() {
        let bytes = hello("API.example");
        for cut in [0, 1, 5, 6, 100, bytes.len() - 1, bytes.len()] {
            let (before, after) = bytes.split_at(cut);
            let Opening::Tls { name, read, .. } = read(before, after).await.unwrap() else {
                panic!("{cut}: not TLS")
            };
            assert_eq!(
                (name.unwrap().to_string(), &read[..]),
                ("api.example".to_owned(), &bytes[..]),
                "{cut}"
            );
        }
        let Opening::Tls { name, .. } = read(&[], &hello("192.0.2.1")).await.unwrap() else {
            panic!("not TLS")
        };
        assert_eq!(name, None, "an address is no server name (RFC 6066 §3)");
    }

    #[tokio::test]
    async fn what_is_no_tls_is_handed_on_and_half_a_hello_is_an_error() {
        assert!(matches!(read(&[], &[]).await.unwrap(), Opening::Closed));
        assert!(matches!(read(b"GET", b" /").await.unwrap(), Opening::Plain(read) if read == "GET"));
        assert!(matches!(read(&[], b"SSH-").await.unwrap(), Opening::Plain(read) if read == "SSH-"));
        let half = read(&hello("a.example")[..60], &[]).await.err().unwrap();
        assert_eq!(half.kind(), io::ErrorKind::UnexpectedEof);
        let endless = [&[0x16, 3, 1, 0x40, 0][..], &[1; 0x4000]].concat().repeat(5);
        assert!(read(&endless, &[]).await.is_err());
    }
}
