//! Interest: which topics this node asks the engine for, from the first subscriber until a while after the last. Pure: it is told the time. Knows no other node.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use crate::topic::Topic;

#[derive(Debug)]
pub(crate) struct Interest {
    topics: HashMap<Topic, Entry>,
    /// Those to ask for, some of them in vain.
    to_ask: VecDeque<Topic>,
    /// Those without a subscriber, until when they stay. Some have one again.
    lingering: VecDeque<(Instant, Topic)>,
    linger: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    engine: Engine,
    /// Without a subscriber: until then.
    leaves: Option<Instant>,
    /// The engine has confirmed it once.
    was_on: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Off,
    Asked,
    On,
}

impl Interest {
    pub(crate) fn new(linger: Duration) -> Self {
        Self { topics: HashMap::new(), to_ask: VecDeque::new(), lingering: VecDeque::new(), linger }
    }

    /// Whether there is a subscriber on this node, by now.
    pub(crate) fn set(&mut self, topic: &Topic, listens: bool, now: Instant) {
        match self.topics.get_mut(topic) {
            Some(entry) if listens => entry.leaves = None,
            Some(entry) if entry.leaves.is_none() => {
                let until = now + self.linger;
                entry.leaves = Some(until);
                self.lingering.push_back((until, topic.clone()));
            }
            None if listens => {
                self.topics.insert(topic.clone(), Entry { engine: Engine::Off, leaves: None, was_on: false });
                self.to_ask.push_back(topic.clone());
            }
            Some(_) | None => {}
        }
    }

    /// The next topics to ask the engine for; they are asked for from now on.
    pub(crate) fn ask(&mut self, max: usize) -> Vec<Topic> {
        let mut batch = Vec::new();
        while batch.len() < max
            && let Some(topic) = self.to_ask.pop_front()
        {
            if let Some(entry) = self.topics.get_mut(&topic)
                && entry.engine == Engine::Off
            {
                entry.engine = Engine::Asked;
                batch.push(topic);
            }
        }
        batch
    }

    /// The engine has confirmed these. Gives those that are still asked for, and whether it is the first time.
    pub(crate) fn confirmed(&mut self, topics: Vec<Topic>) -> Vec<(Topic, bool)> {
        let mut confirmed = Vec::with_capacity(topics.len());
        for topic in topics {
            if let Some(entry) = self.topics.get_mut(&topic)
                && entry.engine == Engine::Asked
            {
                entry.engine = Engine::On;
                confirmed.push((topic, !std::mem::replace(&mut entry.was_on, true)));
            }
        }
        confirmed
    }

    /// Whether the engine has confirmed a topic since it was asked for.
    pub(crate) fn was_on(&self, topic: &Topic) -> bool {
        self.topics.get(topic).is_some_and(|entry| entry.was_on)
    }

    /// Topics whose time without a subscriber is over, and of which `gone` says so, too: they are left from now on.
    pub(crate) fn leave(&mut self, max: usize, now: Instant, mut gone: impl FnMut(&Topic) -> bool) -> Vec<Topic> {
        let mut left = Vec::new();
        while left.len() < max && self.lingering.front().is_some_and(|(until, _)| *until <= now) {
            let Some((until, topic)) = self.lingering.pop_front() else { break };
            let Some(entry) = self.topics.get_mut(&topic).filter(|entry| entry.leaves == Some(until)) else { continue };
            match entry.engine {
                // Its time begins when it is known to be there, so that what is asked for and what is left do not overtake each other.
                Engine::Asked => {
                    let until = now + self.linger;
                    entry.leaves = Some(until);
                    self.lingering.push_back((until, topic));
                }
                Engine::Off | Engine::On if gone(&topic) => {
                    // Over a lost link, too: others may know of it.
                    let was_on = entry.was_on;
                    self.topics.remove(&topic);
                    if was_on {
                        left.push(topic);
                    }
                }
                // It has a subscriber again, of whom we shall hear.
                Engine::Off | Engine::On => entry.leaves = None,
            }
        }
        left
    }

