//! The wiring of `tracer doctor`: once, or again and again until a signal comes.

use std::{
    io::{self, BufWriter},
    time::Duration,
};

use anyhow::Result;

use super::{End, Exit, colour};
use crate::{
    cli::{DoctorArgs, Output},
    doctor::{self, Options, Root},
    model::verified::Verified,
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
        let look = async {
            let verified = verified(&options).await?;
            doctor::look(&options, verified, &mut out).await
        };
        let problem = tokio::select! {
            problem = look => problem?,
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

/// What `tracer verify` says of this node, where one of the chosen checks asks.
async fn verified(options: &Options) -> Result<Result<Verified, String>> {
    let asked = doctor::chosen(&options.only)?;
    let asked = asked.iter().any(|check| check.subject == "kube_proxy");
    if !asked || !Root::new(&options.root).is_live() {
        return Ok(Err("this is a directory, not the node".to_owned()));
    }
    let summary = tokio::time::timeout(PATIENCE, Box::pin(super::verify::summary())).await;
    Ok(match summary {
        Ok(Ok(verified)) => Ok(verified),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!(
            "it takes longer than {} s: tracer verify",
            PATIENCE.as_secs()
        )),
    })
}

/// Longest that doctor waits for all Services' rules to be judged.
const PATIENCE: Duration = Duration::from_secs(20);
