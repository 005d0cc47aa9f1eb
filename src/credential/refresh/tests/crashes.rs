//! The process is killed after every step that it makes, and another one begins on the same vault.

use std::time::Duration;

use tokio::runtime::Runtime;

use super::world::*;
use crate::{
    cause::Cause,
    credential::{Closed, Error},
    drain::Drain,
    vault::{GrantState, Vault},
};

/// A process: dropping it kills what it does at whatever point that is.
fn process() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .event_interval(1)
        .build()
        .unwrap()
}

/// What became of an account whose first process was killed after so many steps.
struct Survived {
    asked: Result<String, Error>,
    state: GrantState,
    posts: usize,
    /// Whether the first process got as far as the answer, and whether it had committed that.
    had_sent: bool,
    is_done: bool,
}

fn killed_after(steps: usize, grace: Duration) -> Survived {
    let first = process();
    let (vault, provider, connector, had_sent, is_done) = first.block_on(async {
        let vault = Vault::in_memory(&Drain::default()).await.unwrap();
        let clock = clock();
        vault.add(connected(&clock, key(), HOUR)).await.unwrap();
        let world = World::over(vault, Provider::new(clock.clone()), clock, connector(&rotating()));
        world.provider.book.lock().unwrap().grace = grace;
        tokio::time::sleep(HOUR).await;
        let asked = world.token();
        let killed = async {
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
        };
        let is_done = tokio::select! {
            biased;
            asked = asked => asked.is_ok(),
            () = killed => false,
        };
        (world.vault.clone(), world.provider.clone(), world.current(), world.provider.posts() > 0, is_done)
    });
    drop(first);

    process().block_on(async {
        tokio::time::sleep(HOUR).await; // as late as it was in the first process
        let world = World::over(vault, provider.clone(), provider.clock.clone(), connector);
        world.follow();
        world.engine.recover().await.unwrap();
        let mut asked = world.token().await;
        for _ in 0..10 {
            if !matches!(asked, Err(Error::NoToken { .. })) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(16)).await;
            asked = world.token().await;
        }
        assert!(world.vault.intents().await.unwrap().is_empty(), "nothing is left undone");
        let state = world.grant().await.state;
        Survived { asked, state, posts: provider.posts(), had_sent, is_done }
    })
}

/// Enough for an attempt from its first step to its last.
const STEPS: usize = 80;

#[test]
fn with_grace_no_account_is_lost_wherever_the_process_is_killed() {
    let mut sent = 0;
    for steps in 0..STEPS {
        let survived = killed_after(steps, Duration::from_mins(10));
        let asked = survived.asked.unwrap_or_else(|error| panic!("killed after {steps} steps: {error:?}"));
        assert!(asked == "access-token-1" || asked == "access-token-2", "{asked}");
        assert_eq!(survived.state, GrantState::Fresh);
        assert!(survived.posts <= 2, "{} posts", survived.posts);
        sent += usize::from(survived.had_sent && !survived.is_done);
    }
    assert!(sent > 3, "some were killed between sending and committing: {sent}");
}

#[test]
fn without_grace_the_only_loss_is_a_typed_lost_rotation_of_an_answer_that_was_not_put_away() {
    let (mut lost, mut kept) = (0, 0);
    for steps in 0..STEPS {
        let survived = killed_after(steps, Duration::ZERO);
        match survived.asked {
            Ok(_) => {
                assert_eq!(survived.state, GrantState::Fresh);
                kept += 1;
            }
            Err(Error::Closed { closed, .. }) => {
                assert_eq!(closed, Closed::Reauthorize(Cause::LostRotation), "killed after {steps} steps");
                assert!(survived.had_sent, "what was never sent cannot be lost");
                assert_eq!(survived.posts, 2, "one attempt to find out, and no more");
                lost += 1;
            }
            Err(other) => panic!("killed after {steps} steps: {other:?}"),
        }
    }
    assert!(kept > lost, "{kept} kept, {lost} lost");
}