    /// The link is lost, and with it everything that was asked for.
    pub(crate) fn lost(&mut self) {
        self.to_ask.clear();
        for (topic, entry) in &mut self.topics {
            entry.engine = Engine::Off;
            self.to_ask.push_back(topic.clone());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }

    /// The topics that this node listens to, those of before a lost link among them.
    pub(crate) fn were_on(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().filter(|(_, entry)| entry.was_on).map(|(topic, _)| topic)
    }

    /// The topics that the engine has confirmed.
    pub(crate) fn on(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().filter(|(_, entry)| entry.engine == Engine::On).map(|(topic, _)| topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(1);

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    fn on(interest: &mut Interest, name: &str, now: Instant) {
        interest.set(&topic(name), true, now);
        let asked = interest.ask(10);
        assert!(!interest.was_on(&topic(name)));
        assert_eq!(interest.confirmed(asked), [(topic(name), true)]);
        assert!(interest.was_on(&topic(name)));
    }

    #[test]
    fn the_first_subscriber_asks_and_the_last_leaves_after_a_while() {
        let (mut interest, now) = (Interest::new(LINGER), Instant::now());
        on(&mut interest, "a", now);
        interest.set(&topic("a"), true, now);
        assert!(interest.ask(10).is_empty(), "once");
        interest.set(&topic("a"), false, now);
        assert!(interest.leave(10, now, |_| true).is_empty(), "it lingers");
        assert_eq!(interest.leave(10, now + LINGER, |_| true), [topic("a")]);
        assert_eq!(interest.len(), 0);
    }

    #[test]
    fn who_comes_back_in_time_is_not_asked_for_again() {
        let (mut interest, now) = (Interest::new(LINGER), Instant::now());
        on(&mut interest, "a", now);
        for _ in 0..5 {
            interest.set(&topic("a"), false, now);
            interest.set(&topic("a"), true, now);
        }
        assert!(interest.leave(10, now + LINGER * 2, |_| true).is_empty());
        assert!(interest.ask(10).is_empty());
    }

    #[test]
    fn a_subscriber_of_whom_is_not_heard_yet_keeps_the_topic() {
        let (mut interest, now) = (Interest::new(LINGER), Instant::now());
        on(&mut interest, "a", now);
        interest.set(&topic("a"), false, now);
        assert!(interest.leave(10, now + LINGER, |_| false).is_empty());
        interest.set(&topic("a"), true, now + LINGER);
        assert_eq!(interest.on().collect::<Vec<_>>(), [&topic("a")]);
    }

    #[test]
    fn what_is_being_asked_for_is_not_left_before_it_is_there() {
        let (mut interest, now) = (Interest::new(LINGER), Instant::now());
        interest.set(&topic("a"), true, now);
        let asked = interest.ask(10);
        interest.set(&topic("a"), false, now);
        assert!(interest.leave(10, now + LINGER, |_| true).is_empty());
        interest.confirmed(asked);
        assert_eq!(interest.leave(10, now + LINGER * 2, |_| true), [topic("a")]);
    }

    #[test]
    fn after_a_lost_link_everything_is_asked_for_again() {
        let (mut interest, now) = (Interest::new(LINGER), Instant::now());
        on(&mut interest, "a", now);
        interest.set(&topic("b"), true, now);
        let asked = interest.ask(10);
        interest.lost();
        assert!(interest.confirmed(asked).is_empty(), "of the lost link");
        let mut again = interest.ask(10);
        again.sort_unstable();
        assert_eq!(again, [topic("a"), topic("b")]);
        assert_eq!(interest.confirmed(again), [(topic("a"), false), (topic("b"), true)]);
        interest.lost();
        interest.set(&topic("a"), false, now);
        assert_eq!(interest.leave(10, now + LINGER, |_| true), [topic("a")], "the engine does not know it, other nodes may");
        assert_eq!(interest.ask(10), [topic("b")]);
    }
}
