//! Logs go to stderr; stdout is the answer. The kernel programs' own log comes in through the
//! `log` crate under their names.

use std::io;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Sets logging up: warnings only, more with each `-v`; `RUST_LOG` overrides.
pub fn init(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    // What kube warns of is told in the summary, in fewer words.
    let quiet = ["kube_runtime=off", "kube_client=off"].map(str::parse);
    let quiet = quiet.into_iter().flatten().filter(|_| verbose == 0);
    let filter = quiet.fold(filter, EnvFilter::add_directive);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
}
