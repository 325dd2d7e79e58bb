//! The names the lab's DNS servers know: its Services, `host1..host100.lab.test`, and answers of every size.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{SOA, TXT};
use hickory_server::proto::rr::{LowerName, Name, RData, Record, RecordType};

use crate::lab::services::SERVICES;

/// Time to live of every record, in seconds: CoreDNS's own for `cluster.local`.
const TTL: u32 = 30;
/// Bytes of one character-string of a TXT record, RFC 1035 section 3.3.14 allows 255.
const TXT_STRING: usize = 200;
/// Strings in `big.lab.test`: an answer of about 1,200 bytes.
const BIG_STRINGS: usize = 6;
/// Strings in `huge.lab.test`: more than 4,096 bytes, which no client takes over UDP.
const HUGE_STRINGS: usize = 25;

/// All records by name.
#[derive(Debug)]
pub(super) struct Zone {
    names: HashMap<LowerName, Vec<Record>>,
    soa: [Record; 1],
    slow: LowerName,
    busy: LowerName,
}

impl Zone {
    /// The lab's zone.
    pub(super) fn new() -> Self {
        let soa = SOA::new(
            name("ns.dns.cluster.local"),
            name("hostmaster.cluster.local"),
            1,
            7200,
            1800,
            86400,
            TTL,
        );
        let mut zone = Self {
            names: HashMap::new(),
            soa: [record("cluster.local", RData::SOA(soa))],
            slow: LowerName::from(name("slow.lab.test")),
            busy: LowerName::from(name("busy.lab.test")),
        };
        zone.add_services();
        zone.add_hosts();
        zone.add("big.lab.test", text(BIG_STRINGS));
        zone.add("huge.lab.test", text(HUGE_STRINGS));
        zone.add_address("slow.lab.test", IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200)));
        zone.add_address("busy.lab.test", IpAddr::V4(Ipv4Addr::new(192, 0, 2, 201)));
        zone
    }

    /// What to answer: the code and the records. No record with `NoError` means another type exists.
    pub(super) fn answer<'zone>(
        &'zone self,
        name: &LowerName,
        kind: RecordType,
    ) -> (
        ResponseCode,
        impl Iterator<Item = &'zone Record> + Send + use<'zone>,
    ) {
        let found = self.names.get(name);
        let code = if found.is_some() {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        };
        let records = found.map(Vec::as_slice).unwrap_or_default().iter();
        (
            code,
            records.filter(move |record| record.record_type() == kind),
        )
    }

    /// Goes into the authority section of an answer without records (RFC 2308).
    pub(super) fn soa(&self) -> &[Record] {
        &self.soa
    }

    /// Whether the answer is to be held back for a while.
    pub(super) fn is_slow(&self, name: &LowerName) -> bool {
        *name == self.slow
    }

    /// Whether the answer is to cost the server's processor much.
    pub(super) fn is_busy(&self, name: &LowerName) -> bool {
        *name == self.busy
    }

    fn add_services(&mut self) {
        for service in SERVICES {
            for vip in service.vips() {
                self.add_address(&service.dns_name(), vip);
            }
        }
        let api = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
        self.add_address("kubernetes.default.svc.cluster.local", api);
    }

    fn add_hosts(&mut self) {
        for host in 1..=100u8 {
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host));
            let name = format!("host{host}.lab.test");
            self.add_address(&name, IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)));
            self.add_address(&name, IpAddr::V6(v6));
        }
    }

    fn add_address(&mut self, owner: &str, address: IpAddr) {
        let data = match address {
            IpAddr::V4(v4) => RData::A(v4.into()),
            IpAddr::V6(v6) => RData::AAAA(v6.into()),
        };
        self.add(owner, data);
    }

    fn add(&mut self, owner: &str, data: RData) {
        let records = self.names.entry(LowerName::from(name(owner))).or_default();
        records.push(record(owner, data));
    }
}

fn text(strings: usize) -> RData {
    RData::TXT(TXT::new(vec!["x".repeat(TXT_STRING); strings]))
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), TTL, data)
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("names of the zone are written in this file");
    name.set_fqdn(true);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(owner: &str, kind: RecordType, code: ResponseCode, records: usize) {
        let zone = Zone::new();
        let (found, answers) = zone.answer(&LowerName::from(name(owner)), kind);
        assert_eq!((found, answers.count()), (code, records), "{owner} {kind}");
    }

    #[test]
    fn name_with_another_type_is_no_data_and_other_names_do_not_exist() {
        check(
            "web.default.svc.cluster.local",
            RecordType::AAAA,
            ResponseCode::NoError,
            1,
        );
        check(
            "echo.default.svc.cluster.local",
            RecordType::AAAA,
            ResponseCode::NoError,
            0,
        );
        check("Host100.LAB.test", RecordType::A, ResponseCode::NoError, 1);
        check("host101.lab.test", RecordType::A, ResponseCode::NXDomain, 0);
    }
}
