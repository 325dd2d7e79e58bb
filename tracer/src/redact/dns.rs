//! DNS messages, rewritten where they lie: every label becomes one of its length, so that lengths, and
//! pointers to names that came before, still hold. What is not understood is blanked.
//!
//! Captures may end anywhere, and messages may say anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Redact, Redactor};

/// Bytes of the header (RFC 1035, section 4.1.1).
const HEADER: usize = 12;

/// Pointers followed in one name; a name has 127 labels at most.
const POINTERS: usize = 127;

/// A message being rewritten.
struct Message<'a> {
    /// As it was.
    was: Vec<u8>,
    /// As it becomes.
    bytes: &'a mut [u8],
    /// Where reading is.
    at: usize,
}

/// Where the labels of a name lie, the last one first read; and where the name ends.
struct Name {
    labels: Vec<(usize, usize)>,
    end: usize,
}

impl Redactor {
    /// Rewrites the message that `bytes` are, or are the beginning of.
    pub(super) fn message(&mut self, bytes: &mut [u8]) {
        let mut message = Message {
            was: bytes.to_vec(),
            bytes,
            at: HEADER,
        };
        let count = |at: usize| {
            let bytes = message.was.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| usize::from(u16::from_be_bytes(*bytes)))
        };
        let questions = count(4);
        let records = count(6) + count(8) + count(10);
        let mut whole = true;
        for _ in 0..questions {
            whole = whole && self.question(&mut message).is_some();
        }
        for _ in 0..records {
            whole = whole && self.record(&mut message).is_some();
        }
        // What lies behind, or was cut, is understood no further than to here.
        let at = message.at.min(message.bytes.len());
        message.bytes[at..].fill(0);
    }

    fn question(&mut self, message: &mut Message<'_>) -> Option<()> {
        self.rename(message)?;
        message.skip(4)
    }

    fn record(&mut self, message: &mut Message<'_>) -> Option<()> {
        self.rename(message)?;
        let kind = message.word(0)?;
        let len = usize::from(message.word(8)?);
        message.skip(10)?;
        let end = message.at + len;
        if end > message.was.len() {
            // An address that is cut is none; what of a name is there was never whole.
            return None;
        }
        self.content(message, kind, end);
        message.at = end;
        Some(())
    }

    /// The data of a record (numbers: IANA's registry of DNS parameters).
    fn content(&mut self, message: &mut Message<'_>, kind: u16, end: usize) {
        let Redact { names, addresses } = self.what;
        let begin = message.at;
        let done = match kind {
            // A, AAAA
            1 | 28 if addresses => self
                .address(&mut message.bytes[begin..end])
                .and_then(|()| message.skip(end - begin)),
            1 | 28 => message.skip(end - begin),
            // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
            2..=5 | 7..=9 | 12 | 39 => self.rename(message),
            // MX, AFSDB, RT, KX
            15 | 18 | 21 | 36 => message.skip(2).and_then(|()| self.rename(message)),
            // SRV
            33 => message.skip(6).and_then(|()| self.rename(message)),
            // SOA, and RP and MINFO, which are the same without numbers
            6 | 14 | 17 => self
                .rename(message)
                .and_then(|()| self.rename(message))
                .and_then(|()| message.skip(end.saturating_sub(message.at))),
            // SVCB, HTTPS
            64 | 65 => self.service(message, end),
            // OPT
            41 => self.options(message, end),
            // DS, SSHFP, DNSKEY, NSEC3PARAM, TLSA say no name; all others may.
            43 | 44 | 48 | 51 | 52 if !names => message.skip(end - begin),
            _ => None,
        };
        let from = match done {
            Some(()) => message.at.clamp(begin, end),
            None => begin,
        };
        message.bytes[from..end].fill(0);
    }

    /// The parameters of a service binding (RFC 9460, section 2.2).
    fn service(&mut self, message: &mut Message<'_>, end: usize) -> Option<()> {
        let Redact { names, addresses } = self.what;
        message.skip(2)?;
        self.rename(message)?;
        while message.at < end {
            let (key, len) = (message.word(0)?, usize::from(message.word(2)?));
            message.skip(4)?;
            let to = message.at + len;
            let value = message.bytes.get_mut(message.at..to.min(end))?;
            match key {
                // mandatory, alpn, no-default-alpn, port
                0..=3 => {}
                // ipv4hint, ipv6hint
                4 | 6 => {
                    let size = if key == 4 { 4 } else { 16 };
                    if addresses {
                        for address in value.chunks_mut(size) {
                            if self.address(address).is_none() {
                                address.fill(0);
                            }
                        }
                    }
                }
                _ if names || addresses => value.fill(0),
                _ => {}
            }
            message.at = to;
        }
        (message.at == end).then_some(())
    }

    /// EDNS options (RFC 6891, section 6.1.2).
    fn options(&mut self, message: &mut Message<'_>, end: usize) -> Option<()> {
        while message.at < end {
            let (code, len) = (message.word(0)?, usize::from(message.word(2)?));
            message.skip(4)?;
            let to = message.at + len;
            let value = message.bytes.get_mut(message.at..to.min(end))?;
            match code {
                // Client subnet, RFC 7871: family, source and scope length, address as far as needed.
                8 => self.subnet(value),
                // DAU, DHU, N3U, expiry, keepalive, padding
                5..=7 | 9 | 11 | 12 => {}
                // Extended error, RFC 8914: its code stays, its text goes.
                15 => value.iter_mut().skip(2).for_each(|byte| *byte = b'x'),
                // A cookie is made of addresses, NSID of a server's name.
                _ => value.fill(0),
            }
            message.at = to;
        }
        (message.at == end).then_some(())
    }

    fn subnet(&mut self, value: &mut [u8]) {
        let Redact { addresses, .. } = self.what;
        if !addresses {
            return;
        }
        let Some(([_, family, bits, _], address)) = value.split_first_chunk_mut() else {
            value.fill(0);
            return;
        };
        let size = if *family == 1 { 4 } else { 16 };
        if address.len() > size {
            address.fill(0);
            return;
        }
        let mut whole = address.to_vec();
        whole.resize(size, 0);
        if self.address(&mut whole).is_none() {
            whole.fill(0);
        }
        // Bits beyond the prefix are zero.
        for (at, (byte, other)) in address.iter_mut().zip(whole).enumerate() {
            let left = usize::from(*bits).saturating_sub(8 * at).min(8);
            let mask = 0xff00_u16 >> left;
            *byte = other & u8::try_from(mask & 0xff).unwrap_or(0);
        }
    }

    /// Replaces an address in network order; `None` when it is none.
    pub(super) fn address(&mut self, bytes: &mut [u8]) -> Option<()> {
        if let Ok(octets) = <[u8; 4]>::try_from(&*bytes) {
            if let IpAddr::V4(other) = self.addresses.ip(Ipv4Addr::from(octets).into()) {
                bytes.copy_from_slice(&other.octets());
            }
            return Some(());
        }
        let octets = <[u8; 16]>::try_from(&*bytes).ok()?;
        // One that is mapped is another family's.
        match self.addresses.ip(Ipv6Addr::from(octets).to_canonical()) {
            IpAddr::V4(other) => bytes.copy_from_slice(&other.to_ipv6_mapped().octets()),
            IpAddr::V6(other) => bytes.copy_from_slice(&other.octets()),
        }
        Some(())
    }

    /// Rewrites the labels of the name here that lie here or before, and goes on behind it.
    fn rename(&mut self, message: &mut Message<'_>) -> Option<()> {
        let Name { labels, end } = message.name()?;
        let texts: Vec<&[u8]> = labels
            .iter()
            .map(|(from, to)| &message.was[*from..*to])
            .collect();
        let others = self.labels(&texts);
        for ((from, to), other) in labels.iter().zip(others) {
            let label = &mut message.bytes[*from..*to];
            // Else it is spelt as none of ours is.
            if label.len() == other.len() {
                label.copy_from_slice(&other);
            } else {
                self.words.label(label);
            }
        }
        message.at = end;
        Some(())
    }

    /// What labels become, from the first to the last of a name.
    pub(super) fn labels(&mut self, labels: &[&[u8]]) -> Vec<Vec<u8>> {
        let Redact { names, addresses } = self.what;
        let mut others: Vec<Vec<u8>> = labels.iter().map(|label| label.to_vec()).collect();
        let is = |at: usize, word: &str| {
            let label = labels.len().checked_sub(at).and_then(|at| labels.get(at));
            label.is_some_and(|label| label.eq_ignore_ascii_case(word.as_bytes()))
        };
        let reversed = match (is(1, "arpa"), is(2, "in-addr"), is(2, "ip6")) {
            (true, true, _) => self.reversed(labels, 10),
            (true, _, true) => self.reversed(labels, 16),
            _ => None,
        };
        let kept = reversed.as_ref().map_or(0, Vec::len);
        let plain = labels
            .len()
            .saturating_sub(if kept > 0 { kept + 2 } else { 0 });
        for (nth, other) in others.iter_mut().enumerate() {
            if nth < plain {
                if names {
                    self.words.label(other);
                } else if addresses {
                    self.address_in(other);
                }
            } else if let Some(digits) = reversed.as_ref().and_then(|all| all.get(nth - plain))
                && addresses
            {
                other.clone_from(digits);
            }
        }
        others
    }

    /// What the labels of a reversed address become, of as many as are digits before the last two:
    /// octets in tens, nibbles in sixteens. `None` where none is.
    fn reversed(&mut self, labels: &[&[u8]], radix: u32) -> Option<Vec<Vec<u8>>> {
        let most = if radix == 10 { 4 } else { 32 };
        let front = labels.get(..labels.len().checked_sub(2)?)?;
        let number = |label: &&[u8]| {
            let text = str::from_utf8(label).ok()?;
            let number = u8::from_str_radix(text, radix).ok();
            number.filter(|number| match radix {
                10 => number.to_string() == text,
                _ => text.len() == 1,
            })
        };
        let mut digits: Vec<u8> = front.iter().rev().take(most).map_while(number).collect();
        let count = digits.len();
        if count == 0 {
            return None;
        }
        digits.resize(most, 0);
        let other: Vec<u8> = if radix == 10 {
            let octets: [u8; 4] = digits.try_into().ok()?;
            match self.addresses.ip(Ipv4Addr::from(octets).into()) {
                IpAddr::V4(other) => other.octets().to_vec(),
                IpAddr::V6(_) => return None,
            }
        } else {
            let bits = digits
                .iter()
                .fold(0, |bits, digit| bits << 4 | u128::from(*digit));
            match self.addresses.ip(Ipv6Addr::from_bits(bits).into()) {
                IpAddr::V4(_) => return None,
                IpAddr::V6(other) => (0..32)
                    .map(|at| u8::try_from(other.to_bits() >> (124 - 4 * at) & 0xf).unwrap_or(0))
                    .collect(),
            }
        };
        let text = |number: &u8| {
            let text = if radix == 10 {
                number.to_string()
            } else {
                format!("{number:x}")
            };
            text.into_bytes()
        };
        Some(other.iter().take(count).rev().map(text).collect())
    }

    /// Replaces an address that is spelt in a label, as those of pods are: 10-244-1-7, ip-10-0-0-1,
    /// fd00--7.
    fn address_in(&mut self, label: &mut [u8]) {
        let Ok(text) = str::from_utf8(label) else {
            return;
        };
        let parts: Vec<&str> = text.split('-').collect();
        let octet = |part: &&str| {
            let octet = part.parse::<u8>().ok();
            octet.filter(|octet| octet.to_string() == *part)
        };
        let quads = parts
            .windows(4)
            .position(|four| four.iter().all(|part| octet(part).is_some()));
        if let Some(at) = quads {
            let octets: Vec<u8> = parts.iter().skip(at).take(4).filter_map(octet).collect();
            let Ok(octets) = <[u8; 4]>::try_from(octets) else {
                return;
            };
            let other = self.addresses.ip(Ipv4Addr::from(octets).into()).to_string();
            let spelt: Vec<&str> = other.split('.').collect();
            let text = [&parts[..at], &spelt, &parts[at + 4..]].concat().join("-");
            if text.len() == label.len() {
                label.copy_from_slice(text.as_bytes());
            }
        } else if text.replace('-', ":").parse::<Ipv6Addr>().is_ok() && parts.len() > 2 {
            self.words.label(label);
        }
    }
}

