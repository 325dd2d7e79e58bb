//! Recording: what a recording says of this node and this trace, and where it is begun.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{here::Here, names::Names, tell};
use crate::{
    cli::TraceArgs,
    kernel::{Kernel, Status, clock},
    model::{Event, WallNs},
    record::{Asked, Keep, Recorder, Session, SessionProbe},
};

/// What recording and replay need to know of a trace.
pub(super) fn session(args: &TraceArgs, kernel: &Kernel, names: &Names<Here>) -> Session {
    let system = rustix::system::uname();
    let word = |word: &std::ffi::CStr| word.to_string_lossy().into_owned();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let drops = kernel.drop_names();
    let Event::Tick { wall, .. } = clock::tick() else {
        return Session::default();
    };
    Session {
        id: id(wall),
        node: args
            .recording
            .recorded_as
            .clone()
            .unwrap_or_else(|| word(system.nodename())),
        tracer: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: word(system.release()),
        machine: word(system.machine()),
        boot_id: boot_id.trim().to_owned(),
        probes: kernel.probes().iter().map(probe).collect(),
        unseen: kernel.unseen(),
        api: names.asked.clone(),
        rules: names.reads_rules,
        asked: asked(args),
        drop_reasons: drops.reasons.into_iter().collect(),
        drop_subsystems: drops.subsystems.into_iter().collect(),
    }
}

/// `20261125T034500123Z`: sorts by time, and is a file's name.
fn id(wall: WallNs) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(wall.0)).unwrap_or_default();
    let text = format!("{time:.3}");
    text.replace(['-', ':', '.'], "")
}

fn probe(state: &crate::kernel::ProbeState) -> SessionProbe {
    let status = match &state.status {
        Status::Attached { .. } => "attached",
        Status::NotInKernel => "not_in_kernel",
        Status::Refused(_) => "refused",
    };
    SessionProbe {
        name: state.probe.name.to_owned(),
        status: status.to_owned(),
    }
}

fn asked(args: &TraceArgs) -> Asked {
    let nanos = args.unanswered_after.as_nanos();
    Asked {
        dns: args.wants_dns(),
        connections: args.wants_connections(),
        paths: args.path,
        dns_ports: args.dns_port.clone(),
        vips: args.vip.clone(),
        unanswered_after_ns: u64::try_from(nanos).unwrap_or(u64::MAX),
        tracked: args.tracked,
    }
}

/// Begins to record into `dir`.
pub(super) fn begin(dir: &Path, args: &TraceArgs, session: &Session) -> Result<Recorder> {
    let keep = Keep {
        bytes: args.recording.keep_size,
        age: args.recording.keep_for,
    };
    let recorder = Recorder::start(dir, session.clone(), keep).context("record")?;
    tell(&format!("recording to {}", dir.display()));
    Ok(recorder)
}
