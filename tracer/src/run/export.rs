//! Export: recordings as other files. Packets are written as they were captured, each with what the trace
//! says of the exchange that it belongs to.

mod claims;
mod copy;
mod packets;

use std::{
    fs::File,
    io::{self, BufWriter, Read as _, Write},
    path::Path,
};

use anyhow::{Context as _, Result};

use self::{
    copy::Copy,
    packets::{Export, SectionOf},
};
use super::{Exit, progress::Progress, tell};
use crate::{
    cli::{ExportArgs, RedactArgs, Secret},
    export::Pcapng,
    model::Losses,
    record::{Recorded, Recording, Stream},
    redact::{Redact, Redactor},
};

/// Exports recordings.
///
/// # Errors
/// Nothing can be read, or the file cannot be written.
pub fn export(args: &ExportArgs) -> Result<Exit> {
    let recording = Recording::open(&args.dirs)?;
    let mut warned = !recording.warnings.is_empty();
    for warning in &recording.warnings {
        tell(&format!("warning: {warning}"));
    }
    let mut redactor = redactor(&args.redact)?;
    let events = recording.sessions.iter().map(Stream::events).sum();
    let mut progress = Progress::new("exporting", true);
    let mut counts = Counts::default();
    let mut file = None;
    for mut stream in recording.sessions {
        let mut sink = Sink::new(args, &stream, redactor.as_mut(), file.take())?;
        for mut event in &mut stream {
            if let Some(redactor) = &mut redactor {
                event = redactor.event(event);
            }
            sink.event(event, &mut counts)?;
            counts.events += 1;
            progress.part(counts.events, events);
        }
        file = sink.finish(&mut counts)?;
        for warning in &stream.warnings {
            warned = true;
            tell(&format!("warning: {warning}"));
        }
    }
    drop(progress);
    if let Some(file) = file {
        file.into_inner().flush().context("write the packets")?;
    }
    let out = args.pcapng.as_ref().or(args.recording.as_ref());
    tell(&counts.words(args.pcapng.is_some(), out.map_or(Path::new("-"), |out| out)));
    let lossy = counts.losses.total() > 0 || counts.bare > 0;
    Ok(if warned || lossy {
        Exit::Incomplete
    } else {
        Exit::Done
    })
}

/// What replaces names and addresses, where that is wanted.
pub(super) fn redactor(args: &RedactArgs) -> Result<Option<Redactor>> {
    let what = Redact {
        names: args.has(Secret::Names),
        addresses: args.has(Secret::Addresses),
    };
    if what == Redact::default() {
        return Ok(None);
    }
    let key = match &args.redact_key {
        Some(words) => words.clone().into_bytes(),
        None => {
            let mut key = vec![0; 32];
            File::open("/dev/urandom")
                .and_then(|mut random| random.read_exact(&mut key))
                .context("read a key from /dev/urandom: give one with --redact-key")?;
            key
        }
    };
    Ok(Some(Redactor::new(what, &key)))
}

/// What a session is written to.
enum Sink {
    Packets(Box<Export>),
    Recording(Box<Copy>),
}

type Out = Pcapng<Box<dyn Write>>;

impl Sink {
    /// `file` is that of the session before.
    fn new(
        args: &ExportArgs,
        stream: &Stream,
        redactor: Option<&mut Redactor>,
        file: Option<Out>,
    ) -> Result<Self> {
        if let Some(dir) = &args.recording {
            let copy = Copy::new(dir, stream, redactor)?;
            return Ok(Self::Recording(Box::new(copy)));
        }
        let session = match redactor {
            Some(redactor) => redactor.session(&stream.session),
            None => stream.session.clone(),
        };
        let path = args.pcapng.as_deref().unwrap_or(Path::new("-"));
        let section = SectionOf::new(&session);
        let out = match file {
            None => Pcapng::new(create(path)?, &section.words())?,
            Some(mut out) => {
                out.section(&section.words())?;
                out
            }
        };
        let export = Export::new(args, &session, out);
        Ok(Self::Packets(Box::new(export)))
    }

    fn event(&mut self, event: Recorded, counts: &mut Counts) -> Result<()> {
        if let Recorded::Loss(losses) = &event {
            counts.losses.add(losses);
        }
        match self {
            Self::Packets(export) => export.event(event, counts),
            Self::Recording(copy) => {
                copy.event(event);
                Ok(())
            }
        }
    }

    fn finish(self, counts: &mut Counts) -> Result<Option<Out>> {
        match self {
            Self::Packets(export) => Ok(Some(export.finish(counts)?)),
            Self::Recording(copy) => {
                counts.losses.add(&copy.finish());
                Ok(None)
            }
        }
    }
}

fn create(path: &Path) -> Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(io::stdout())));
    }
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    Ok(Box::new(BufWriter::with_capacity(256 << 10, file)))
}

/// What came of it.
#[derive(Debug, Default)]
struct Counts {
    events: u64,
    packets: u64,
    /// Packets of which not all bytes were captured.
    truncated: u64,
    /// Packets recorded without headers.
    bare: u64,
    /// Packets that belong to no row, where rows are chosen.
    unwanted: u64,
    losses: Losses,
}

impl Counts {
    fn words(&self, packets: bool, path: &Path) -> String {
        let (count, what) = if packets {
            (self.packets, "packets")
        } else {
            (self.events, "events")
        };
        let mut words = vec![format!("{count} {what} to {}", path.display())];
        let mut say = |count: u64, what: &str| {
            if count > 0 {
                words.push(format!("{count} {what}"));
            }
        };
        say(self.truncated, "truncated");
        say(self.unwanted, "of no exchange that is wanted");
        say(self.bare, "left out, for their headers were not recorded");
        say(
            self.losses.total(),
            "lost before, or while they were recorded",
        );
        words.join("; ")
    }
}
