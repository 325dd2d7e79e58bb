//! The `tracer` program: parse, set up logging, call, map errors to exit codes.

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory as _, Parser, error::ErrorKind};
use tracer::{
    cli::{Cli, Command, PluginCli, PluginCommand},
    lab, logging, plugin,
    run::{self, Exit},
};

fn main() -> ExitCode {
    if is_plugin() {
        return end("kubectl-tracer", as_plugin);
    }
    end("tracer", |cli: Cli| {
        Ok(match run(cli)? {
            Exit::Done => 0,
            Exit::Problem => 1,
            Exit::Incomplete => 3,
        })
    })
}

/// kubectl runs the program of this name for `kubectl tracer`.
fn is_plugin() -> bool {
    let path = env::args_os().next().map(PathBuf::from);
    let name = path.as_ref().and_then(|path| path.file_name());
    name.is_some_and(|name| name == "kubectl-tracer")
}

fn as_plugin(cli: PluginCli) -> Result<u8> {
    logging::init(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let PluginCommand::Node(args) = cli.command;
    let code = runtime.block_on(plugin::node(&args));
    // What still waits for standard output need not be waited for.
    runtime.shutdown_background();
    code
}

/// Parses, runs, and maps what came of it to an exit code.
fn end<C: Parser>(name: &str, run: impl FnOnce(C) -> Result<u8>) -> ExitCode {
    let cli = match C::try_parse() {
        Ok(cli) => cli,
        // Help, asked for or for want of a command, is as long as it is.
        Err(help) if is_help(help.kind()) => help.exit(),
        Err(mistake) => {
            complain(&format!("{name}: {}", in_one_line(&mistake)));
            return ExitCode::from(2);
        }
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        // Whoever read our output has had enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{name}: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<Exit> {
    if let Command::LabServe(args) = cli.command {
        lab::serve(args)?;
        return Ok(Exit::Done);
    }
    if let Command::Completion { shell } = cli.command {
        let mut command = Cli::command();
        // It writes to a `Vec` without error, and panics when a pipe is closed.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "tracer", &mut script);
        io::stdout().write_all(&script)?;
        return Ok(Exit::Done);
    }
    logging::init(cli.verbose);
    if cli.attended {
        run::attended()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Trace(args) => run::trace(&args, cli.verbose > 0).await,
            Command::Record(args) => run::record(&args, cli.verbose > 0).await,
            Command::Report(args) => run::report(&args),
            Command::Export(args) => run::export(&args),
            Command::Diagnose(args) => run::diagnose(&args),
            Command::Drops(args) => run::drops(&args).await,
            Command::Verify(args) => run::verify(&args).await,
            Command::Lab(args) => run::lab(&args, cli.verbose > 0).await,
            Command::Probes { output } => run::probes(output),
            Command::Doctor(args) => run::doctor(&args).await,
            Command::Alive(args) => run::alive(&args),
            Command::Explain { name } => run::explain(name.as_deref()),
            Command::LabServe(_) | Command::Completion { .. } => Ok(Exit::Done),
        }
    })
}

fn is_help(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// What is wrong and clap's tip, without usage: `error: A\n  B\n\n  tip: C\n\nUsage: …` is `A B; C`.
fn in_one_line(mistake: &clap::Error) -> String {
    let text = mistake.to_string();
    let paragraphs = text.trim_start_matches("error: ").split("\n\n");
    let told = paragraphs.take_while(|paragraph| {
        !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more")
    });
    told.map(|paragraph| {
        let words: Vec<_> = paragraph.split_whitespace().collect();
        words.join(" ").trim_start_matches("tip: ").to_owned()
    })
    .collect::<Vec<_>>()
    .join("; ")
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[expect(clippy::print_stderr, reason = "the one place errors are shown")]
fn complain(line: &str) {
    eprintln!("{line}");
}
