//! From the embedded object to attached programs: privileges looked at first, constants handed
//! over, each probe attached on its own so that one refusal does not cost the others.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsFd as _,
    os::fd::AsRawFd as _,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{LpmTrie, Map, PerCpuArray, lpm_trie::Key},
    util::nr_cpus,
};
use tracer_ebpf::config::{Config, DNS_PORTS, Lost, Offsets, paged};

pub use super::attach::{ProbeState, Status};
use super::{
    Error, Stream,
    attach::{self, Present},
    btf::Btf,
    lanes::{self, Lanes},
    offsets,
    paged::Paged,
    reasons,
};
use crate::{
    model::{Losses, drops::DropNames},
    probes::{self, AttachKind, Decoder, Probe, Wanted},
};

/// The object that build.rs compiled; empty when built with `TRACER_EBPF=skip`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer-ebpf"));

/// Bytes in the ring at which its reader is woken at the latest: what it then reads lies in a
/// processor's cache still, and the rest of the ring is room for when it comes late.
const WAKE_AT: u32 = 512 << 10;

/// What is wanted of the kernel side.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
pub struct Options {
    /// Ports whose payload is captured; at most [`DNS_PORTS`], the rest is passed over.
    pub dns_ports: Vec<u16>,
    /// Whether connections and flows of other ports are wanted.
    pub connections: bool,
    /// Prefixes known to be service addresses, as address and length in bits.
    pub vips: Vec<(IpAddr, u8)>,
    /// Bytes of the ring buffer, a power of two of at least 4096.
    pub ring_bytes: u32,
    /// Whether paths are wanted, and with them the probes that see nothing but sockets' ends.
    pub paths: bool,
    /// Whether packets' headers are wanted as they stand.
    pub headers: bool,
    /// Whether the programs log.
    pub log: bool,
}

/// Carries what the kernel programs log to the `log` crate.
pub type Logger = aya_log::EbpfLogger<&'static dyn log::Log>;

/// Loaded and attached programs; they are gone when this is dropped.
#[derive(Debug)]
pub struct Kernel {
    ebpf: Ebpf,
    offsets: Offsets,
    drop_names: DropNames,
    probes: Vec<ProbeState>,
    paged: Paged,
    seen: Losses,
}

/// What the programs make of what they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// A record of each wanted packet.
    Records,
    /// Drops counted by group.
    DropTables,
}

/// The object, loaded: its maps exist, its programs are not attached yet.
#[derive(Debug)]
pub(super) struct Object {
    ebpf: Ebpf,
    offsets: Offsets,
    drop_names: DropNames,
    paged: Paged,
    /// Probes to attach, and the ways that the kernel has.
    present: Vec<Present>,
    /// The kernel's types, until all is attached.
    types: Option<aya::Btf>,
}

impl Object {
    /// # Errors
    /// As [`Kernel::load`].
    pub(super) fn open(options: &Options, output: Output, probes: &[Probe]) -> Result<Self, Error> {
        if OBJECT.is_empty() {
            return Err(Error::Missing { name: "programs" });
        }
        super::privilege::check()?;
        super::privilege::raise_memlock();
        // Parses the kernel's BTF though it is told at once not to use it, as the object has no
        // CO-RE relocations: before all else, so that its 20 MB are not on top of anything.
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        super::trim::release_freed();
        let btf = Btf::of_kernel("nf_conntrack")?;
        let offsets = offsets::of(&btf)?;
        let drop_reason = btf.tracepoint("kfree_skb").is_some_and(|args| args >= 3);
        let paged = Paged::of(&btf);
        let (way, pages) = paged.configured();
        let cpus = nr_cpus().map_err(|(_, source)| Error::Wait(source))?;
        let config = Config {
            paged: way,
            lane_chunks: lanes::chunks(options.ring_bytes, cpus),
            ..config(options, output, drop_reason)
        };
        let log_level: u8 = if options.log { 0xff } else { 0 };
        let lanes = u32::try_from(cpus).unwrap_or(u32::MAX);
        loader.map_max_entries("LANES", lanes);
        let chunks = lanes.saturating_mul(config.lane_chunks).max(1);
        loader.map_max_entries("CHUNKS", chunks);
        for map in unused(output) {
            loader.map_max_entries(map, 1);
        }
        let mut ebpf = loader
            .override_global("CONFIG", &config, true)
            .override_global("OFFSETS", &offsets, true)
            .override_global("PAGES", &pages, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .map_max_entries("RECORDS", options.ring_bytes)
            .load(OBJECT)?;
        fill_vips(&mut ebpf, &options.vips)?;
        let present = probes
            .iter()
            .filter(|probe| options.paths || probe.wanted == Wanted::Always)
            .map(|probe| Present::of(*probe, &btf))
            .collect();
        let names = reasons::of(&btf);
        drop(btf);
        super::trim::release_freed();
        // Takes 20 MB for a moment, hence before any buffer is mapped.
        let types = aya::Btf::from_sys_fs().ok();
        super::trim::release_freed();
        Ok(Self {
            ebpf,
            offsets,
            drop_names: reasons::with_modules(names),
            paged,
            present,
            types,
        })
    }

    pub(super) fn take_map(&mut self, name: &'static str) -> Result<Map, Error> {
        self.ebpf.take_map(name).ok_or(Error::Missing { name })
    }

    /// Attaches each probe that the kernel takes.
    pub(super) fn attach(mut self) -> Kernel {
        let types = self.types.take();
        let present = self.present.drain(..);
        let probes = present
            .map(|present| attach::probe(&mut self.ebpf, &present, types.as_ref()))
            .collect();
        drop(types);
        super::trim::release_freed();
        Kernel {
            ebpf: self.ebpf,
            offsets: self.offsets,
            drop_names: self.drop_names,
            probes,
            paged: self.paged,
            seen: Losses::default(),
        }
    }
}

/// Maps that nobody fills: they are made as small as can be.
fn unused(output: Output) -> &'static [&'static str] {
    if output == Output::DropTables {
        &["LANES", "CHUNKS", "TCP_SILENT", "UDP_SEEN", "DNS_SERVERS"]
    } else {
        &["DROPS_EVEN", "DROPS_ODD"]
    }
}

