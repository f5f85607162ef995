//! Trial: runs tests with a mutation on, each in a process of its own that is killed with all that it started. Knows no source.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::Places;
use crate::copy::Swapped;
use crate::guarantees::Test;
use crate::list::Mutation;
use crate::outcomes::End;
use crate::outcomes::Outcome;
use crate::outcomes::Outcomes;
use crate::programs::Programs;

/// Every test with nothing broken, then each mutation with its tests.
pub fn all(places: &Places, programs: &Programs, mutations: &[&Mutation], outcomes: &mut Outcomes) -> Result<(), String> {
    let mut tests: Vec<_> = mutations.iter().flat_map(|mutation| &mutation.tests).collect();
    tests.sort();
    tests.dedup();
    println!("{} tests with nothing broken", tests.len());
    let bench = Bench { places, programs, alone: RwLock::new(()), usual: Mutex::default() };
    let whole = each(&tests, |test| {
        let mut outcome = bench.run(test, None)?;
        if outcome.end != End::Passed {
            // The machine may have been busy.
            outcome = bench.run(test, None)?;
        }
        if outcome.end == End::Passed {
            Ok(())
        } else {
            Err(format!("{} fails with nothing broken: {}", test.name, outcome.said))
        }
    });
    if let Err(error) = &whole {
        println!("{error}");
    }
    println!("{} mutations", mutations.len());
    let outcomes = Mutex::new(outcomes);
    let tried = each(mutations, |mutation| {
        let mut found = false;
        // One that fails with nothing broken finds nothing.
        for test in mutation.tests.iter().filter(|test| bench.knows(test)) {
            let outcome = bench.run(test, Some(mutation))?;
            found |= outcome.end != End::Passed;
            println!("    {:?} after {:.1} s: {} {}", outcome.end, outcome.seconds, test.name, outcome.said);
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).set(mutation, test, outcome)?;
        }
        println!("{} {}: {}", if found { "found" } else { "SURVIVED" }, mutation.number, mutation.name);
        Ok(())
    });
    tried.and(whole)
}

/// Does the work for each item, on as many threads as there are cores.
fn each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<(), String> + Sync) -> Result<(), String> {
    let (next, errors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = work(item) {
                        errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                    }
                }
            });
        }
    });
    let errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
}

struct Bench<'a> {
    places: &'a Places,
    programs: &'a Programs,
    /// Held alone by tests that measure time, or fill the machine by themselves.
    alone: RwLock<()>,
    /// How many seconds each test of each program takes with nothing broken.
    usual: Mutex<BTreeMap<(String, String), f64>>,
}