impl Message<'_> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        let to = self.at + bytes;
        (to <= self.was.len()).then(|| self.at = to)
    }

    /// The 16 bits `ahead` of here.
    fn word(&self, ahead: usize) -> Option<u16> {
        let bytes = self.was.get(self.at + ahead..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    }

    /// The name here, as it was (RFC 1035, sections 3.1 and 4.1.4).
    fn name(&self) -> Option<Name> {
        let (mut at, mut end, mut pointers) = (self.at, None, 0);
        let mut labels = Vec::new();
        loop {
            let len = usize::from(*self.was.get(at)?);
            match len {
                0 => {
                    let end = end.unwrap_or(at + 1);
                    return Some(Name { labels, end });
                }
                1..=63 => {
                    let to = at + 1 + len;
                    self.was.get(at + 1..to)?;
                    labels.push((at + 1, to));
                    at = to;
                }
                0xc0.. => {
                    let low = usize::from(*self.was.get(at + 1)?);
                    end.get_or_insert(at + 2);
                    let to = (len & 0x3f) << 8 | low;
                    pointers += 1;
                    // Only what came before was read, and only what was read may be rewritten.
                    if to >= at || to < HEADER || pointers > POINTERS {
                        return None;
                    }
                    at = to;
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::message::{Peek, whole};

    const BOTH: Redact = Redact {
        names: true,
        addresses: true,
    };

    fn wire(name: &str) -> Vec<u8> {
        let mut wire = Vec::new();
        for label in name.split('.') {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        wire
    }

    /// A message with that question, and answers of a type and data each, owned by its name.
    fn message(name: &str, answers: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let count = u8::try_from(answers.len()).unwrap();
        let mut bytes = vec![0xab, 0xcd, 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
        bytes.extend(wire(name));
        bytes.extend([0, 1, 0, 1]);
        for (kind, data) in answers {
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 30]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }

    fn redacted(what: Redact, mut bytes: Vec<u8>) -> Vec<u8> {
        Redactor::new(what, b"secret").message(&mut bytes);
        bytes
    }

    fn question(bytes: &[u8]) -> String {
        Peek::parse(bytes, bytes.len()).unwrap().name(bytes)
    }

    #[test]
    fn a_message_stays_one_and_names_and_addresses_in_it_go() {
        let target = [&[0, 5][..], &wire("mail.shop.example")].concat();
        let before = message(
            "web.shop.svc.cluster.local",
            &[
                (5, wire("alias.example")),
                (1, vec![203, 0, 113, 7]),
                (15, target),
                (16, b"\x05shop!".to_vec()),
            ],
        );
        let after = redacted(BOTH, before.clone());
        assert_eq!(after.len(), before.len());
        assert!(whole(&after).is_ok());
        let name = question(&after);
        assert!(name.ends_with(".svc.cluster.local"), "{name}");
        for secret in ["web", "shop", "alias", "mail", "example"] {
            let has = |bytes: &[u8]| {
                let mut parts = bytes.windows(secret.len());
                parts.any(|part| part == secret.as_bytes())
            };
            assert!(has(&before) && !has(&after), "{secret}");
        }
        let address = [203, 0, 113, 7];
        assert!(!after.windows(4).any(|part| part == address));
        let mut redactor = Redactor::new(BOTH, b"secret");
        let IpAddr::V4(other) = redactor.addresses.ip(address.into()) else {
            panic!("it is of the same family")
        };
        assert!(after.windows(4).any(|part| part == other.octets()));
    }

    #[test]
    fn a_reversed_address_is_that_which_the_address_becomes() {
        let what = Redact {
            names: false,
            addresses: true,
        };
        let mut redactor = Redactor::new(what, b"secret");
        let check = |redactor: &mut Redactor, ip: &str, name: &str| {
            let other = redactor.addresses.ip(ip.parse().unwrap());
            let expected = match other {
                IpAddr::V4(ip) => {
                    let [a, b, c, d] = ip.octets();
                    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
                }
                IpAddr::V6(ip) => {
                    let nibbles =
                        (0..32).map(|at| format!("{:x}.", ip.to_bits() >> (4 * at) & 0xf));
                    nibbles.collect::<String>() + "ip6.arpa"
                }
            };
            assert_eq!(question(&redacted(what, message(name, &[]))), expected);
        };
        check(&mut redactor, "10.96.0.10", "10.0.96.10.in-addr.arpa");
        check(
            &mut redactor,
            "2001:db8::35",
            "5.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
        );
        let other = redactor.addresses.ip("10.244.1.7".parse().unwrap());
        let spelt = format!(
            "{}.ns.pod.cluster.local",
            other.to_string().replace('.', "-")
        );
        let after = redacted(what, message("10-244-1-7.ns.pod.cluster.local", &[]));
        assert_eq!(question(&after), spelt);
    }

    #[test]
    fn a_client_subnet_is_replaced_as_far_as_it_is_told() {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        bytes.extend(wire("a.example"));
        bytes.extend([0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11]);
        bytes.extend([0, 8, 0, 7, 0, 1, 20, 0, 198, 51, 96]);
        let after = redacted(BOTH, bytes.clone());
        let [.., first, second, third] = after[..] else {
            panic!("it is as long as before")
        };
        let mut redactor = Redactor::new(BOTH, b"secret");
        let IpAddr::V4(other) = redactor.addresses.ip([198, 51, 96, 0].into()) else {
            panic!("it is of the same family")
        };
        let [a, b, c, _] = other.octets();
        assert_eq!([first, second, third], [a, b, c & 0xf0]);
        assert_eq!(
            after[..bytes.len() - 3][bytes.len() - 14..],
            bytes[..bytes.len() - 3][bytes.len() - 14..]
        );
    }

    #[test]
    fn whatever_a_message_says_and_wherever_it_ends_nothing_of_it_is_left() {
        let before = message(
            "secret.example",
            &[(5, wire("secret.example")), (99, b"secret".to_vec())],
        );
        for len in 0..before.len() {
            let after = redacted(BOTH, before[..len].to_vec());
            assert_eq!(after.len(), len);
            assert!(!after.windows(6).any(|part| part == b"secret"), "{len}");
        }
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/dns");
        let files = std::fs::read_dir(corpus).unwrap().flatten();
        let lens = files.map(|file| {
            let before = std::fs::read(file.path()).unwrap();
            let after = redacted(BOTH, before.clone());
            assert_eq!(after.len(), before.len(), "{file:?}");
        });
        assert!(lens.count() > 40);
    }
}
