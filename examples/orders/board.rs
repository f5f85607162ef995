//! Board: what the actors count, and the table that shows it beside what the store says. Decides nothing.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fmt::Display;
use std::fmt::Write as _;
use std::io;
use std::io::IsTerminal;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_pubsub::Topic;
use actix_pubsub::log::GroupInfo;
use actix_pubsub::log::Store;

use crate::messages::BOOKED;
use crate::messages::DEAD;
use crate::messages::ORDERS;
use crate::messages::USERS;
use crate::shared::chain;
use crate::shared::thousands;

/// What this run's actors count.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) appended: AtomicU64,
    /// Appends that were repeated, and that the log took for what they are.
    pub(crate) repeats: AtomicU64,
    /// Orders that came to the ledger again after they had been booked.
    pub(crate) suppressed: AtomicU64,
    pub(crate) notified: AtomicU64,
    /// Updates, by user.
    pub(crate) screens: [AtomicU64; USERS.len()],
    /// Updates that a screen lost.
    pub(crate) missed: AtomicU64,
    pub(crate) services_done: AtomicUsize,
    /// Entries that the fan-out was given and that are no orders.
    pub(crate) undecodable: AtomicU64,
    workers: Mutex<BTreeMap<String, Worker>>,
    failure: Mutex<Option<Failed>>,
    trouble: Mutex<Option<String>>,
}

/// Why nobody can go on.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) why: String,
    /// The log itself lacks something: another run would stop at it, too.
    pub(crate) for_good: bool,
}

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for Failed {}

#[derive(Debug, Default, Clone)]
struct Worker {
    deliveries: u64,
    /// Those of them that were not the first of their order.
    again: u64,
    deaths: u64,
    alive: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Workers are killed at any place.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// What nobody can go on after: the first counts.
    pub(crate) fn fail(&self, what: impl Into<Box<dyn Error>>) {
        lock(&self.failure).get_or_insert_with(|| Failed { why: chain(&*what.into()), for_good: false });
    }

    /// The same, of what is wrong with the log itself.
    pub(crate) fn fail_for_good(&self, why: String) {
        lock(&self.failure).get_or_insert(Failed { why, for_good: true });
    }

    pub(crate) fn failure(&self) -> Option<Failed> {
        lock(&self.failure).clone()
    }

    /// Something that is tried again; shown until [`well`](Self::well).
    pub(crate) fn trouble(&self, error: &dyn Error) {
        *lock(&self.trouble) = Some(chain(error));
    }

    pub(crate) fn well(&self) {
        *lock(&self.trouble) = None;
    }

    pub(crate) fn delivered(&self, worker: &str, attempt: u32) {
        let mut workers = lock(&self.workers);
        let worker = workers.entry(worker.to_owned()).or_default();
        worker.deliveries += 1;
        worker.again += u64::from(attempt > 1);
    }

    pub(crate) fn alive(&self, worker: &str, alive: bool) {
        let mut workers = lock(&self.workers);
        let worker = workers.entry(worker.to_owned()).or_default();
        worker.alive = alive;
        worker.deaths += u64::from(!alive);
    }

    pub(crate) fn deaths(&self) -> u64 {
        lock(&self.workers).values().map(|worker| worker.deaths).sum()
    }

    /// Updates that were shown or are known to be lost.
    pub(crate) fn updates(&self) -> u64 {
        self.screens.iter().chain([&self.missed]).map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// What the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) orders: u64,
    pub(crate) booked: u64,
    pub(crate) dead: u64,
    pub(crate) groups: Vec<GroupInfo>,
}

impl Look {
    pub(crate) async fn at(store: &dyn Store) -> Result<Self, Box<dyn Error>> {
        let [orders, booked, dead] = [ORDERS, BOOKED, DEAD].map(|name| Topic::parse(name).expect("a valid name"));
        Ok(Self {
            orders: store.info(&orders).await?.entries,
            booked: store.info(&booked).await?.entries,
            dead: store.info(&dead).await?.entries,
            groups: store.groups(&orders).await?,
        })
    }

    /// Both groups have been made, and neither has anything left to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.groups.len() == 2 && self.groups.iter().all(|group| group.pending == 0 && group.lag.unwrap_or(0) == 0)
    }
}

