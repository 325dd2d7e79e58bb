//! Claims about reading messages, `domain` being the second opinion.

use std::time::Duration;

use domain::base::{Message, Name, ToName as _};

use super::{
    corpus::{Xorshift, file, files, wire},
    *,
};

const IN_A: &[u8] = b"\0\x01\0\x01";

/// Reads one question (name and IN A) behind a fresh header: text or fault.
fn check(name: &[u8], expected: Result<&str, Malformed>) {
    let message = wire(0x0100, [1, 0, 0, 0], &[name]);
    let told = Peek::parse(&message, message.len()).map(|peek| peek.name(&message));
    assert_eq!(told, expected.map(str::to_owned), "{}", name.escape_ascii());
}

fn asked(name: &[u8]) -> QuestionKey {
    let message = wire(0, [1, 0, 0, 0], &[name, IN_A]);
    Peek::parse(&message, message.len())
        .unwrap()
        .question
        .unwrap()
}

#[test]
fn name_is_spelled_as_in_a_zone_file() {
    check(b"\x03WwW\x07example\0\0\x01\0\x01", Ok("WwW.example"));
    check(b"\0\0\x02\0\x01", Ok("."));
    check(b"\x07a.b\\\x00;@\0\0\x01\0\x01", Ok(r"a\.b\\\000\;\@"));
    check(b"\x04\xc3\xa9 \x1b\0\0\x01\0\x01", Ok(r"\195\169\032\027"));
}

#[test]
fn unreadable_question_is_named_by_its_fault() {
    let long = [b"\x3e".as_slice(), &[b'a'; 62]].concat();
    check(b"", Err(Malformed::Overrun));
    check(b"\x01a\0\0\x01\0", Err(Malformed::Overrun));
    check(b"\x3fabc", Err(Malformed::Overrun));
    check(b"\x40a\0\0\x01\0\x01", Err(Malformed::LabelType));
    check(b"\xbfa\0\0\x01\0\x01", Err(Malformed::LabelType));
    check(
        &[&long.repeat(4)[..], b"\x02ab\0\0\x01\0\x01"].concat(),
        Err(Malformed::NameTooLong),
    );
    check(b"\xc0\x0c\0\x01\0\x01", Err(Malformed::PointerForward));
    check(b"\xff\xff\0\x01\0\x01", Err(Malformed::PointerForward));
    check(b"\x01a\xc0\x0c\0\x01\0\x01", Err(Malformed::PointerLoop));
    check(b"\x01a\xc0", Err(Malformed::Overrun));
}

#[test]
fn message_shorter_than_a_header_is_short_and_a_capture_shorter_than_one_is_cut() {
    assert_eq!(Peek::parse(&[0; 11], 11), Err(Malformed::Short));
    assert_eq!(Peek::parse(&[0; 5], 11), Err(Malformed::Short));
    assert_eq!(Peek::parse(&[0; 5], 40), Err(Malformed::Cut));
}

#[test]
fn every_cut_inside_the_question_is_a_cut_and_behind_it_none() {
    let message = file("answer-cname-chain.bin");
    for cut in 0..message.len() {
        let peek = Peek::parse(&message[..cut], message.len());
        assert_eq!(peek.err(), (cut < 29).then_some(Malformed::Cut), "{cut}");
    }
}

#[test]
fn pointer_before_the_name_is_followed() {
    let message = file("odd-pointer-into-header.bin");
    let peek = Peek::parse(&message, message.len()).unwrap();
    assert_eq!((peek.name(&message).as_str(), peek.name_len), ("a", 4));
    assert_eq!(peek.question.unwrap(), asked(b"\x01a\0"));
}

#[test]
fn letter_case_does_not_change_the_question_but_any_other_byte_does() {
    let mut random = Xorshift(7);
    for len in 1..=63 {
        let mut name = [
            vec![len],
            (0..len)
                .map(|_| u8::try_from(random.below(256)).unwrap())
                .collect(),
            vec![0],
        ]
        .concat();
        let key = asked(&name);
        let at = 1 + random.below(usize::from(len));
        let old = name[at];
        for new in 0..=255 {
            name[at] = new;
            assert_eq!(
                asked(&name) == key,
                new.eq_ignore_ascii_case(&old),
                "{old} {new} at {at} of {len}"
            );
        }
    }
}

#[test]
fn type_and_class_belong_to_the_question() {
    let key = |tail: &[u8]| {
        let message = wire(0, [1, 0, 0, 0], &[b"\x01a\0", tail]);
        Peek::parse(&message, message.len())
            .unwrap()
            .question
            .unwrap()
    };
    assert_ne!(key(b"\0\x01\0\x01"), key(b"\0\x1c\0\x01"));
    assert_ne!(key(b"\0\x01\0\x01"), key(b"\0\x01\0\x03"));
    assert_eq!(key(b"\0\x01\0\x01").name, key(b"\0\x1c\0\x01").name);
}

#[test]
fn header_fields_are_where_rfc_1035_puts_them() {
    let message = file("answer-truncated.bin");
    let peek = Peek::parse(&message, message.len()).unwrap();
    assert_eq!(
        (peek.id, peek.is_response, peek.opcode, peek.tc, peek.rcode),
        (0x1234, true, 0, true, 0)
    );
    let message = file("update.bin");
    let peek = Peek::parse(&message, message.len()).unwrap();
    assert_eq!(
        (peek.is_response, peek.opcode, peek.multi_question()),
        (false, 5, false)
    );
    let message = file("query-two-questions.bin");
    assert!(
        Peek::parse(&message, message.len())
            .unwrap()
            .multi_question()
    );
}

