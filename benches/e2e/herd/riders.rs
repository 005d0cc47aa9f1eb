//! Clients that ask for one account after the other, at a pace that does not depend on the answers.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

use super::{ACCOUNTS, account};
use crate::wire::{self, Buffer};

/// How many clients there are.
const CLIENTS: usize = 16;
/// Each asks once in so long: 800 requests a second in all.
const PACE: Duration = Duration::from_millis(20);

/// One answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) asked: Timestamp,
    pub(super) took: Duration,
}

/// What all clients saw.
#[derive(Default)]
pub(super) struct Ride {
    pub(super) answers: Vec<Answer>,
    /// When a request was refused, and how.
    pub(super) refused: Vec<(Timestamp, String)>,
}

impl Ride {
    /// Lets all clients ask until it is over, or that took too long, and some time more.
    pub(super) async fn over(
        proxy: SocketAddr,
        is_over: impl Fn() -> bool,
        limit: Duration,
        calm: Duration,
    ) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let mut riders = JoinSet::new();
        for number in 0..CLIENTS {
            riders.spawn(Rider::ride(proxy, number, Arc::clone(&ended)));
        }
        let begun = Instant::now();
        while !is_over() && begun.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(calm).await;
        ended.store(true, Ordering::Relaxed);
        let mut all = Self::default();
        for ride in riders.join_all().await {
            all.answers.extend(ride.answers);
            all.refused.extend(ride.refused);
        }
        all
    }
}

/// One client and its connection.
pub(super) struct Rider {
    proxy: SocketAddr,
    connection: Option<(TcpStream, Buffer)>,
}

impl Rider {
    /// Asks at its pace. Where an answer is late, the requests behind it count as asked when they were due.
    async fn ride(proxy: SocketAddr, number: usize, ended: Arc<AtomicBool>) -> Ride {
        let (mut rider, mut ride) = (Self { proxy, connection: None }, Ride::default());
        let offset = PACE * u32::try_from(number).unwrap_or_default() / 16;
        let mut pace = tokio::time::interval_at(tokio::time::Instant::now() + offset, PACE);
        let mut last = Instant::now();
        // A stride that meets every account before it meets one twice.
        let mut next = number * ACCOUNTS / CLIENTS;
        while !ended.load(Ordering::Relaxed) {
            let due = pace.tick().await.into_std();
            let (begun, asked) = (if last > due { due } else { Instant::now() }, Timestamp::now());
            next = (next + 7919) % ACCOUNTS;
            match rider.ask(next).await {
                Ok(()) => ride.answers.push(Answer { asked, took: begun.elapsed() }),
                Err(error) => {
                    rider.connection = None;
                    ride.refused.push((asked, format!("{error:#}")));
                }
            }
            last = Instant::now();
        }
        ride
    }

    /// Asks for an account, and makes sure that it was that one's token that went out.
    async fn ask(&mut self, number: usize) -> Result<()> {
        let (mut stream, mut buffer) = match self.connection.take() {
            Some(open) => open,
            None => (TcpStream::connect(self.proxy).await?, Buffer::new()),
        };
        stream.set_nodelay(true)?;
        let (key, identity) = account(number);
        let request = format!(
            "GET http://api.provider.test/v1/items/1 HTTP/1.1\r\nhost: api.provider.test\r\nagent-identity: {identity}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let head = buffer.head(&mut stream).await?.context("the proxy hung up")?;
        let (status, length) = (wire::status(head)?, wire::content_length(head)?);
        let body = buffer.take(&mut stream, length).await?;
        let body = String::from_utf8_lossy(&body);
        ensure!(status == 200, "{key}: {status} {body}");
        ensure!(body.contains(&format!("\"{key}\"")), "{key} was given another one's token: {body}");
        self.connection = Some((stream, buffer));
        Ok(())
    }
}

/// Asks once for each of these accounts, as fast as it goes.
pub(super) async fn once(proxy: SocketAddr, accounts: Range<usize>) -> Result<()> {
    let mut riders = JoinSet::new();
    for client in 0..CLIENTS {
        let mine = accounts.clone().skip(client).step_by(CLIENTS);
        riders.spawn(async move {
            let mut rider = Rider { proxy, connection: None };
            for number in mine {
                rider.ask(number).await?;
            }
            anyhow::Ok(())
        });
    }
    riders.join_all().await.into_iter().collect()
}
