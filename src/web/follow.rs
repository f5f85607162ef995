//! Follow: the log's topics of one connection, as one stream. Knows no protocol.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use futures_core::Stream;
use futures_util::stream::AbortHandle;
use futures_util::stream::Abortable;
use futures_util::stream::SelectAll;

use crate::event::Wire;
use crate::feed::raw::Raw;
use crate::ids::EntryId;
use crate::log::Gap;
use crate::log::Position;
use crate::pubsub::PubSub;
use crate::stream::error::FollowError;
use crate::stream::follower::Followed;
use crate::stream::follower::Follower;
use crate::topic::Topic;

/// What comes of a topic that is followed; the number is the one that it was given.
pub(crate) enum Step {
    /// An entry, whatever its name.
    Entry(usize, Arc<dyn Wire>, EntryId),
    Gap(usize, Gap),
    /// History was given out to its end, for the first time.
    Live(usize),
}

/// Follows any number of topics, each from its own position.
#[derive(Default)]
pub(crate) struct Follows {
    topics: SelectAll<Abortable<One>>,
}

impl Follows {
    /// Begins to follow. The handle ends it.
    pub(crate) fn add(
        &mut self,
        pubsub: &PubSub,
        number: usize,
        topic: &Topic,
        from: Position,
    ) -> Result<AbortHandle, FollowError> {
        let follower = pubsub.follow_raw(topic, from)?;
        let (handle, registration) = AbortHandle::new_pair();
        self.topics.push(Abortable::new(One { number, follower, told: false }, registration));
        Ok(handle)
    }

    /// The next step of any topic; pending while there is none, for good if none is followed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        // Looking at nothing costs a waker, each time.
        if self.topics.is_empty() {
            return Poll::Pending;
        }
        match Pin::new(&mut self.topics).poll_next(cx) {
            Poll::Ready(Some(step)) => Poll::Ready(step),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

struct One {
    number: usize,
    follower: Follower<Raw>,
    told: bool,
}

impl Stream for One {
    type Item = Step;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        let this = self.get_mut();
        match this.follower.poll_next(cx) {
            Poll::Ready(Some(Followed::Event(event))) => {
                let id = event.id().unwrap_or_default();
                Poll::Ready(Some(Step::Entry(this.number, event.into_head(), id)))
            }
            Poll::Ready(Some(Followed::Gap(gap))) => Poll::Ready(Some(Step::Gap(this.number, gap))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if !this.told && this.follower.progress.is_live() => {
                this.told = true;
                Poll::Ready(Some(Step::Live(this.number)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
