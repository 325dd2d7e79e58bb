//! Attaching one probe: the first of its ways that this kernel takes.

use std::{path::Path, time::Instant};

use aya::{
    Ebpf,
    programs::{BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint},
};

use super::{btf::Btf, paged};
use crate::probes::{Attach, AttachKind, Probe, Way};

/// Where perf tells of kprobes, if the kernel has them.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// A probe and the ways to attach it that the kernel has, as far as its BTF tells.
#[derive(Debug)]
pub(super) struct Present {
    probe: Probe,
    ways: Vec<Way>,
}

impl Present {
    /// What stands in for a tracepoint is for kernels without it.
    pub(super) fn of(probe: Probe, btf: &Btf) -> Self {
        let tracepoint = btf.tracepoint(probe.name).is_some();
        let has = |attach: &Attach| match attach.kind {
            AttachKind::BtfTracepoint | AttachKind::RawTracepoint => tracepoint,
            _ if tracepoint => false,
            AttachKind::Fentry | AttachKind::Fexit => btf.has_function(attach.target),
            // Not every function is in BTF, those of modules are not before Linux 5.11.
            AttachKind::Kprobe | AttachKind::Kretprobe => true,
        };
        let ways = probe.ways.iter().copied();
        Self {
            probe,
            ways: ways.filter(|way| way.iter().all(has)).collect(),
        }
    }
}

#[cfg(test)]
impl Present {
    /// The same probe with each of its ways alone.
    pub(super) fn each_way(&self) -> impl Iterator<Item = Self> {
        let alone = |way: &Way| Self {
            probe: self.probe,
            ways: vec![*way],
        };
        self.ways.iter().map(alone)
    }

    /// Whether all that it has to attach to are tracepoints.
    pub(super) fn is_of_tracepoints(&self) -> bool {
        let mut attaches = self.ways.iter().copied().flatten();
        attaches.all(|attach| attach.kind.is_tracepoint())
    }

    /// Names of the programs.
    pub(super) fn name(&self) -> String {
        let attaches = self.ways.iter().copied().flatten();
        attaches
            .map(|attach| attach.program)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Whether a probe works, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does, its first program by this kind.
    Attached(AttachKind),
    /// The kernel has nothing that it could attach to.
    NotInKernel,
    /// The kernel refused it, with these words, its last way's.
    Refused(String),
}

/// A probe and whether it works.
#[derive(Clone, Debug)]
pub struct ProbeState {
    /// Which.
    pub probe: Probe,
    /// Whether it works.
    pub status: Status,
}

/// Attaches one probe by the first way that the kernel takes.
pub(super) fn probe(ebpf: &mut Ebpf, present: &Present, types: Option<&aya::Btf>) -> ProbeState {
    let mut status = Status::NotInKernel;
    for way in &present.ways {
        match by(ebpf, way, types) {
            Ok(kind) => {
                status = Status::Attached(kind);
                break;
            }
            Err(why) => status = Status::Refused(why),
        }
    }
    ProbeState {
        probe: present.probe,
        status,
    }
}

/// Attaches all programs of a way, or none.
fn by(ebpf: &mut Ebpf, way: Way, types: Option<&aya::Btf>) -> Result<AttachKind, String> {
    let first = way.first().ok_or("nothing is to be attached")?;
    for attach in way {
        let began = Instant::now();
        let attached = one(ebpf, attach, types);
        tracing::debug!(program = attach.program, took = ?began.elapsed(), "tried");
        if let Err(why) = attached {
            tracing::debug!(program = attach.program, why, "refused");
            for attach in way {
                unload(ebpf, attach);
            }
            return Err(why);
        }
    }
    Ok(first.kind)
}

fn one(ebpf: &mut Ebpf, attach: &Attach, types: Option<&aya::Btf>) -> Result<(), String> {
    let program = ebpf
        .program_mut(attach.program)
        .ok_or("the object has no such program")?;
    let types = types.ok_or("the kernel's types cannot be read");
    let target = attach.target;
    match attach.kind {
        AttachKind::BtfTracepoint => {
            let program: &mut BtfTracePoint = program.try_into().map_err(words)?;
            program.load(target, types?).map_err(words)?;
            program.attach().map(drop).map_err(words)
        }
        AttachKind::RawTracepoint => {
            let program: &mut RawTracePoint = program.try_into().map_err(words)?;
            program.load().map_err(words)?;
            program.attach(target).map(drop).map_err(words)
        }
        AttachKind::Fentry => {
            let program: &mut FEntry = program.try_into().map_err(words)?;
            program.load(target, types?).map_err(words)?;
            program.attach().map(drop).map_err(words)
        }
        AttachKind::Fexit => {
            let program: &mut FExit = program.try_into().map_err(words)?;
            program.load(target, types?).map_err(words)?;
            program.attach().map(drop).map_err(words)
        }
        AttachKind::Kprobe | AttachKind::Kretprobe if !Path::new(KPROBES).exists() => {
            Err("this kernel has no kprobes".to_owned())
        }
        AttachKind::Kprobe | AttachKind::Kretprobe => {
            // It goes through perf.
            let words = |error| paged::with_remedy(words(error));
            let program: &mut KProbe = program.try_into().map_err(words)?;
            // One program may go to several functions.
            match program.load() {
                Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
                Err(error) => return Err(words(error)),
            }
            program.attach(target, 0).map(drop).map_err(words)
        }
    }
}

/// Detaches a program, if it is attached: half a way would tell half a story.
fn unload(ebpf: &mut Ebpf, attach: &Attach) {
    // It fails where the program was not loaded, which is what is wanted.
    let _ = match ebpf.program_mut(attach.program) {
        Some(Program::BtfTracePoint(program)) => program.unload(),
        Some(Program::RawTracePoint(program)) => program.unload(),
        Some(Program::FEntry(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        Some(Program::KProbe(program)) => program.unload(),
        _ => Ok(()),
    };
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err hands over")]
fn words(error: ProgramError) -> String {
    use std::error::Error as _;
    tracing::debug!(?error, "refused");
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("processed "))
        .collect();
    match lines[..] {
        [first, .., last] => format!("{first} … {last}"),
        _ => text,
    }
}