/// In words, for who has to find out why nothing moves.
impl Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} orders, {} booked, {} dead letters", self.orders, self.booked, self.dead)?;
        for group in &self.groups {
            let lag = group.lag.map_or_else(|| String::from("?"), |lag| lag.to_string());
            write!(f, "; {} has a lag of {lag} and {} pending", group.name, group.pending)?;
        }
        Ok(())
    }
}

/// The table: drawn over itself on a terminal, a line from time to time elsewhere.
pub(crate) struct Table {
    title: String,
    orders: u64,
    on_terminal: bool,
    lines_drawn: usize,
    next_line_at: Duration,
}

impl Table {
    pub(crate) fn new(title: String, orders: u64) -> Self {
        Self { title, orders, on_terminal: io::stdout().is_terminal(), lines_drawn: 0, next_line_at: Duration::ZERO }
    }

    pub(crate) fn show(&mut self, board: &Board, look: &Look, elapsed: Duration, is_last: bool) {
        let text = if self.on_terminal {
            let text = self.table(board, look, elapsed);
            let up = if self.lines_drawn > 0 { format!("\x1b[{}F", self.lines_drawn) } else { String::new() };
            self.lines_drawn = text.lines().count();
            // Each line clears what the one before left in its place.
            format!("{up}{}\x1b[J", text.replace('\n', "\x1b[K\n"))
        } else if is_last || elapsed >= self.next_line_at {
            self.next_line_at = elapsed + LINE_EVERY;
            self.line(board, look, elapsed)
        } else {
            return;
        };
        let mut out = io::stdout().lock();
        // Whoever closed our standard output does not want to know.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn table(&self, board: &Board, look: &Look, elapsed: Duration) -> String {
        let count = |count: &AtomicU64| thousands(count.load(Ordering::Relaxed));
        let mut text = format!("{}   {:.1} s\n\n", self.title, elapsed.as_secs_f64());
        let mut row = |left: &str, value: &str, right: &str, other: &str| {
            let _ = writeln!(text, "{left:<9} {value:>20}    {right:<24} {other:>9}");
        };
        let appended = format!("{} of {}", thousands(look.orders), thousands(self.orders));
        row("appended", &appended, "appends repeated", &count(&board.repeats));
        row("booked", &thousands(look.booked), "duplicates suppressed", &count(&board.suppressed));
        row("notified", &count(&board.notified), "dead letters", &thousands(look.dead));
        text.push_str("\ngroup           lag   pending\n");
        for group in &look.groups {
            let lag = group.lag.map_or_else(|| String::from("?"), thousands);
            let _ = writeln!(text, "{:<10} {lag:>8} {:>9}", group.name.as_str(), thousands(group.pending));
        }
        text.push_str("\nworker     deliveries     again   kills   state\n");
        for (name, worker) in &*lock(&board.workers) {
            let state = if worker.alive { "at work" } else { "dead" };
            let (deliveries, again) = (thousands(worker.deliveries), thousands(worker.again));
            let _ = writeln!(text, "{name:<10} {deliveries:>10} {again:>9} {:>7}   {state}", worker.deaths);
        }
        text.push_str("\nscreens ");
        for (user, shown) in USERS.iter().zip(&board.screens) {
            let _ = write!(text, "   {user} {}", count(shown));
        }
        let _ = writeln!(text, "   missed {}", count(&board.missed));
        if let Some(trouble) = &*lock(&board.trouble) {
            let _ = writeln!(text, "\ntried again: {trouble}");
        }
        text
    }

    fn line(&self, board: &Board, look: &Look, elapsed: Duration) -> String {
        let mut line = format!("{:>6.1} s  appended {}/{}", elapsed.as_secs_f64(), look.orders, self.orders);
        for group in &look.groups {
            let lag = group.lag.map_or_else(|| String::from("?"), |lag| lag.to_string());
            let _ = write!(line, "  {} lag {lag} pending {}", group.name, group.pending);
        }
        let _ = write!(line, "  booked {}  suppressed {}", look.booked, board.suppressed.load(Ordering::Relaxed));
        let _ = write!(line, "  dead {}  kills {}  deliveries", look.dead, board.deaths());
        for (name, worker) in &*lock(&board.workers) {
            let _ = write!(line, " {name} {}", worker.deliveries);
        }
        if let Some(trouble) = &*lock(&board.trouble) {
            let _ = write!(line, "  tried again: {trouble}");
        }
        line + "\n"
    }
}

/// Between two lines, where they are not drawn over.
const LINE_EVERY: Duration = Duration::from_secs(1);
