//! Bodies that are read whole before anything is done with them: within bounds of length, of time, and of memory for all
//! of them together.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;

use super::{
    Limits,
    refusal::{Code, Refusal},
};
use crate::{
    drain::{Share, Shares},
    id::TenantId,
};

/// Memory for all bodies that are held at a time, in bytes.
const ROOM: usize = 32 << 20;
/// So many of the largest there is room for, whatever their limit is.
const LARGEST: usize = 16;

/// Memory for bodies, of which no tenant has more than a quarter.
pub(super) struct Room {
    all: Shares<()>,
    each: Shares<TenantId>,
}

impl Room {
    /// Room for bodies within these limits.
    #[must_use]
    pub(super) fn new(limits: &Limits) -> Self {
        let room = ROOM.max(limits.inspect_body_bytes.saturating_mul(LARGEST));
        Self { all: Shares::of_at_most(room), each: Shares::of_at_most(room.div_ceil(4)) }
    }
}

/// How the bodies of a tenant are read.
pub(super) struct Gathering<'a> {
    /// The longest, in bytes.
    pub(super) limit: usize,
    /// How long the agent may send nothing of it.
    pub(super) patience: Duration,
    /// Where it is held.
    pub(super) room: &'a Room,
    /// Whose it is.
    pub(super) tenant: &'a TenantId,
}

/// A body, and the room that it takes until it is dropped.
#[derive(Debug)]
pub(super) struct Gathered {
    /// All of it.
    pub(super) bytes: Bytes,
    /// Where it is held.
    pub(super) room: Held,
}

/// Room that a body takes, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    all: Share<()>,
    each: Share<TenantId>,
}

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is longer than the limit.
    TooLong,
    /// It broke off, or its chunks cannot be read.
    BrokeOff,
    /// Nothing came for so long.
    Silent(Duration),
    /// There is no room for it.
    Full,
}

impl Unread {
    /// The refusal; what to do about one that is too long is the caller's to say.
    #[must_use]
    pub(super) fn refusal(self, too_long: impl FnOnce() -> Refusal) -> Refusal {
        match self {
            Self::TooLong => too_long(),
            Self::BrokeOff => Refusal::bad_request("the body broke off, or its chunks cannot be read"),
            Self::Silent(patience) => silent(patience),
            Self::Full => Refusal::new(
                Code::Overloaded,
                "overloaded: there is no room for another body that is read before it is sent; nothing was sent, try again",
            ),
        }
    }
}

/// The refusal where an agent began a body and went silent.
#[must_use]
pub(super) fn silent(patience: Duration) -> Refusal {
    Refusal::bad_request(format!("nothing came of the body for {} s", patience.as_secs_f32()))
}

impl Gathering<'_> {
    /// The next frame. As long as there is one to be read, no clock is asked.
    ///
    /// # Errors
    /// When the agent sends nothing for too long.
    pub(super) async fn frame<B>(
        &self,
        body: &mut B,
    ) -> Result<Option<Result<Frame<Bytes>, B::Error>>, Unread>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        tokio::time::timeout(self.patience, body.frame()).await.map_err(|_| Unread::Silent(self.patience))
    }

    /// The whole body.
    ///
    /// # Errors
    /// Why it could not be read.
    pub(super) async fn whole<B>(&self, mut body: B) -> Result<Gathered, Unread>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let held = (self.room.all.take(&(), 0), self.room.each.take(self.tenant, 0));
        let (Some(all), Some(each)) = held else { return Err(Unread::Full) };
        let mut room = Held { all, each };
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.frame(&mut body).await? {
            let Ok(data) = frame.map_err(|_| Unread::BrokeOff)?.into_data() else { continue };
            if data.len() > self.limit - bytes.len() {
                return Err(Unread::TooLong);
            }
            if !(room.each.grow(data.len()) && room.all.grow(data.len())) {
                return Err(Unread::Full);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Gathered { bytes: bytes.freeze(), room })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::{Full, StreamBody};

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn room() -> Room {
        Room::new(&Limits { inspect_body_bytes: LIMIT, ..Limits::default() })
    }

    fn of<'a>(room: &'a Room, tenant: &'a TenantId) -> Gathering<'a> {
        Gathering { limit: LIMIT, patience: Duration::from_mins(2), room, tenant }
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn largest() -> Full<Bytes> {
        Full::new(vec![b'x'; LIMIT].into())
    }

    #[tokio::test]
    async fn bodies_that_are_held_have_a_bound_in_all_and_for_each_tenant() {
        let room = room();
        let mut held = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let tenant = tenant(name);
            for _ in 0..8 {
                held.push(of(&room, &tenant).whole(largest()).await.unwrap());
            }
            assert!(matches!(of(&room, &tenant).whole(largest()).await, Err(Unread::Full)));
        }
        let late = tenant("e");
        assert!(matches!(of(&room, &late).whole(largest()).await, Err(Unread::Full)));
        held.pop();
        assert_eq!(of(&room, &late).whole(largest()).await.unwrap().bytes.len(), LIMIT);
    }

    #[tokio::test]
    async fn a_body_may_be_as_long_as_its_limit_and_no_longer() {
        let (room, acme) = (room(), tenant("acme"));
        let exact = Gathering { limit: 5, ..of(&room, &acme) };
        assert_eq!(exact.whole(Full::from("abcde")).await.unwrap().bytes, "abcde");
        assert!(matches!(exact.whole(Full::from("abcdef")).await, Err(Unread::TooLong)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_goes_silent_is_not_waited_for_longer_than_its_time_since_its_last_byte() {
        let (room, acme) = (room(), tenant("acme"));
        let piece = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
        let slow = stream::iter(0..3).then(move |_| async move {
            tokio::time::sleep(Duration::from_secs(119)).await;
            piece()
        });
        let body = StreamBody::new(Box::pin(slow));
        assert_eq!(of(&room, &acme).whole(body).await.unwrap().bytes, "xxx");
        let silent = stream::iter([piece()]).chain(stream::pending());
        let began = tokio::time::Instant::now();
        let read = of(&room, &acme).whole(StreamBody::new(silent)).await;
        assert!(matches!(read, Err(Unread::Silent(_))));
        assert_eq!(began.elapsed(), Duration::from_mins(2));
        assert_eq!(room.each.take(&acme, 8 << 20).map(drop), Some(())); // what it held is free
    }
}
