//! How each file of tests/data/dns is made, byte by byte, so that a reader sees what is odd about it.

/// A message's wire form: flags, four counts, then `body`; id 0x1234.
pub(in crate::correlate) fn wire(flags: u16, counts: [u16; 4], body: &[&[u8]]) -> Vec<u8> {
    let words = [0x1234, flags].into_iter().chain(counts);
    words
        .flat_map(u16::to_be_bytes)
        .chain(body.concat())
        .collect()
}

fn framed(messages: &[&[u8]]) -> Vec<u8> {
    let prefix = |message: &[u8]| u16::try_from(message.len()).unwrap().to_be_bytes();
    messages
        .iter()
        .flat_map(|message| [&prefix(message)[..], message].concat())
        .collect()
}

const QUESTION: &[u8] = b"\x03www\x07example\0\0\x01\0\x01";
/// OPT: root, type 41, UDP size 1232, then upper rcode, version, flags, no options.
const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
const BADVERS: &[u8] = b"\0\0\x29\x04\xd0\x01\0\0\0\0\0";
/// www.example -> cdn.example -> edge.example -> two addresses; each owner is a pointer, each target ends in one.
const CHAIN: &[&[u8]] = &[
    QUESTION,
    b"\xc0\x0c\0\x05\0\x01\0\0\x01\x2c\0\x06\x03cdn\xc0\x10",
    b"\xc0\x29\0\x05\0\x01\0\0\0\x3c\0\x07\x04edge\xc0\x10",
    b"\xc0\x3b\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x01",
    b"\xc0\x3b\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x02",
];
/// A CNAME of example, which nobody asked for.
const ANOTHER: &[u8] = b"\xc0\x10\0\x05\0\x01\0\0\x01\x2c\0\x06\x03cdn\xc0\x10";
const SOA: &[u8] = b"\xc0\x10\0\x06\0\x01\0\0\0\x1e\0\x16\xc0\x10\xc0\x10\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0";
const AAAA: &[u8] =
    b"\xc0\x0c\0\x1c\0\x01\0\0\0\x05\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";

/// A name of `labels` labels of `len` bytes, root included.
fn long_name(labels: usize, len: u8) -> Vec<u8> {
    let label = [vec![len], vec![b'x'; usize::from(len)]].concat();
    [label.repeat(labels), vec![0]].concat()
}

pub(super) fn valid() -> Vec<(&'static str, Vec<u8>)> {
    let mixed: &[u8] = b"\x03wWw\x07eXaMpLe\0\0\x01\0\x01";
    let longest = [&long_name(3, 63)[..192], &long_name(1, 61)].concat();
    vec![
        ("query", wire(0x0100, [1, 0, 0, 0], &[QUESTION])),
        ("query-0x20", wire(0x0100, [1, 0, 0, 0], &[mixed])),
        ("query-edns", wire(0x0100, [1, 0, 0, 1], &[QUESTION, OPT])),
        (
            "query-root",
            wire(0x0100, [1, 0, 0, 0], &[b"\0\0\x02\0\x01"]),
        ),
        (
            "query-https",
            wire(0x0100, [1, 0, 0, 0], &[b"\x07example\0\0\x41\0\x01"]),
        ),
        (
            "query-odd-labels",
            wire(
                0x0100,
                [1, 0, 0, 0],
                &[b"\x05a.b\\\x00\x02\xc3\xa9\x03 \x1b;\0\0\x01\0\x01"],
            ),
        ),
        (
            "query-longest-name",
            wire(0x0100, [1, 0, 0, 0], &[&longest, b"\0\x01\0\x01"]),
        ),
        (
            "query-two-questions",
            wire(0x0100, [2, 0, 0, 0], &[QUESTION, b"\xc0\x0c\0\x1c\0\x01"]),
        ),
        (
            "update",
            wire(0x2800, [1, 0, 0, 0], &[b"\x07example\0\0\x06\0\x01"]),
        ),
        (
            "dso-keepalive",
            wire(
                0x3000,
                [0, 0, 0, 0],
                &[b"\0\x01\0\x08\0\0\x3a\x98\0\0\x3a\x98"],
            ),
        ),
        (
            "answer-cname-chain",
            wire(0x8180, [1, 4, 0, 1], &[&CHAIN.concat(), OPT]),
        ),
        (
            "answer-cname-of-another",
            wire(0x8180, [1, 1, 0, 0], &[QUESTION, ANOTHER]),
        ),
        ("answer-aaaa", wire(0x8180, [1, 1, 0, 0], &[QUESTION, AAAA])),
        (
            "answer-nodata",
            wire(0x8180, [1, 0, 1, 0], &[QUESTION, SOA]),
        ),
        (
            "answer-nxdomain",
            wire(0x8183, [1, 0, 1, 1], &[QUESTION, SOA, OPT]),
        ),
        ("answer-servfail", wire(0x8182, [1, 0, 0, 0], &[QUESTION])),
        ("answer-truncated", wire(0x8380, [1, 0, 0, 0], &[QUESTION])),
        (
            "answer-badvers",
            wire(0x8000, [1, 0, 0, 1], &[QUESTION, BADVERS]),
        ),
        (
            "answer-formerr-no-question",
            wire(0x8001, [0, 0, 0, 0], &[]),
        ),
    ]
}