impl Kernel {
    /// Loads all programs, opens the way out, and then attaches each program that the kernel
    /// takes, so that no record is made before there is room for it.
    ///
    /// # Errors
    /// Privileges are missing, the kernel is too old, locked down or without BTF, or the object
    /// does not load.
    pub fn load(options: &Options) -> Result<(Self, Stream), Error> {
        if !options.ring_bytes.is_power_of_two() || options.ring_bytes < 4096 {
            return Err(Error::RingSize {
                bytes: options.ring_bytes,
            });
        }
        let mut object = Object::open(options, Output::Records, probes::ALL)?;
        let records = object.take_map("RECORDS")?;
        let lanes = Lanes::open(object.take_map("LANES")?, object.take_map("CHUNKS")?)?;
        let paged = match object.paged {
            Paged::Perf => Some(object.take_map("PAGED")?),
            Paged::Read(_) | Paged::Not(_) => None,
        };
        let stream = Stream::new(
            records,
            lanes,
            paged,
            options.ring_bytes,
            Decoder::new(&object.offsets),
        )?;
        Ok((object.attach(), stream))
    }

    /// Each probe and whether it works.
    pub fn probes(&self) -> &[ProbeState] {
        &self.probes
    }

    /// What this kernel cannot show however the probes fare, in words; empty when nothing.
    pub fn blind_spots(&self) -> Vec<String> {
        let nat = self.nat_spot().map(str::to_owned);
        nat.into_iter().chain(self.paged_spot()).collect()
    }

    /// What of packets' payload is not seen, and why.
    fn paged_spot(&self) -> Option<String> {
        let mut always = self.probes.iter();
        let direct = always.any(|state| {
            let wanted = state.probe.wanted == Wanted::Always;
            wanted && state.status == Status::Attached(AttachKind::BtfTracepoint)
        });
        let why = match &self.paged {
            Paged::Perf if !direct => "the kernel took no BTF tracepoint",
            Paged::Perf | Paged::Read(_) => return None,
            Paged::Not(why) => why,
        };
        Some(format!(
            "payload in page fragments (DNS over TCP, and over UDP what a network card leaves there): {why}"
        ))
    }

    /// Names of this kernel's drop reasons, without those of symbols.
    pub fn drop_names(&self) -> DropNames {
        self.drop_names.clone()
    }

    /// Everything that goes unseen: probes that do not work, then blind spots.
    pub fn unseen(&self) -> Vec<String> {
        self.failed().chain(self.blind_spots()).collect()
    }

    /// What goes unseen of drops.
    pub fn unseen_of_drops(&self) -> Vec<String> {
        let nat = self.nat_spot().map(str::to_owned);
        self.failed().chain(nat).collect()
    }

    /// What goes unseen for want of probes.
    fn failed(&self) -> impl Iterator<Item = String> {
        self.probes.iter().filter_map(|state| match &state.status {
            Status::Attached(_) => None,
            Status::NotInKernel => Some(format!(
                "{}: no {} in this kernel",
                state.probe.unseen, state.probe.name
            )),
            Status::Refused(why) => Some(format!(
                "{}: {} was refused: {why}",
                state.probe.unseen, state.probe.name
            )),
        })
    }

