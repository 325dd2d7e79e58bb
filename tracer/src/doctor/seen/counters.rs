//! Counters of the kernel that only ever grow: of conntrack, of reverse path filtering, of UDP.
//! One look says what happened since the node started; two say what happens now.

use super::Root;

/// What the kernel has counted in this network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets dropped because the conntrack table had no room, or an entry could not be made.
    pub conntrack_drop: u64,
    /// Entries thrown out early to make room.
    pub conntrack_early_drop: u64,
    /// Entries that could not be inserted: another with the same tuple came first.
    pub conntrack_insert_failed: u64,
    /// Packets dropped by reverse path filtering.
    pub rp_filter: u64,
    /// Datagrams with a wrong checksum.
    pub udp_checksum: u64,
    /// Datagrams for which a socket's receive buffer had no room.
    pub udp_rcvbuf: u64,
}

impl Counters {
    /// Reads them; one that the kernel does not have is 0.
    pub fn read(root: &Root) -> Self {
        let text = |path| root.read(path).unwrap_or_default();
        let conntrack = text("/proc/net/stat/nf_conntrack");
        let (netstat, snmp) = (text("/proc/net/netstat"), text("/proc/net/snmp"));
        Self {
            conntrack_drop: of_all_processors(&conntrack, "drop"),
            conntrack_early_drop: of_all_processors(&conntrack, "early_drop"),
            conntrack_insert_failed: of_all_processors(&conntrack, "insert_failed"),
            rp_filter: of_protocol(&netstat, "TcpExt:", "IPReversePathFilter"),
            udp_checksum: of_protocol(&snmp, "Udp:", "InCsumErrors"),
            udp_rcvbuf: of_protocol(&snmp, "Udp:", "RcvbufErrors"),
        }
    }
}

/// A heading, then a line of hexadecimal numbers for each processor (ct_cpu_seq_show,
/// net/netfilter/nf_conntrack_standalone.c).
fn of_all_processors(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let Some(column) = heading.split_whitespace().position(|word| word == name) else {
        return 0;
    };
    lines
        .filter_map(|line| {
            let word = line.split_whitespace().nth(column)?;
            u64::from_str_radix(word, 16).ok()
        })
        .sum()
}

/// Two lines that begin with `protocol`: names, then numbers (net/ipv4/proc.c).
fn of_protocol(text: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let mut both = names.split_whitespace().zip(numbers.split_whitespace());
    let number = both.find(|(word, _)| *word == name);
    number
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conntracks_are_summed_over_processors() {
        // /proc/net/stat/nf_conntrack of Linux 6.1, observed; two processors.
        let text = "entries  clashres found new invalid ignore delete chainlength insert \
                    insert_failed drop early_drop icmp_error  expect_new expect_create \
                    expect_delete search_restart\n\
                    0000002a  00000000 00000000 00000000 00000001 00000000 00000000 00000000 \
                    00000000 00000003 0000000a 00000000 00000000  00000000 00000000 00000000 \
                    00000000\n\
                    0000002a  00000000 00000000 00000000 00000001 00000000 00000000 00000000 \
                    00000000 00000001 00000006 00000000 00000000  00000000 00000000 00000000 \
                    00000000\n";
        assert_eq!(of_all_processors(text, "drop"), 16);
        assert_eq!(of_all_processors(text, "insert_failed"), 4);
        assert_eq!(of_all_processors(text, "no_such"), 0);
        assert_eq!(of_all_processors("", "drop"), 0);
    }

    #[test]
    fn a_protocols_are_found_by_name() {
        let text = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams RcvbufErrors\nUdp: 7 2\n";
        assert_eq!(of_protocol(text, "Udp:", "RcvbufErrors"), 2);
        assert_eq!(of_protocol(text, "Udp:", "InCsumErrors"), 0);
    }
}
