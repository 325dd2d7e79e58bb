//! `tracer explain`: the page behind a name.

use std::io::{self, Write as _};

use anyhow::{Result, bail};

use super::Exit;
use crate::{diagnose, doctor};

/// Prints the page of a diagnosis or of doctor's check, or without a name all names.
///
/// # Errors
/// No such name, or output cannot be written.
pub fn explain(name: Option<&str>) -> Result<Exit> {
    let mut out = io::stdout().lock();
    let checks = doctor::chosen(&[])?;
    let Some(name) = name else {
        for diagnosis in diagnose::ALL {
            writeln!(out, "{:<22} {}", diagnosis.name, diagnosis.sentence)?;
        }
        for check in checks {
            writeln!(out, "{:<22} {}", check.name, check.why)?;
        }
        return Ok(Exit::Done);
    };
    if let Some(diagnosis) = diagnose::named(name) {
        write!(out, "{}", diagnose::page(diagnosis))?;
        return Ok(Exit::Done);
    }
    let Some(check) = checks.iter().find(|check| check.name == name) else {
        bail!("nothing is called {name}: `tracer explain` lists all names");
    };
    let (subject, why) = (check.subject, check.why);
    writeln!(
        out,
        "{name} (a check of tracer doctor, {subject})\n\nWhy: {why}.\n\nLook: tracer doctor --only {name}"
    )?;
    Ok(Exit::Done)
}