impl Bench<'_> {
    /// All of its variants passed with nothing broken.
    fn knows(&self, test: &Test) -> bool {
        let Ok((_, names)) = self.programs.find(test) else { return false };
        names.into_iter().all(|name| self.usual(test, name).is_some())
    }

    fn usual(&self, test: &Test, name: &str) -> Option<f64> {
        let usual = self.usual.lock().unwrap_or_else(PoisonError::into_inner);
        usual.get(&(test.program.clone(), name.to_owned())).copied()
    }

    /// Runs a test, on one engine after the other if there are several, until it fails on one.
    fn run(&self, test: &Test, mutation: Option<&Mutation>) -> Result<Outcome, String> {
        let (program, names) = self.programs.find(test)?;
        let mut seconds = 0.0;
        for name in names {
            let limit = match self.usual(test, name) {
                Some(usual) => Duration::from_secs_f64(usual * 5.0) + MORE,
                None => WHOLE_MAX,
            };
            let outcome = self.run_one(test, program, name, mutation, limit)?;
            seconds += outcome.seconds;
            if outcome.end != End::Passed {
                return Ok(Outcome { seconds, ..outcome });
            }
            if mutation.is_none() {
                let of = (test.program.clone(), name.to_owned());
                self.usual.lock().unwrap_or_else(PoisonError::into_inner).insert(of, outcome.seconds);
            }
        }
        Ok(Outcome { end: End::Passed, seconds, said: String::new() })
    }

    fn run_one(
        &self,
        test: &Test,
        program: &Path,
        name: &str,
        mutation: Option<&Mutation>,
        limit: Duration,
    ) -> Result<Outcome, String> {
        let by_itself = ALONE.iter().any(|name| test.program.starts_with(name) || test.name.starts_with(name));
        let is_alone = by_itself || mutation.is_some_and(Mutation::is_data);
        let _alone = is_alone.then(|| self.alone.write().unwrap_or_else(PoisonError::into_inner));
        let _beside = (!is_alone).then(|| self.alone.read().unwrap_or_else(PoisonError::into_inner));
        let _swapped = mutation.map(|mutation| Swapped::of(self.places, mutation)).transpose()?;
        let mutation = mutation.map_or(0, |mutation| mutation.number);
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let folder = self.places.own.join(format!("run-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let output = folder.join("output");
        let ended = self.process(program, name, mutation, &folder, &output, limit);
        let text = fs::read(&output).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        // A server that is being killed may still write; what stays is removed with the target folder.
        let _ = fs::remove_dir_all(&folder);
        let (end, seconds) = ended?;
        let said = match end {
            End::Passed => String::new(),
            // Where the copy is, is nobody's business.
            End::Failed => said(&text.replace(&format!("{}/", self.places.copy.display()), ""), name),
            End::Hung => format!("did not end within {:.0} s", limit.as_secs_f64()),
        };
        Ok(Outcome { end, seconds, said })
    }

    fn process(
        &self,
        program: &Path,
        name: &str,
        on: usize,
        folder: &Path,
        output: &Path,
        limit: Duration,
    ) -> Result<(End, f64), String> {
        let file = || File::create(output).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, errors) = file().map_err(|error| format!("{}: {error}", output.display()))?;
        let begun = Instant::now();
        let mut child = Command::new(program)
            .args([name, "--exact", "--nocapture"])
            .current_dir(&self.places.copy)
            .env("CARGO_MANIFEST_DIR", &self.places.copy)
            .env("ACTIX_PUBSUB_MUTATION", on.to_string())
            .env("SOAK_SECONDS", "30")
            .env("TMPDIR", folder)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                break Some(status);
            }
            if begun.elapsed() > limit {
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let seconds = begun.elapsed().as_secs_f64();
        kill_group(&mut child);
        let end = match status {
            Some(status) if status.success() => End::Passed,
            Some(_) => End::Failed,
            None => End::Hung,
        };
        Ok((end, seconds))
    }
}

/// Ends the test and the servers that it started, if it has left any.
fn kill_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = child.wait();
}

/// What the test's own panic said, in one line; else the last panic, or the last line.
fn said(output: &str, name: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    let panics = || (0..lines.len()).filter(|at| lines[*at].contains(" panicked at "));
    let own = panics().rfind(|at| lines[*at].contains(&format!("'{name}'")) || lines[*at].contains("'main'"));
    let at = own.or_else(|| panics().next_back());
    let text = match at {
        Some(at) => {
            let said =
                lines[at + 1..].iter().take(3).take_while(|line| !line.starts_with("note:") && **line != "stack backtrace:");
            said.copied().collect::<Vec<_>>().join(" ")
        }
        None => lines.iter().rfind(|line| !line.trim().is_empty()).copied().unwrap_or_default().to_owned(),
    };
    let plain: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    plain.chars().take(SAID_MAX).collect()
}

/// They have the machine for themselves, as in `.config/nextest.toml`.
const ALONE: [&str; 8] =
    ["soak", "browser", "cluster_faults", "cluster_hostile", "cluster_churn", "cluster_splits", "fair", "web_hostile::clients"];
/// No test takes longer with nothing broken.
const WHOLE_MAX: Duration = Duration::from_secs(400);
/// What a broken test may take beyond five times what it takes otherwise.
const MORE: Duration = Duration::from_secs(20);
/// Characters of a panic that are kept.
const SAID_MAX: usize = 110;