#[test]
fn message_without_a_question_has_none_and_no_name() {
    let message = file("answer-formerr-no-question.bin");
    let peek = Peek::parse(&message, message.len()).unwrap();
    assert_eq!(
        (peek.question, peek.name(&message).as_str(), peek.rcode),
        (None, "", 1)
    );
}

#[test]
fn opt_record_adds_the_upper_bits_of_the_rcode() {
    let rcode = |name| edns(&file(name)).map(|edns| edns.rcode);
    assert_eq!(rcode("answer-badvers.bin"), Some(16));
    assert_eq!(rcode("answer-nxdomain.bin"), Some(3));
    assert_eq!(rcode("answer-servfail.bin"), None);
    assert_eq!(rcode("bad-counts-lie.bin"), None);
    assert_eq!(edns(&file("query-edns.bin")).unwrap().udp_size, 1232);
}

#[test]
fn whole_message_tells_addresses_chain_and_least_ttl() {
    let expected = Whole {
        answers: 4,
        addresses: 2,
        first_address: Some([192, 0, 2, 1].into()),
        cnames: 2,
        min_ttl: Some(Duration::from_secs(30)),
        edns: Some(Edns {
            rcode: 0,
            udp_size: 1232,
        }),
    };
    assert_eq!(whole(&file("answer-cname-chain.bin")), Ok(expected));
    let nodata = whole(&file("answer-nodata.bin")).unwrap();
    assert_eq!(
        (nodata.answers, nodata.min_ttl, nodata.first_address),
        (0, None, None)
    );
    let told = whole(&file("answer-cname-of-another.bin")).unwrap();
    assert_eq!((told.answers, told.cnames), (1, 0));
    let told = whole(&file("answer-aaaa.bin")).unwrap();
    assert_eq!(told.first_address, "2001:db8::1".parse().ok());
}

#[test]
fn corpus_files_named_bad_are_refused_and_the_others_read_to_the_end() {
    for (name, message) in files().iter().filter(|(name, _)| !name.starts_with("tcp-")) {
        assert_eq!(
            whole(message).is_err(),
            name.starts_with("bad-"),
            "{name}: {:?}",
            whole(message)
        );
    }
}

/// Peeks, and claims that `domain` reads the same or that both refuse.
fn agree_with_domain(message: &[u8]) {
    let told = Peek::parse(message, message.len());
    let Ok(theirs) = Message::from_slice(message) else {
        return assert_eq!(told, Err(Malformed::Short));
    };
    let (header, counts) = (theirs.header(), theirs.header_counts());
    let question = (counts.qdcount() > 0)
        .then(|| theirs.question().next().unwrap())
        .transpose();
    let peek = match (told, &question) {
        (Ok(peek), Ok(_)) => peek,
        // Stricter than `domain`: a pointer into the middle of the labels before it.
        (Err(_), Err(_)) | (Err(Malformed::PointerLoop), _) => return,
        _ => panic!("{told:?} but {question:?}: {}", message.escape_ascii()),
    };
    assert_eq!(
        (peek.id, peek.is_response, peek.tc),
        (header.id(), header.qr(), header.tc())
    );
    assert_eq!(
        (peek.opcode, peek.rcode),
        (header.opcode().to_int(), header.rcode().to_int())
    );
    let Counts {
        questions,
        answers,
        authorities,
        additionals,
    } = peek.counts;
    assert_eq!((questions, answers), (counts.qdcount(), counts.ancount()));
    assert_eq!(
        (authorities, additionals),
        (counts.nscount(), counts.arcount())
    );
    let question = question.unwrap();
    assert_eq!(peek.question.is_some(), question.is_some());
    if let (Some(key), Some(question)) = (peek.question, question) {
        assert_eq!(
            (key.qtype, key.qclass),
            (question.qtype().to_int(), question.qclass().to_int())
        );
        let text = peek.name(message);
        let ours: Name<Vec<u8>> = text.parse().unwrap();
        assert!(
            ours.name_eq(question.qname()),
            "{text} {}",
            question.qname()
        );
        let flat = question.qname().to_vec().to_canonical_name::<Vec<u8>>();
        assert_eq!(key.name, asked(flat.as_slice()).name);
    }
}

#[test]
fn random_valid_messages_read_as_domain_reads_them() {
    let mut random = Xorshift(0x5eed);
    for _ in 0..10_000 {
        let message = random.message();
        assert!(Peek::parse(&message, message.len()).is_ok() && whole(&message).is_ok());
        agree_with_domain(&message);
    }
}

#[test]
fn every_prefix_of_every_corpus_file_reads_as_domain_reads_it() {
    for (_, bytes) in files() {
        (0..=bytes.len()).for_each(|end| agree_with_domain(&bytes[..end]));
    }
}

#[test]
fn capture_in_part_tells_what_the_whole_tells_or_that_it_is_cut() {
    for (name, bytes) in files() {
        let whole = Peek::parse(&bytes, bytes.len());
        for end in 0..bytes.len() {
            let part = Peek::parse(&bytes[..end], bytes.len());
            let cut = part == Err(Malformed::Cut) || part == Err(Malformed::Short);
            assert!(part == whole || cut, "{name} cut at {end}: {part:?}");
        }
    }
}

#[test]
fn damaged_messages_read_as_domain_reads_them_and_never_panic() {
    let (files, mut random) = (files(), Xorshift(0xda_3a6e));
    for _ in 0..100_000 {
        let mut message = files[random.below(files.len())].1.clone();
        message.truncate(600);
        random.damage(&mut message);
        agree_with_domain(&message);
        let _ = (whole(&message), edns(&message));
        let _ = Peek::parse(&message, message.len() + random.below(3));
    }
}
