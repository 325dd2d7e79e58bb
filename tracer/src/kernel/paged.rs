//! How payload that lies in page fragments gets out of the kernel: by the kernel's own hand into a perf
//! buffer, else read page by page into the ring, else not at all. Decided before load; opens nothing.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};

use tracer_ebpf::config::{Pages, paged};

use super::btf::Btf;

/// The way that this process has on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Paged {
    /// The kernel copies it into a perf buffer (`bpf_skb_output`).
    Perf,
    /// The programs read the pages.
    Read(Pages),
    /// None, for this reason.
    Not(String),
}

impl Paged {
    /// The first way that works.
    pub(super) fn of(btf: &Btf) -> Self {
        let Err(refused) = perf_event() else {
            return Self::Perf;
        };
        let refused = with_remedy(format!("a perf buffer was refused: {refused}"));
        tracing::debug!(refused, "no perf buffer");
        match pages(btf) {
            Ok(pages) => Self::Read(pages),
            Err(why) => Self::Not(format!("{refused}; nor can pages be read: {why}")),
        }
    }

    /// As one of `config::paged`, and what reading pages takes.
    pub(super) fn configured(&self) -> (u8, Pages) {
        match self {
            Self::Perf => (paged::PERF, Pages::NONE),
            Self::Read(pages) => (paged::READ, *pages),
            Self::Not(_) => (paged::NOT, Pages::NONE),
        }
    }
}

/// `why` perf said no, with the remedy where a sysctl says so: 2 is the kernel's own highest value, and 3, of
/// Debian's and others', keeps everybody out who has not CAP_SYS_ADMIN, whatever CAP_PERFMON is to allow.
pub(super) fn with_remedy(why: String) -> String {
    let sysctl = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    match sysctl.trim().parse::<i32>() {
        Ok(value) if value > 2 => format!(
            "{why}, since kernel.perf_event_paranoid is {value}: set it to 2, or add CAP_SYS_ADMIN"
        ),
        _ => why,
    }
}

/// Opens what a perf buffer is made of, and closes it again.
#[expect(
    unsafe_code,
    reason = "the standard library does not know perf_event_open"
)]
fn perf_event() -> io::Result<()> {
    use std::os::fd::{FromRawFd as _, OwnedFd};
    /// The first 64 bytes of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER0`, include/uapi/linux/perf_event.h).
    #[repr(C)]
    struct Attributes {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        rest: [u64; 4],
    }
    const SOFTWARE: u32 = 1;
    const BPF_OUTPUT: u64 = 10;
    const SAMPLE_RAW: u64 = 1 << 10;
    const ANY_PROCESS: libc::pid_t = -1;
    const FIRST_CPU: libc::c_int = 0;
    const NO_GROUP: libc::c_int = -1;
    const CLOEXEC: libc::c_ulong = 8;
    let attributes = Attributes {
        kind: SOFTWARE,
        size: 64,
        config: BPF_OUTPUT,
        sample_period: 1,
        sample_type: SAMPLE_RAW,
        rest: [0; 4],
    };
    // SAFETY: the kernel reads as many bytes of `attributes` as its `size` says, and it has as many.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            ANY_PROCESS,
            FIRST_CPU,
            NO_GROUP,
            CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed it to us.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// What reading a page fragment takes.
fn pages(btf: &Btf) -> Result<Pages, &'static str> {
    if !cfg!(target_arch = "x86_64") {
        return Err("how pages are mapped is known of x86-64 alone");
    }
    let offset = |strukt, member| {
        let found = btf.offset(strukt, member);
        found.and_then(|offset| u16::try_from(offset).ok())
    };
    let layout = || {
        // `struct skb_frag`: a pointer, length, offset; first a struct of its own, then a typedef of bio_vec.
        let page = u32::try_from(btf.size("page")?).ok()?;
        Some((
            offset("sk_buff", "end")?,
            offset("skb_shared_info", "nr_frags")?,
            offset("skb_shared_info", "frags")?,
            page,
        ))
    };
    let (skb_end, fragments, first, page) = layout().ok_or("their layout is not known")?;
    let file = File::open("/proc/kallsyms").map_err(|_| "/proc/kallsyms cannot be read")?;
    let [page_array, direct_map] = addresses(
        BufReader::with_capacity(1 << 16, file),
        ["vmemmap_base", "page_offset_base"],
    );
    let hidden = "/proc/kallsyms does not tell where they are mapped";
    Ok(Pages {
        page_array: page_array.ok_or(hidden)?,
        direct_map: direct_map.ok_or(hidden)?,
        page,
        skb_end,
        fragments,
        first,
        pad: [0; 6],
    })
}

/// Addresses of the kernel's own symbols; `None` of one that is not there, or hidden.
fn addresses<const N: usize>(mut symbols: impl BufRead, names: [&str; N]) -> [Option<u64>; N] {
    let mut found = [None; N];
    let mut line = String::new();
    while symbols.read_line(&mut line).is_ok_and(|read| read > 0) {
        let mut words = line.trim_end().splitn(3, ' ');
        if let (Some(address), Some(_kind), Some(name)) = (words.next(), words.next(), words.next())
            && let Some(at) = names.iter().position(|wanted| *wanted == name)
        {
            let address = u64::from_str_radix(address, 16).ok();
            found[at] = address.filter(|address| *address != 0);
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        line.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_by_their_whole_name_and_hidden_ones_are_not() {
        let symbols = "\
ffffffff82a05128 D vmemmap_base_else
ffffffff82a05130 D vmemmap_base
ffffffffc0a01000 d page_offset_base\t[module]
0000000000000000 D page_offset_base
";
        let names = ["vmemmap_base", "page_offset_base"];
        let found = addresses(symbols.as_bytes(), names);
        assert_eq!(found, [Some(0xffff_ffff_82a0_5130), None]);
    }

    #[test]
    fn without_any_way_no_pages_are_configured() {
        let not = Paged::Not("it was refused".to_owned());
        assert_eq!(not.configured(), (paged::NOT, Pages::NONE));
    }
}
