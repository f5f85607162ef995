//! Numbers: what an origin sends to one subject is numbered, so that each receiver sees what it did not get and what it got twice. Knows no frames and no clock.
//!
//! A subject's numbers begin at 1 in an epoch of their own; epochs only ever grow, so an origin may forget a subject and begin anew. What a receiver
//! got first from an origin on a subject is where it begins to count: what was lost before that is not seen.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use crate::cluster::subject::Subject;
use crate::ids::NodeId;
use crate::local::hash::BuildPrehashed;

/// The numbers that this node gives.
#[derive(Debug)]
pub(crate) struct Sent {
    subjects: HashMap<Subject, Count, BuildPrehashed>,
    epoch: u32,
    /// Subjects whose last number may not have arrived everywhere.
    open: Vec<Subject>,
    /// Every frame may vanish untold.
    silent_loss: bool,
    subjects_max: usize,
}

#[derive(Debug)]
struct Count {
    epoch: u32,
    seq: u64,
    at: Instant,
    open: bool,
}

impl Sent {
    pub(crate) fn new(silent_loss: bool, subjects_max: usize) -> Self {
        Self { subjects: HashMap::default(), epoch: 0, open: Vec::new(), silent_loss, subjects_max }
    }

    /// The epoch and the number of the next frame to a subject.
    pub(crate) fn next(&mut self, subject: &Subject, now: Instant) -> (u32, u64) {
        self.advance(subject, 1, self.silent_loss, now)
    }

    /// So many frames to a subject will never be sent: their numbers are left out.
    pub(crate) fn lose(&mut self, subject: &Subject, frames: u64, now: Instant) {
        self.advance(subject, frames, true, now);
    }

    fn advance(&mut self, subject: &Subject, by: u64, opens: bool, now: Instant) -> (u32, u64) {
        let Some(count) = self.subjects.get_mut(subject) else { return self.begin(subject, by, opens, now) };
        count.seq += by;
        count.at = now;
        if opens && !count.open {
            count.open = true;
            self.open.push(subject.clone());
        }
        (count.epoch, count.seq)
    }

    /// The first numbers of a subject, in an epoch of its own.
    fn begin(&mut self, subject: &Subject, seq: u64, opens: bool, now: Instant) -> (u32, u64) {
        self.make_room(now);
        self.epoch += 1;
        self.subjects.insert(subject.clone(), Count { epoch: self.epoch, seq, at: now, open: opens });
        if opens {
            self.open.push(subject.clone());
        }
        (self.epoch, seq)
    }

    /// Forgets the older half when there are too many: they begin anew in a later epoch.
    fn make_room(&mut self, now: Instant) {
        if self.subjects.len() < self.subjects_max {
            return;
        }
        let mut ages: Vec<Duration> = self.subjects.values().map(|count| now.saturating_duration_since(count.at)).collect();
        // The oldest of those that stay.
        let middle = (self.subjects_max / 2).saturating_sub(1).min(ages.len() - 1);
        let (_, limit, _) = ages.select_nth_unstable(middle);
        let limit = *limit;
        let mut spare = self.subjects_max / 2;
        self.subjects.retain(|_, count| {
            let keep = now.saturating_duration_since(count.at) <= limit && spare > 0;
            spare -= usize::from(keep);
            keep
        });
    }

    /// The link was lost: what was sent in the last `window` may not have arrived.
    pub(crate) fn doubt(&mut self, window: Duration, now: Instant) {
        for (subject, count) in &mut self.subjects {
            if !count.open && now.saturating_duration_since(count.at) <= window {
                count.open = true;
                self.open.push(subject.clone());
            }
        }
    }

    /// The subjects that have been quiet for `quiet` since something that may not have arrived, with their numbers. Each once.
    pub(crate) fn due(&mut self, quiet: Duration, now: Instant) -> Vec<(Subject, u32, u64)> {
        let mut due = Vec::new();
        let subjects = &mut self.subjects;
        self.open.retain(|subject| {
            // Forgotten: it will begin anew.
            let Some(count) = subjects.get_mut(subject) else { return false };
            if now.saturating_duration_since(count.at) < quiet {
                return true;
            }
            count.open = false;
            due.push((subject.clone(), count.epoch, count.seq));
            false
        });
        due
    }

