//! The further places of a packet, which follow its record.

use std::net::{IpAddr, SocketAddr};

use tracer_ebpf::record::{self, BEGINNING, CONNTRACK_BYTES, part, pass};

use crate::{
    model::{Flow, KtimeNs},
    probes::Times,
};

/// The further places of a packet's record, in turn.
pub(super) struct Passes<'a>(&'a [u8]);

/// One of them.
pub(super) struct Passed<'a> {
    pub(super) pass: record::Pass,
    /// Its conntrack entry, where that is first seen there.
    pub(super) conntrack: Option<&'a [u8]>,
    /// What it begins with, where it is translated there: [`flow`].
    pub(super) turned: Option<&'a [u8]>,
}

impl<'a> Passes<'a> {
    /// `None` when the record is cut short.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let record: record::Packet = tracer_ebpf::read(bytes)?;
        let parts = [
            (part::CONNTRACK, CONNTRACK_BYTES),
            (part::ORIGIN, size_of::<record::Origin>()),
            (part::OUTER, size_of::<record::Outer>()),
        ];
        let named = parts.iter().filter(|(part, _)| record.parts & part != 0);
        let parts: usize = named.map(|(_, len)| len).sum();
        let len = size_of_val(&record) + parts + usize::from(record.captured);
        bytes.get(len..)?;
        let passes = bytes.get(len.next_multiple_of(8)..);
        Some(Self(passes.unwrap_or_default()))
    }

    /// Whether there is another: less than a word is what a perf buffer fills up with.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() < 8
    }

    /// The next place; `None` when it is cut short.
    pub(super) fn next(&mut self) -> Option<Passed<'a>> {
        let pass: record::Pass = tracer_ebpf::read(self.0)?;
        self.0 = self.0.get(size_of_val(&pass)..)?;
        let mut conntrack = None;
        if pass.parts & pass::CONNTRACK != 0 {
            conntrack = Some(self.part(CONNTRACK_BYTES)?);
        }
        let mut turned = None;
        if pass.parts & pass::TURNED != 0 {
            turned = Some(self.part(BEGINNING)?);
        }
        Some(Passed {
            pass,
            conntrack,
            turned,
        })
    }

    fn part(&mut self, len: usize) -> Option<&'a [u8]> {
        let part;
        (part, self.0) = self.0.split_at_checked(len)?;
        Some(part)
    }
}

/// Adds to `times` when a packet was seen at its further places; `None` when its record is cut short.
pub(in crate::probes) fn times(record: &[u8], times: &mut Times) -> Option<()> {
    let mut passes = Passes::of(record)?;
    while !passes.is_empty() {
        times.push(KtimeNs(passes.next()?.pass.ktime_ns));
    }
    Some(())
}

/// Source and destination of a UDP datagram that begins so, without options or extensions: RFC 791, section 3.1;
/// RFC 8200, section 3; RFC 768.
pub(super) fn flow(beginning: &[u8]) -> Option<Flow> {
    let end = |address: usize, port: usize, v6: bool| {
        let ip = if v6 {
            IpAddr::from(*beginning.get(address..)?.first_chunk::<16>()?)
        } else {
            IpAddr::from(*beginning.get(address..)?.first_chunk::<4>()?)
        };
        let port = beginning.get(port..)?.first_chunk()?;
        Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
    };
    let v6 = beginning.first()? >> 4 == 6;
    let [src, dst] = if v6 {
        [(8, 40), (24, 42)]
    } else {
        [(12, 20), (16, 22)]
    };
    Some(Flow {
        src: end(src.0, src.1, v6)?,
        dst: end(dst.0, dst.1, v6)?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn of_ipv6_addresses_and_ports_are_read_where_they_stand() {
        let mut v6 = [0; BEGINNING];
        v6[0] = 0x60;
        v6[8..24].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6[24..40].copy_from_slice(&"2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        v6[40..44].copy_from_slice(&[0x9c, 0x40, 0, 53]);
        let flow = flow(&v6).unwrap();
        assert_eq!(flow.src, "[2001:db8::1]:40000".parse().unwrap());
        assert_eq!(flow.dst, "[2001:db8::2]:53".parse().unwrap());
    }
}