    fn nat_spot(&self) -> Option<&'static str> {
        (self.offsets.ct_tuplehash == tracer_ebpf::config::ABSENT)
            .then_some("NAT: nf_conntrack was not loaded when the tracer started")
    }

    /// The kernel programs' own log; `None` when they do not log.
    pub fn logger(&mut self) -> Option<Logger> {
        aya_log::EbpfLogger::init(&mut self.ebpf).ok()
    }

    /// What was lost in the kernel since the last call.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn losses(&mut self) -> Result<Losses, Error> {
        let name = "LOST";
        let map = self.ebpf.map("LOST").ok_or(Error::Missing { name })?;
        let lost: PerCpuArray<_, Lost> =
            PerCpuArray::try_from(map).map_err(|source| Error::Map { name, source })?;
        let mut now = Losses::default();
        for probe in probes::ALL {
            let cpus = lost
                .get(&probe.program, 0)
                .map_err(|source| Error::Map { name, source })?;
            for cpu in cpus.iter() {
                now.ring_full += cpu.ring_full;
                now.unreadable += cpu.unreadable;
                now.skipped += cpu.nested;
            }
            let attached = probe.ways.iter().copied().flatten();
            now.skipped += attached
                .map(|attach| self.skipped(attach.program))
                .sum::<u64>();
        }
        let news = Losses {
            ring_full: now.ring_full - self.seen.ring_full,
            unreadable: now.unreadable - self.seen.unreadable,
            skipped: now.skipped.saturating_sub(self.seen.skipped),
            undecodable: 0,
            unrecorded: 0,
        };
        self.seen = now;
        Ok(news)
    }

    /// Runs that the kernel left out because the program was running already on that processor
    /// (`recursion_misses` of `bpf_prog_show_fdinfo`, Linux 5.12); 0 where it is not told.
    fn skipped(&self, program: &str) -> u64 {
        let fd = self
            .ebpf
            .program(program)
            .and_then(|program| program.fd().ok());
        let Some(fd) = fd else { return 0 };
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("recursion_misses:"))
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }
}

fn config(options: &Options, output: Output, drop_reason: bool) -> Config {
    let mut dns_ports = [[0; 2]; DNS_PORTS];
    for (slot, port) in dns_ports.iter_mut().zip(&options.dns_ports) {
        *slot = port.to_be_bytes();
    }
    Config {
        dns_ports,
        connections: u8::from(options.connections),
        vips: u8::from(!options.vips.is_empty()),
        drop_reason: u8::from(drop_reason),
        drops: u8::from(output == Output::DropTables),
        headers: u8::from(options.headers),
        paged: paged::NOT,
        paths: u8::from(options.paths),
        pad: 0,
        // The reader comes by timer long before, unless there is a burst.
        wake_at: (options.ring_bytes / 2).min(WAKE_AT),
        lane_chunks: 0,
    }
}

fn fill_vips(ebpf: &mut Ebpf, vips: &[(IpAddr, u8)]) -> Result<(), Error> {
    let name = "VIPS";
    let map = ebpf.map_mut(name).ok_or(Error::Missing { name })?;
    let mut trie: LpmTrie<_, [u8; 16], u8> =
        LpmTrie::try_from(map).map_err(|source| Error::Map { name, source })?;
    for &(address, bits) in vips {
        let (address, bits): (Ipv6Addr, u8) = match address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), bits.saturating_add(96)),
            IpAddr::V6(v6) => (v6, bits),
        };
        let key = Key::new(u32::from(bits), address.octets());
        trie.insert(&key, 1, 0)
            .map_err(|source| Error::Map { name, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_holds_every_program_of_every_probe() {
        let ways = probes::ALL.iter().flat_map(|probe| probe.ways);
        for name in ways.copied().flatten().map(|attach| attach.program) {
            // As a symbol: between two zeros of its string table.
            let symbol = [b"\0", name.as_bytes(), b"\0"].concat();
            let found = OBJECT.windows(symbol.len()).any(|bytes| bytes == symbol);
            assert!(found, "{name}");
        }
    }

    /// Nearly everywhere the first way is taken, so that nobody else would see the kernel refuse another.
    #[test]
    #[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
    fn this_kernel_takes_each_way_to_attach_to_a_tracepoint() {
        let options = Options {
            dns_ports: vec![53],
            connections: true,
            vips: Vec::new(),
            ring_bytes: 4096,
            paths: true,
            headers: false,
            log: false,
        };
        let mut object = Object::open(&options, Output::Records, probes::ALL).unwrap();
        let mut taken = 0;
        for present in std::mem::take(&mut object.present) {
            for way in present.each_way() {
                let state = attach::probe(&mut object.ebpf, &way, object.types.as_ref());
                match state.status {
                    Status::Attached(kind) => taken += usize::from(kind.is_tracepoint()),
                    status if way.is_of_tracepoints() => panic!("{}: {status:?}", way.name()),
                    _ => {}
                }
            }
        }
        assert!(taken >= 12, "{taken}");
    }
}