    /// How far a subject's numbers have come, if that was no longer ago than `window`.
    pub(crate) fn lately(&self, subject: &Subject, window: Duration, now: Instant) -> Option<(u32, u64)> {
        let count = self.subjects.get(subject)?;
        (now.saturating_duration_since(count.at) <= window).then_some((count.epoch, count.seq))
    }
}

/// The numbers that came from others.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// A sender says which origin it is, so these are kept in order: what strangers choose is not hashed without a secret.
    origins: BTreeMap<NodeId, HashMap<Subject, (u32, u64), BuildPrehashed>>,
}

/// What a number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next, or one after so many that did not come.
    New { lost: u64 },
    /// It was there before.
    Old,
}

impl Seen {
    /// A frame with this number has come.
    pub(crate) fn frame(&mut self, origin: NodeId, subject: &Subject, epoch: u32, seq: u64) -> Verdict {
        let subjects = self.origins.entry(origin).or_default();
        let Some(last) = subjects.get_mut(subject) else {
            subjects.insert(subject.clone(), (epoch, seq));
            return Verdict::New { lost: 0 };
        };
        let before = *last;
        if epoch > before.0 {
            *last = (epoch, seq);
            return Verdict::New { lost: 0 };
        }
        if epoch < before.0 || seq <= before.1 {
            return Verdict::Old;
        }
        last.1 = seq;
        Verdict::New { lost: seq - before.1 - 1 }
    }

    /// From now on what is missing is lost: what came before was early.
    pub(crate) fn begin(&mut self, origin: NodeId, subject: &Subject) {
        if let Some(subjects) = self.origins.get_mut(&origin) {
            subjects.remove(subject);
        }
    }

    /// Its origin says that it has sent this number. Gives how many did not come.
    pub(crate) fn mark(&mut self, origin: NodeId, subject: &Subject, epoch: u32, seq: u64) -> u64 {
        let subjects = self.origins.entry(origin).or_default();
        let Some(last) = subjects.get_mut(subject) else {
            subjects.insert(subject.clone(), (epoch, seq));
            return 0;
        };
        let lost = if epoch == last.0 { seq.saturating_sub(last.1) } else { 0 };
        *last = (*last).max((epoch, seq));
        lost
    }

    /// Whether anything was heard from an origin.
    pub(crate) fn knows(&self, origin: NodeId) -> bool {
        self.origins.contains_key(&origin)
    }

    /// What was heard from an origin, to be asked for.
    pub(crate) fn subjects(&self, origin: NodeId) -> impl Iterator<Item = &Subject> {
        self.origins.get(&origin).into_iter().flat_map(HashMap::keys)
    }

    /// This node does not listen there any more.
    pub(crate) fn leave(&mut self, subject: &Subject) {
        self.origins.retain(|_, subjects| {
            subjects.remove(subject);
            !subjects.is_empty()
        });
    }

