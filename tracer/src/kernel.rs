//! The kernel side as user space sees it: programs loaded and attached, the record stream, and
//! what was lost on the way. Beyond this door and `probes` there is no aya and no record.

mod attach;
pub mod btf;
pub mod clock;
pub mod drops;
mod lanes;
mod load;
pub mod offsets;
mod paged;
mod privilege;
mod reasons;

pub mod sockopt;
pub mod stream;
mod trim;

use std::io;

pub use drops::DropTables;
pub use load::{Kernel, Logger, Options, ProbeState, Status};
pub use stream::{Drained, Stream};

/// Why the kernel side cannot work; each text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The programs may not be loaded.
    #[error("loading BPF programs needs {missing}: run as root, or grant the capability")]
    Privilege {
        /// The capabilities that are missing.
        missing: String,
    },
    /// The kernel forbids reading its memory.
    #[error(
        "the kernel is locked down for confidentiality, which forbids BPF to read kernel memory: boot with lockdown=integrity or none"
    )]
    Lockdown,
    /// The kernel is older than the oldest that works.
    #[error("Linux {found} is too old: 5.10 is the oldest that works")]
    TooOld {
        /// `uname -r`.
        found: String,
    },
    /// The kernel does not describe its own types.
    #[error("{path} is missing: use a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf {
        /// Where it was looked for.
        path: &'static str,
        /// What reading it said.
        source: io::Error,
    },
    /// The kernel's description of its types does not parse.
    #[error("{path} is no BTF that can be read: {what}")]
    BadBtf {
        /// Which file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A kernel structure lacks a member that no probe can do without.
    #[error("struct {strukt} has no member {member} on this kernel")]
    NoMember {
        /// The struct.
        strukt: &'static str,
        /// The member.
        member: &'static str,
    },
    /// A kernel structure is laid out in a way that the programs do not read.
    #[error("this kernel's structures are laid out in an unknown way: {what}")]
    Layout {
        /// How.
        what: &'static str,
    },
    /// The object could not be loaded.
    #[error("load the BPF object")]
    Load(#[from] aya::EbpfError),
    /// A map of the object could not be used.
    #[error("use BPF map {name}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// The object lacks something this binary counts on.
    #[error(
        "the BPF object has no {name}: this binary was built with TRACER_EBPF=skip; build it without"
    )]
    Missing {
        /// The map or program.
        name: &'static str,
    },
    /// Not one program could be attached.
    #[error("no probe could be attached; `tracer probes` tells why for each")]
    NoProbe,
    /// A processor's buffer for paged payload could not be opened.
    #[error("open a perf buffer")]
    Perf(#[from] aya::maps::perf::PerfBufferError),
    /// The ring buffer cannot be waited on.
    #[error("wait for the ring buffer")]
    Wait(#[from] io::Error),
    /// The ring buffer's size is none that the kernel takes.
    #[error("the ring must be a power of two of at least one page, not {bytes} bytes")]
    RingSize {
        /// What was asked for.
        bytes: u32,
    },
}
