//! Room where anybody may connect: some of it stays for others.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    task::{Context, Poll, ready},
};

use tokio_util::net::Listener;

use super::shares::{Share, Shares};

/// A listener of which no address has more than a quarter of the room: whoever holds connections open keeps nobody else out.
pub struct Fair<L> {
    listener: L,
    shares: Shares<IpAddr>,
}

impl<L> Fair<L> {
    /// Of this listener, for which there is so much room.
    pub fn new(listener: L, room: usize) -> Self {
        Self { listener, shares: Shares::of_at_most(room.div_ceil(4)) }
    }
}

/// Whoever has an address. The loopback is this machine's, or this pod's, under each of its sixteen million addresses.
fn whose(from: IpAddr) -> IpAddr {
    let from = from.to_canonical();
    if from.is_loopback() { Ipv4Addr::LOCALHOST.into() } else { from }
}

impl<L: Listener<Addr = SocketAddr>> Listener for Fair<L> {
    type Io = L::Io;
    type Addr = Share;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(L::Io, Share)>> {
        loop {
            let (io, from) = ready!(self.listener.poll_accept(cx))?;
            // Whoever has its share is closed.
            if let Some(share) = self.shares.take(&whose(from.ip()), 1) {
                return Poll::Ready(Ok((io, share)));
            }
        }
    }

    fn local_addr(&self) -> io::Result<Share> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::time::timeout;

    use super::*;
    use crate::drain::Drain;

    /// What comes from these addresses, the last first.
    struct Strangers(Vec<&'static str>);

    impl Listener for Strangers {
        type Io = io::Cursor<Vec<u8>>;
        type Addr = SocketAddr;

        fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<(Self::Io, SocketAddr)>> {
            let come = |from: &str| Ok((io::Cursor::new(from.into()), from.parse().unwrap()));
            self.0.pop().map_or(Poll::Pending, |from| Poll::Ready(come(from)))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok("10.0.0.9:7090".parse().unwrap())
        }
    }

    /// Where it came from.
    fn name(io: io::Cursor<Vec<u8>>) -> String {
        String::from_utf8(io.into_inner()).unwrap()
    }

    /// Whose connections are served, in their order, where none ends.
    async fn served(come: Vec<&'static str>) -> Vec<String> {
        let drain = Drain::default();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let ends = drain.clone();
        let serve = move |io, share| {
            tell.send(name(io)).unwrap();
            let ends = ends.clone();
            async move {
                ends.begun().await;
                drop(share);
            }
        };
        let _ = timeout(Duration::from_hours(1), drain.accept(Fair::new(Strangers(come), 8), 8, serve)).await;
        let mut all = Vec::new();
        while let Ok(from) = told.try_recv() {
            all.push(from);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_takes_a_quarter_of_the_room_and_leaves_the_rest_to_others() {
        let (probe, other) = ("10.0.0.1:40001", "10.0.0.2:40001");
        let mapped = "[::ffff:10.0.0.7]:40001";
        let mut come = vec![probe, mapped, other];
        come.extend(["10.0.0.7:40001"; 20]);
        assert_eq!(served(come).await, ["10.0.0.7:40001", "10.0.0.7:40001", other, probe]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_loopback_is_one_address_whichever_of_its_own_it_comes_from() {
        let come = vec![
            "10.0.0.1:4",
            "[::1]:3",
            "[::ffff:127.9.9.9]:3",
            "127.0.0.3:3",
            "127.0.0.2:2",
            "127.0.0.1:1",
        ];
        assert_eq!(served(come).await, ["127.0.0.1:1", "127.0.0.2:2", "10.0.0.1:4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_back_is_the_same_addresses_again() {
        let mut fair = Fair::new(Strangers(vec!["10.0.0.7:3", "10.0.0.7:2", "10.0.0.7:1"]), 4);
        let mut next = async || timeout(Duration::from_secs(1), poll_fn(|cx| fair.poll_accept(cx))).await;
        let (io, place) = next().await.unwrap().unwrap();
        assert_eq!(name(io), "10.0.0.7:1");
        drop(place);
        assert_eq!(name(next().await.unwrap().unwrap().0), "10.0.0.7:2");
        assert_eq!(name(next().await.unwrap().unwrap().0), "10.0.0.7:3");
    }
}
