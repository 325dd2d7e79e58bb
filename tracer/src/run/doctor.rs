//! The wiring of `tracer doctor`: once, or again and again until a signal comes.

use std::io::{self, BufWriter};

use anyhow::Result;

use super::{End, Exit, colour};
use crate::{
    cli::{DoctorArgs, Output},
    doctor::{self, Options},
};

/// Looks, prints, and with `--watch` does so again.
///
/// # Errors
/// A name in `--only` is unknown, or output cannot be written.
pub async fn doctor(args: &DoctorArgs) -> Result<Exit> {
    let options = Options {
        only: args.only.clone(),
        root: args.root.clone(),
        json: args.output == Output::Json,
        colour: colour(),
    };
    let mut end = End::new()?;
    loop {
        let mut out = BufWriter::new(io::stdout());
        let problem = tokio::select! {
            problem = doctor::look(&options, &mut out) => problem?,
            () = end.reached() => return Ok(Exit::Done),
        };
        let exit = if problem { Exit::Problem } else { Exit::Done };
        drop(out);
        if let Some(whom) = &args.probe {
            let probed = Box::pin(super::probe::probe(whom, args)).await?;
            return Ok(if problem { exit } else { probed });
        }
        let Some(every) = args.watch else {
            return Ok(exit);
        };
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = end.reached() => return Ok(exit),
        }
    }
}
