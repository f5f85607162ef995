//! Clock: the two times a store needs. Knows no topic.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// What a store on this machine reads the time from: the wall clock for ids, a steady one for time-outs.
///
/// The wall clock may step; ids never go back, because a store takes the larger of the clock and its last id. A time-out that ran by the wall clock
/// would come early or hours late after a step, so time-outs run by a clock that only starts from the wall's time.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    steady: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        let (from, started) = (unix_ms(), Instant::now());
        let steady = move || from + u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX - from);
        Self { wall: Arc::new(unix_ms), steady: Arc::new(steady) }
    }

    /// Both times in milliseconds since 1970; for tests and simulations. `steady` must never go back.
    pub fn from_fns(wall: impl Fn() -> u64 + Send + Sync + 'static, steady: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(wall), steady: Arc::new(steady) }
    }

    /// For ids: milliseconds since 1970; may go back.
    pub fn wall_ms(&self) -> u64 {
        (self.wall)()
    }

    /// For time-outs: milliseconds since 1970 when the clock was made, and steadily on from there.
    pub fn steady_ms(&self) -> u64 {
        (self.steady)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("wall_ms", &self.wall_ms()).field("steady_ms", &self.steady_ms()).finish()
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
