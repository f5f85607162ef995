//! Numbers: medians, quantiles, and how they are printed. Knows no bench.

use std::time::Duration;

/// The value that the share `q` of the samples does not exceed; zero where there are none.
pub(crate) fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = (q * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The one in the middle; of an even number of samples the mean of those two.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (below, above) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    let at = |at: usize| sorted.get(at).copied().unwrap_or(0.0);
    f64::midpoint(at(below), at(above))
}

pub(crate) fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// A time with the unit that suits it.
pub(crate) fn time(nanos: f64) -> String {
    match nanos {
        t if t < 1e3 => format!("{t:.0} ns"),
        t if t < 1e4 => format!("{:.2} µs", t / 1e3),
        t if t < 1e6 => format!("{:.1} µs", t / 1e3),
        t if t < 1e7 => format!("{:.2} ms", t / 1e6),
        t if t < 1e9 => format!("{:.1} ms", t / 1e6),
        t => format!("{:.2} s", t / 1e9),
    }
}

/// A rate per second.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        r if r < 1e3 => format!("{r:.0}/s"),
        r if r < 1e6 => format!("{:.1} k/s", r / 1e3),
        r => format!("{:.2} M/s", r / 1e6),
    }
}

/// How many times as good; a dash where one of the two is missing.
pub(crate) fn times(ratio: f64) -> String {
    match ratio {
        r if !r.is_finite() || r == 0.0 => "-".to_owned(),
        r if r < 10.0 => format!("{r:.2}x"),
        r if r < 100.0 => format!("{r:.1}x"),
        r => format!("{r:.0}x"),
    }
}

/// A count with a suffix: 1, 10, 1k, 100k, 1M.
pub(crate) fn count(n: usize) -> String {
    if n >= 1_000_000 && n.is_multiple_of(1_000_000) {
        return format!("{}M", n / 1_000_000);
    }
    if n >= 1_000 && n.is_multiple_of(1_000) { format!("{}k", n / 1_000) } else { n.to_string() }
}