pub(super) fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let query = |body: &[&[u8]]| wire(0x0100, [1, 0, 0, 0], body);
    vec![
        ("bad-empty", Vec::new()),
        ("bad-short", vec![0x12, 0x34, 1, 0, 0]),
        ("bad-no-question", query(&[])),
        ("bad-no-class", query(&[b"\x01a\0\0\x01\0"])),
        ("bad-label-over-end", query(&[b"\x3fabc"])),
        ("bad-label-type-01", query(&[b"\x41a\0\0\x01\0\x01"])),
        ("bad-label-type-10", query(&[b"\x81a\0\0\x01\0\x01"])),
        (
            "bad-name-256",
            query(&[&long_name(3, 63)[..192], &long_name(1, 62), b"\0\x01\0\x01"]),
        ),
        (
            "bad-name-endless",
            query(&[&long_name(300, 1), b"\0\x01\0\x01"]),
        ),
        ("bad-pointer-self", query(&[b"\xc0\x0c\0\x01\0\x01"])),
        ("bad-pointer-loop", query(&[b"\x01a\xc0\x0c\0\x01\0\x01"])),
        (
            "bad-pointer-forward",
            query(&[b"\xc0\x12\0\x01\0\x01\x01a\0"]),
        ),
        ("bad-pointer-far", query(&[b"\xff\xff\0\x01\0\x01"])),
        ("bad-pointer-half", query(&[b"\x01a\xc0"])),
        (
            "odd-pointer-into-header",
            query(&[b"\x01a\xc0\x04\0\x01\0\x01"]),
        ),
        (
            "bad-counts-lie",
            wire(0x8180, [1, 0xffff, 0xffff, 0xffff], &[QUESTION, AAAA]),
        ),
        (
            "bad-questions-lie",
            wire(0x0100, [0xffff, 0, 0, 0], &[QUESTION]),
        ),
        (
            "bad-rdata-over-end",
            wire(
                0x8180,
                [1, 1, 0, 0],
                &[QUESTION, b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\xff\xff\xc0"],
            ),
        ),
        (
            "bad-a-of-three-bytes",
            wire(
                0x8180,
                [1, 1, 0, 0],
                &[QUESTION, b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x03\xc0\0\x02"],
            ),
        ),
        (
            "bad-cname-loop",
            wire(
                0x8180,
                [1, 1, 0, 0],
                &[QUESTION, b"\xc0\x0c\0\x05\0\x01\0\0\0\x05\0\x02\xc0\x29"],
            ),
        ),
        (
            "bad-pointer-chain",
            wire(
                0x8180,
                [1, 1, 0, 0],
                &[QUESTION, b"\xc0\x0c".repeat(400).as_slice()],
            ),
        ),
    ]
}

pub(super) fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let [query, https, chain, nxdomain] = [
        "query",
        "query-https",
        "answer-cname-chain",
        "answer-nxdomain",
    ]
    .map(|wanted| {
        valid()
            .into_iter()
            .find(|(name, _)| *name == wanted)
            .unwrap()
            .1
    });
    let big = wire(0x8180, [1, 0, 0, 0], &[QUESTION, &[0; 9000]]);
    vec![
        ("tcp-one", framed(&[&query])),
        ("tcp-pipelined", framed(&[&query, &https, &query, &https])),
        ("tcp-answers", framed(&[&chain, &nxdomain, &big, &chain])),
        ("tcp-empty-messages", framed(&[&[], &query, &[], &[0]])),
        ("tcp-length-64k", [&[0xff, 0xff], &query[..]].concat()),
        (
            "tcp-length-lies",
            [&[0, 5], &query[..], &framed(&[&query])].concat(),
        ),
        (
            "tcp-http",
            b"GET / HTTP/1.1\r\nHost: 192.0.2.1:53\r\n\r\n".to_vec(),
        ),
        ("tcp-half-length", vec![0]),
    ]
}
