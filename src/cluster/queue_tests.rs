//! Tests of the queue, apart from it, because `tests/model.rs` compiles it with locks that work under a model checker only.

use std::collections::VecDeque;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use crate::cluster::queue::Queue;
use crate::cluster::queue::Refused;

fn drained(queue: &Queue<u32>) -> Vec<u32> {
    let mut items = VecDeque::new();
    queue.drain(&mut items, Waker::noop());
    items.into()
}

#[test]
fn a_queue_takes_its_capacity_and_refuses_one_more() {
    let queue = Queue::new(2, 100);
    assert_eq!((queue.push(1, 1), queue.push(2, 1), queue.push(3, 1)), (Ok(()), Ok(()), Err((Refused::Full, 3))));
    assert_eq!((queue.len(), queue.refused(), queue.peak(), drained(&queue)), (2, 1, 2, vec![1, 2]));
    assert_eq!(queue.push(4, 1), Ok(()));
}

#[test]
fn a_queue_is_bounded_in_bytes_but_takes_one_item_of_any_size() {
    let queue = Queue::new(10, 100);
    assert_eq!((queue.push(1, 1_000), queue.push(2, 1)), (Ok(()), Err((Refused::Full, 2))));
    assert_eq!(drained(&queue), [1]);
    assert_eq!((queue.push(3, 60), queue.push(4, 40), queue.push(5, 1)), (Ok(()), Ok(()), Err((Refused::Full, 5))));
}

#[cfg(any(feature = "nats", feature = "redis", feature = "zenoh"))]
#[test]
fn of_several_items_those_are_queued_that_fit() {
    let queue = Queue::new(2, 100);
    assert_eq!(queue.push_all([(1, 1), (2, 100), (3, 1), (4, 1)].into_iter()), 2);
    assert_eq!((queue.len(), queue.refused(), queue.peak(), drained(&queue)), (2, 2, 2, vec![1, 3]));
}

#[test]
fn the_oldest_make_room_where_they_are_to() {
    let queue = Queue::new(2, 100);
    queue.push(1, 50).unwrap();
    queue.push(2, 50).unwrap();
    queue.push_over(3, 60, |_| Some(50), |oldest| oldest.into_iter().sum::<u32>() + 100).unwrap();
    assert_eq!((queue.refused(), drained(&queue)), (2, vec![103, 3]));
}

#[test]
fn a_note_stands_behind_what_was_queued_before_it() {
    let queue = Queue::new(1, 100);
    queue.push(1, 1).unwrap();
    queue.note(|last| (last == Some(&mut 1)).then_some(7));
    queue.note(|last| {
        *last? += 1;
        None
    });
    assert_eq!((queue.len(), queue.push(2, 1), drained(&queue)), (1, Err((Refused::Full, 2)), vec![1, 8]));
    queue.note(|_| Some(7));
    assert_eq!((queue.len(), queue.push(3, 1), drained(&queue)), (0, Ok(()), vec![7, 3]), "it takes no room");
}

#[test]
fn a_closed_queue_refuses_and_keeps_what_it_has() {
    let queue = Queue::new(2, 100);
    queue.push(1, 1).unwrap();
    queue.close();
    assert_eq!((queue.push(2, 1), drained(&queue)), (Err((Refused::Closed, 2)), vec![1]));
}

#[test]
fn who_takes_is_woken_at_the_next_whether_there_was_something_or_not() {
    struct Woken(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let woken = std::sync::Arc::new(Woken(std::sync::atomic::AtomicUsize::new(0)));
    let (queue, mut taken, waker) = (Queue::new(9, 100), VecDeque::new(), Waker::from(std::sync::Arc::clone(&woken)));
    for round in 0..4 {
        queue.drain(&mut taken, &waker);
        queue.push(round, 1).unwrap();
        queue.push(round, 1).unwrap();
    }
    assert_eq!((woken.0.load(std::sync::atomic::Ordering::Relaxed), taken.len()), (4, 6));
}

#[test]
fn who_waits_for_room_gets_it() {
    let queue = Queue::new(1, 100);
    queue.push(1, 1).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut item = Some(2);
    assert!(queue.poll_push(&mut cx, &mut item, 1).is_pending());
    assert_eq!(drained(&queue), [1]);
    assert_eq!(queue.poll_push(&mut cx, &mut item, 1), Poll::Ready(Ok(())));
    assert_eq!((item, drained(&queue)), (None, vec![2]));
}
