//! Claims about reassembly; `0` in a segment list is the first byte behind the SYN.

use super::*;
use crate::correlate::message::corpus::{Xorshift, file, files, wire};

/// Just before the sequence numbers wrap, so that most tests cross it.
const ISN: u32 = u32::MAX - 20;

/// Messages a stream handed out, with their length on the wire.
type Told = Vec<(Vec<u8>, usize)>;

fn feed(stream: &mut Stream, isn: u32, segments: &[(u32, &[u8], usize)]) -> Told {
    let mut told = Vec::new();
    for (at, captured, original_len) in segments {
        let seq = isn.wrapping_add(1).wrapping_add(*at);
        stream.push(seq, captured, *original_len, &mut |message| {
            told.push((message.captured.to_vec(), message.original_len));
        });
    }
    told
}

/// Feeds segments (place, captured, length on the wire) behind a SYN and claims the messages that come out.
fn check(segments: &[(u32, &[u8], usize)], expected: &[(&[u8], usize)]) {
    let told = feed(&mut Stream::starting_at(ISN), ISN, segments);
    let told: Vec<_> = told
        .iter()
        .map(|(captured, len)| (captured.as_slice(), *len))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn messages_are_cut_out_wherever_segments_end() {
    check(&[(0, b"\0\x02ab\0\x01c", 7)], &[(b"ab", 2), (b"c", 1)]);
    check(
        &[
            (0, b"\0", 1),
            (1, b"\x02a", 2),
            (3, b"b\0", 2),
            (5, b"\x01c", 2),
        ],
        &[(b"ab", 2), (b"c", 1)],
    );
    check(&[(0, b"\0\0\0\x01a", 5)], &[(b"", 0), (b"a", 1)]);
    check(
        &[(0, b"", 0), (0, b"\0\x01a", 3), (2, b"", 0)],
        &[(b"a", 1)],
    );
}

#[test]
fn bytes_seen_twice_count_once() {
    check(
        &[
            (0, b"\0\x02a", 3),
            (0, b"\0\x02a", 3),
            (3, b"b", 1),
            (3, b"b", 1),
        ],
        &[(b"ab", 2)],
    );
    check(
        &[
            (0, b"\0\x02a", 3),
            (1, b"\x02ab\0\x01c", 6),
            (0, b"\0\x02ab\0\x01", 6),
        ],
        &[(b"ab", 2), (b"c", 1)],
    );
}

#[test]
fn segments_out_of_order_wait_for_the_earlier_one() {
    check(
        &[(4, b"\0\x01c", 3), (7, b"\0\x01d", 3), (0, b"\0\x02ab", 4)],
        &[(b"ab", 2), (b"c", 1), (b"d", 1)],
    );
    check(
        &[(2, b"ab\0\x01c", 5), (2, b"ab", 2), (0, b"\0\x02", 2)],
        &[(b"ab", 2), (b"c", 1)],
    );
}

#[test]
fn end_of_a_segment_not_captured_costs_the_message_in_it_only() {
    check(
        &[(0, b"\0\x06abc", 8), (8, b"\0\x01d", 3)],
        &[(b"abc", 6), (b"d", 1)],
    );
    check(
        &[(0, b"\0\x06abc", 7), (7, b"x\0\x01d", 4)],
        &[(b"abc", 6), (b"d", 1)],
    );
    check(
        &[(0, b"\0\x06", 4), (4, b"xxxx\0\x01d", 7)],
        &[(b"", 6), (b"d", 1)],
    );
    check(
        &[(0, b"\0\x06a", 4), (2, b"abcdef\0\x01g", 9)],
        &[(b"a", 6), (b"g", 1)],
    );
}

#[test]
fn hole_over_a_length_ends_the_synchronisation_until_a_segment_begins_a_message() {
    let query = file("tcp-one.bin");
    let mut stream = Stream::starting_at(ISN);
    let told = feed(
        &mut stream,
        ISN,
        &[(0, b"\0\x02ab\0", 9), (9, b"\0\x03abc", 5)],
    );
    assert_eq!(
        (told, stream.is_synchronised()),
        (vec![(b"ab".to_vec(), 2)], false)
    );
    assert_eq!(
        feed(&mut stream, ISN, &[(14, &query, query.len())]),
        [(query[2..].to_vec(), 29)]
    );
    assert_eq!(
        stream.take_losses(),
        Losses {
            unsynchronised: 1,
            ..Losses::default()
        }
    );
    assert_eq!(stream.take_losses(), Losses::default());
}

#[test]
fn joining_in_mid_stream_waits_for_what_reads_like_a_message() {
    let pipelined = file("tcp-pipelined.bin");
    let mut stream = Stream::default();
    assert_eq!(
        feed(
            &mut stream,
            ISN,
            &[(0, &pipelined[4..], 54), (54, b"GET / HTTP/1.1", 14)]
        ),
        []
    );
    assert_eq!(
        feed(&mut stream, ISN, &[(68, &pipelined, pipelined.len())]).len(),
        4
    );
    assert_eq!(stream.take_losses(), Losses::default());
}

/// Whether a stream that joins at this message takes it for one.
fn joins(flags: u16, counts: [u16; 4], question: &[u8]) -> bool {
    let message = wire(flags, counts, &[question]);
    let prefix = u16::try_from(message.len()).unwrap().to_be_bytes();
    let segment = [&prefix[..], &message].concat();
    feed(&mut Stream::default(), ISN, &[(0, &segment, segment.len())]).len() == 1
}

#[test]
fn joining_demands_one_question_of_a_known_class_and_room_for_the_records() {
    assert!(joins(0x0100, [1, 0, 0, 0], b"\0\0\x01\0\x01"));
    assert!(!joins(0x7800, [1, 0, 0, 0], b"\0\0\x01\0\x01"));
    assert!(!joins(0x0100, [0, 0, 0, 0], b"\0\0\x01\0\x01"));
    assert!(!joins(0x0100, [2, 0, 0, 0], b"\0\0\x01\0\x01"));
    assert!(!joins(0x0100, [1, 0, 0, 1], b"\0\0\x01\0\x01"));
    assert!(!joins(0x0100, [1, 0, 0, 0], b"\0\0\x01\0\x02"));
}

#[test]
fn joining_works_when_the_length_comes_in_a_segment_of_its_own() {
    let query = file("tcp-one.bin");
    let apart = [
        (0, &query[2..], 29),
        (29, &query[..2], 2),
        (31, &query[2..9], 7),
        (38, &query[9..], 22),
    ];
    assert_eq!(
        feed(&mut Stream::default(), ISN, &apart),
        [(query[2..].to_vec(), 29)]
    );
}

/// A stream that misses place 0..4 and got full messages "x" behind it, as many as `count`.
fn waiting(count: u32) -> (Stream, Told) {
    let mut stream = Stream::starting_at(ISN);
    let segments: Vec<_> = (0..count)
        .map(|n| (4 + 3 * n, b"\0\x01x".as_slice(), 3))
        .collect();
    let told = feed(&mut stream, ISN, &segments);
    (stream, told)
}

#[test]
fn gap_is_given_up_when_too_many_segments_wait() {
    let most = u32::try_from(HELD_MAX).unwrap();
    let (mut stream, told) = waiting(most);
    assert_eq!(
        (told.len(), stream.is_waiting(), stream.is_synchronised()),
        (0, true, true)
    );
    assert_eq!(stream.take_losses(), Losses::default());
    let (mut stream, _) = waiting(most + 1);
    assert!(!stream.is_waiting() && !stream.is_synchronised());
    assert_eq!(
        stream.take_losses(),
        Losses {
            gaps: 1,
            gap_bytes: 4,
            cut: 0,
            unsynchronised: 1
        }
    );
}

#[test]
fn segment_too_many_that_lies_before_those_waiting_is_still_read() {
    let mut stream = Stream::starting_at(ISN);
    let mut segments = vec![(0, b"\0\x06ab".as_slice(), 4)];
    segments.extend((0..16).map(|n| (20 + 3 * n, b"\0\x01x".as_slice(), 3)));
    assert_eq!(feed(&mut stream, ISN, &segments), []);
    let told = feed(&mut stream, ISN, &[(6, b"ef\0\x01g", 5)]);
    assert_eq!(told, [(b"ab".to_vec(), 6), (b"g".to_vec(), 1)]);
    assert!(stream.is_waiting());
}

#[test]
fn unsynchronised_stream_waits_for_no_earlier_segment() {
    let query = file("tcp-one.bin");
    let segments = [(0, b"GET".as_slice(), 3), (9, &query, query.len())];
    assert_eq!(feed(&mut Stream::default(), ISN, &segments).len(), 1);
}

#[test]
fn gap_inside_a_message_costs_its_rest_only_and_what_waited_is_late() {
    let mut stream = Stream::starting_at(ISN);
    assert_eq!(
        feed(
            &mut stream,
            ISN,
            &[(0, b"\0\x06ab", 4), (6, b"ef\0\x01g", 5)]
        ),
        []
    );
    let mut told = Vec::new();
    stream.finish(&mut |message| told.push((message.captured.to_vec(), message.late)));
    assert_eq!(told, [(b"ab".to_vec(), true), (b"g".to_vec(), true)]);
    assert_eq!(
        stream.take_losses(),
        Losses {
            gaps: 1,
            gap_bytes: 2,
            cut: 1,
            unsynchronised: 0
        }
    );
}

#[test]
fn connection_that_ends_inside_a_message_hands_out_the_half() {
    let mut stream = Stream::starting_at(ISN);
    feed(&mut stream, ISN, &[(0, b"\xff\xffab", 4)]);
    let mut told = Vec::new();
    stream.finish(&mut |message| told.push((message.captured.to_vec(), message.original_len)));
    assert_eq!(
        (told, stream.buffered()),
        (vec![(b"ab".to_vec(), 0xffff)], 0)
    );
}

#[test]
fn jump_beyond_the_window_begins_again() {
    let query = file("tcp-one.bin");
    let mut stream = Stream::starting_at(ISN);
    let told = feed(
        &mut stream,
        ISN,
        &[(0, b"\0\x06ab", 4), (WINDOW + 5, &query, query.len())],
    );
    assert_eq!(told, [(b"ab".to_vec(), 6), (query[2..].to_vec(), 29)]);
    assert_eq!(
        stream.take_losses(),
        Losses {
            gaps: 1,
            gap_bytes: 0,
            cut: 1,
            unsynchronised: 0
        }
    );
}

#[test]
fn longest_message_fits_and_segments_that_wait_share_its_room() {
    let longest = [&[0xff, 0xff], vec![7; 0xffff].as_slice()].concat();
    let segments: Vec<_> = (0..)
        .zip(longest.chunks(1000))
        .map(|(n, part)| (n * 1000, part, part.len()))
        .collect();
    check(&segments, &[(&longest[2..], 0xffff)]);
    let mut stream = Stream::starting_at(ISN);
    let part = vec![0; 30_000];
    let ahead = [70_001, 100_001].map(|at| (at, part.as_slice(), part.len()));
    feed(&mut stream, ISN, &ahead);
    assert_eq!(stream.buffered(), 60_000);
    feed(&mut stream, ISN, &segments);
    assert!(stream.buffered() <= BUFFER_LIMIT && stream.take_losses().cut == 1);
}

#[test]
fn any_segmentation_and_order_of_a_stream_gives_the_same_messages() {
    let mut random = Xorshift(0x7c9);
    for (name, bytes) in files().iter().filter(|(name, _)| name.starts_with("tcp-")) {
        let whole = feed(
            &mut Stream::starting_at(ISN),
            ISN,
            &[(0, bytes, bytes.len())],
        );
        for round in 0..400 {
            let (mut segments, mut at) = (Vec::new(), 0);
            while at < bytes.len() {
                let most = [4, 40, 400, 4000][round % 4];
                let end = bytes.len().min(at + 1 + random.below(most));
                let back = random.below(3).min(at);
                segments.push((
                    u32::try_from(at - back).unwrap(),
                    &bytes[at - back..end],
                    end - at + back,
                ));
                at = end;
            }
            // Shuffled within eights, so that fewer than HELD_MAX ever wait.
            for eight in segments.chunks_mut(8) {
                for place in 1..eight.len() {
                    eight.swap(place, random.below(place + 1));
                }
            }
            let told = feed(&mut Stream::starting_at(ISN), ISN, &segments);
            assert_eq!(told.len(), whole.len(), "{name} {round}");
            assert!(told == whole, "{name} {round}");
        }
    }
}

#[test]
fn damaged_streams_stay_within_their_bounds() {
    let (files, mut random) = (files(), Xorshift(0xbad_5eed));
    let (mut stream, mut pushed, mut delivered) = (Stream::default(), 0, 0);
    let mut at = 0_u32;
    for round in 0..100_000 {
        if round % 50 == 0 {
            stream = if round % 100 == 0 {
                Stream::default()
            } else {
                Stream::starting_at(at.wrapping_sub(1))
            };
            (pushed, delivered) = (0, 0);
        }
        let mut captured = files[random.below(files.len())].1.clone();
        random.damage(&mut captured);
        let original_len = captured.len() + [0, 0, 0, 1, 300, 70_000][random.below(6)];
        let step = [0, 0, 0, 1, 40, 5000, 1 << 20, u32::MAX - 9, 1 << 31][random.below(9)];
        pushed += captured.len();
        stream.push(
            at.wrapping_add(step),
            &captured,
            original_len,
            &mut |message| {
                assert!(
                    message.captured.len() <= message.original_len
                        && message.original_len <= 0xffff
                );
                delivered += message.captured.len();
            },
        );
        at = at.wrapping_add(u32::try_from(original_len).unwrap());
        assert!(delivered + stream.buffered() <= pushed && stream.buffered() <= BUFFER_LIMIT);
        assert!(
            stream.held.len() <= HELD_MAX
                && stream.held.is_sorted_by_key(|held| stream.ahead(held.seq))
        );
        assert!(stream.held.iter().all(|held| stream.ahead(held.seq) > 0));
    }
}