    /// That node does not exist any more.
    pub(crate) fn forget(&mut self, origin: NodeId) {
        self.origins.remove(&origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Topic;

    fn subject(name: &str) -> Subject {
        Subject::Topic(Topic::parse(name).unwrap())
    }

    const ORIGIN: NodeId = NodeId::from_bits(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_gap_is_counted_exactly_and_a_number_that_came_before_is_old() {
        let (mut seen, a) = (Seen::default(), subject("a"));
        let mut frame = |seq| seen.frame(ORIGIN, &a, 1, seq);
        assert_eq!(frame(5), Verdict::New { lost: 0 }, "the first is where it begins");
        assert_eq!((frame(6), frame(6), frame(4)), (Verdict::New { lost: 0 }, Verdict::Old, Verdict::Old));
        assert_eq!((frame(10), frame(11)), (Verdict::New { lost: 3 }, Verdict::New { lost: 0 }));
    }

    #[test]
    fn a_mark_tells_what_was_lost_at_the_end_once() {
        let (mut seen, a) = (Seen::default(), subject("a"));
        seen.frame(ORIGIN, &a, 1, 5);
        assert_eq!((seen.mark(ORIGIN, &a, 1, 7), seen.mark(ORIGIN, &a, 1, 7)), (2, 0));
        assert_eq!(seen.frame(ORIGIN, &a, 1, 7), Verdict::Old, "it was told as lost");
        assert_eq!(seen.frame(ORIGIN, &a, 1, 8), Verdict::New { lost: 0 });
        assert_eq!(seen.mark(ORIGIN, &a, 1, 3), 0, "a late mark says nothing");
        assert_eq!(seen.mark(ORIGIN, &subject("b"), 1, 3), 0);
        assert_eq!(seen.frame(ORIGIN, &subject("b"), 1, 5), Verdict::New { lost: 1 });
    }

    #[test]
    fn a_later_epoch_begins_anew_and_an_earlier_one_is_old() {
        let (mut seen, a) = (Seen::default(), subject("a"));
        seen.frame(ORIGIN, &a, 2, 100);
        assert_eq!(seen.frame(ORIGIN, &a, 3, 1), Verdict::New { lost: 0 });
        assert_eq!(seen.frame(ORIGIN, &a, 2, 101), Verdict::Old);
        assert_eq!(seen.mark(ORIGIN, &a, 2, 101), 0);
        assert_eq!(seen.frame(ORIGIN, &a, 3, 2), Verdict::New { lost: 0 });
    }

    #[test]
    fn what_was_never_sent_leaves_a_gap_and_is_due_as_a_mark_after_a_quiet_time() {
        let (mut sent, a, now) = (Sent::new(false, 10), subject("a"), Instant::now());
        assert_eq!(sent.next(&a, now), (1, 1));
        assert!(sent.due(Duration::ZERO, now).is_empty(), "this engine loses nothing silently");
        sent.lose(&a, 3, now);
        assert!(sent.due(SECOND, now).is_empty(), "not quiet yet");
        assert_eq!(sent.due(SECOND, now + SECOND), [(a.clone(), 1, 4)]);
        assert!(sent.due(SECOND, now + SECOND * 2).is_empty(), "once");
        assert_eq!(sent.next(&a, now), (1, 5));
    }

    #[test]
    fn after_a_lost_link_what_was_sent_lately_is_due() {
        let (mut sent, now) = (Sent::new(false, 10), Instant::now());
        sent.next(&subject("old"), now);
        sent.next(&subject("new"), now + SECOND * 9);
        sent.doubt(SECOND * 5, now + SECOND * 10);
        assert_eq!(sent.due(SECOND, now + SECOND * 11), [(subject("new"), 2, 1)]);
    }

    #[test]
    fn how_far_a_subject_has_come_is_told_for_as_long_as_anyone_remembers() {
        let (mut sent, now) = (Sent::new(false, 10), Instant::now());
        sent.next(&subject("t"), now);
        let told = |after| sent.lately(&subject("t"), SECOND * 5, now + after);
        assert_eq!((told(SECOND * 5), told(SECOND * 6)), (Some((1, 1)), None));
    }

    #[test]
    fn too_many_subjects_are_forgotten_by_age_and_begin_anew_in_a_later_epoch() {
        let (mut sent, now) = (Sent::new(false, 4), Instant::now());
        for at in 0..4_u32 {
            sent.next(&subject(&at.to_string()), now + SECOND * at);
        }
        sent.next(&subject("one too many"), now + SECOND * 4);
        assert_eq!(sent.subjects.len(), 3);
        let at = |name| sent.lately(&subject(name), SECOND * 9, now);
        assert_eq!((at("0"), at("3")), (None, Some((4, 1))));
        assert_eq!(sent.next(&subject("0"), now), (6, 1));
    }
}
