//! Timer: a sleep that costs a look at the clock while it is not due. Knows nothing of what it is for.

use std::pin::Pin;
use std::task::Context;
use std::task::Waker;

use tokio::time::Instant;
use tokio::time::Sleep;

/// Polled with each event of a connection, ten thousand times for a broadcast, and due once in half a minute: polling the sleep itself each time would bring
/// its entry and its waker into the cache for nothing.
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
    due: Instant,
    /// Whom the sleep wakes. `None`: nobody yet.
    armed: Option<Waker>,
}

impl Timer {
    pub(crate) fn new(due: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(due)), due, armed: None }
    }

    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    pub(crate) fn reset(&mut self, due: Instant) {
        self.sleep.as_mut().reset(due);
        (self.due, self.armed) = (due, None);
    }

    /// Whether it is due; if not, the task of `cx` is woken when it is.
    pub(crate) fn poll(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        if now < self.due && self.armed.as_ref().is_some_and(|armed| armed.will_wake(cx.waker())) {
            return false;
        }
        // A task that has used up its turn is told "pending" and woken at once; the sleep does not know of it then.
        let in_turn = tokio::task::coop::has_budget_remaining();
        if self.sleep.as_mut().poll(cx).is_ready() {
            return true;
        }
        self.armed = in_turn.then(|| cx.waker().clone());
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    /// Waits as a connection does: polled with the same waker, whatever woke it.
    async fn wait(timer: &mut Timer) {
        poll_fn(|cx| if timer.poll(Instant::now(), cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[test]
    fn it_wakes_whoever_polled_it_last_and_again_after_a_reset() {
        actix_web::rt::System::new().block_on(async {
            let (start, step) = (Instant::now(), Duration::from_millis(20));
            let mut timer = Timer::new(start + step);
            // Armed by another task's waker first.
            assert!(!timer.poll(Instant::now(), &mut Context::from_waker(Waker::noop())));
            wait(&mut timer).await;
            assert!(start.elapsed() >= step);
            timer.reset(start + 3 * step);
            wait(&mut timer).await;
            assert!(start.elapsed() >= 3 * step);
            assert!(timer.poll(Instant::now(), &mut Context::from_waker(Waker::noop())), "it stays due");
        });
    }
}
