//! The wiring of `tracer verify`: read rules and routes, walk, print.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use super::Exit;
use crate::{
    cli::{Output, VerifyArgs},
    model::cluster::PortProtocol,
    report::{self, Format},
    rules::{Host, Ruleset},
    verify::{Ask, AskError, Client, walk},
};

/// Reads this node's rules and walks the packet that was asked for.
///
/// # Errors
/// The rules cannot be read, nobody has the names, or output cannot be written.
pub fn verify(args: &VerifyArgs) -> Result<Exit> {
    let ruleset = Ruleset::read()?;
    let host = Host::read()?;
    let protocol = if args.udp {
        PortProtocol::Udp
    } else {
        PortProtocol::Tcp
    };
    let from = client(&args.from)?;
    let ask = Ask::new(&from, &args.to, protocol, &ruleset.services(), &host)?;
    let walk = walk(&ruleset, &host, &ask);
    let stdout = io::stdout();
    let format = match args.output {
        Output::Json => Format::Json,
        Output::Text => Format::Text {
            colour: stdout.is_terminal(),
        },
    };
    let mut out = BufWriter::new(stdout.lock());
    report::walk(format, &walk, &mut out)?;
    out.flush().context("write")?;
    Ok(Exit::Done)
}

fn client(from: &str) -> Result<Client, AskError> {
    if from == "node" {
        return Ok(Client::Node);
    }
    let address = from.parse().map_err(|_| AskError::NoSource {
        from: from.to_owned(),
    })?;
    Ok(Client::Addresses(vec![address], None))
}
