//! Count: a case under callgrind. Knows no figures.

use std::env;
use std::process::Command;

use crate::cases::Case;

/// The instructions for each unit of a case.
pub fn of(case: &Case) -> Result<f64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_by_callgrind*"])
        .arg(program)
        .args(["--case", case.name])
        .output()
        .map_err(|error| format!("valgrind cannot be run, is it installed? {error}"))?;
    let said = String::from_utf8_lossy(&valgrind.stderr).into_owned();
    let counted = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<u64>().ok());
    match counted {
        Some(counted) if valgrind.status.success() && counted > 0 => Ok(counted as f64 / f64::from(case.units)),
        _ => Err(format!("{} was not counted, valgrind said:\n{said}", case.name)),
    }
}
