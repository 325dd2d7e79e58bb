//! Claims about the table of streams.

use super::{super::BUFFER_LIMIT, *};

/// Pushes one segment at a place behind `isn` 0 and counts the messages.
fn push_to(streams: &mut Streams<u8>, key: u8, ktime_ns: u64, at: u32, captured: &[u8]) -> usize {
    let mut told = 0;
    streams.push(
        &key,
        ktime_ns,
        1 + at,
        captured,
        captured.len(),
        &mut |_| told += 1,
    );
    told
}

#[test]
fn full_table_drops_the_longest_silent_stream() {
    let mut streams = Streams::new(2, BUFFER_LIMIT);
    (1..=2).for_each(|key| streams.open(&key, 0, key.into(), &mut |_| ()));
    assert_eq!(push_to(&mut streams, 1, 3, 0, b"\0\x02a"), 0);
    streams.open(&3, 0, 4, &mut |_| ());
    assert_eq!((streams.evicted(), streams.len()), (1, 2));
    assert_eq!(push_to(&mut streams, 1, 5, 3, b"b"), 1);
}

#[test]
fn table_drops_streams_when_they_buffer_too_much_together() {
    let mut streams = Streams::new(100, 1000);
    for key in 0..100 {
        streams.open(&key, 0, key.into(), &mut |_| ());
        push_to(&mut streams, key, key.into(), 0, &[0x7f; 302]);
    }
    assert_eq!(
        (streams.len(), streams.evicted(), streams.buffered()),
        (3, 97, 900)
    );
}

#[test]
fn repeated_syn_changes_nothing_and_a_new_one_starts_again() {
    let mut streams = Streams::new(2, BUFFER_LIMIT);
    let (mut told, open) = (0, |streams: &mut Streams<u8>, isn| {
        let mut told = 0;
        streams.open(&1, isn, 0, &mut |_| told += 1);
        told
    });
    told += open(&mut streams, 0);
    push_to(&mut streams, 1, 1, 0, b"\0\x02a");
    told += open(&mut streams, 0);
    assert_eq!((told, push_to(&mut streams, 1, 2, 3, b"b\0\x09")), (0, 1));
    assert_eq!((open(&mut streams, 77), streams.losses().cut), (1, 1));
}

#[test]
fn silent_streams_expire_and_hand_out_what_they_held() {
    let mut streams = Streams::new(9, BUFFER_LIMIT);
    for key in 1..=3 {
        streams.open(&key, 0, 0, &mut |_| ());
        push_to(&mut streams, key, u64::from(key) * 10, 0, b"\0\x02a");
    }
    let mut told = Vec::new();
    streams.expire(70, 50, &mut |key, message| {
        told.push((*key, message.captured.to_vec()));
    });
    assert_eq!(told, [(1, b"a".to_vec()), (2, b"a".to_vec())]);
    assert_eq!(
        (streams.len(), streams.evicted(), streams.buffered()),
        (1, 0, 1)
    );
}

#[test]
fn gap_holds_back_later_segments_for_a_second_at_most() {
    let mut streams = Streams::new(9, BUFFER_LIMIT);
    streams.open(&1, 0, 0, &mut |_| ());
    assert_eq!(push_to(&mut streams, 1, 0, 0, b"\0\x04a"), 0);
    assert_eq!(push_to(&mut streams, 1, 1, 4, b"bc\0\x01d"), 0);
    assert_eq!(push_to(&mut streams, 1, 1 + GAP_NS, 9, b"\0\x01e"), 0);
    assert_eq!(push_to(&mut streams, 1, 2 + GAP_NS, 12, b"\0\x01f"), 4);
}

#[test]
fn bytes_kept_are_counted_as_they_come_and_go() {
    let mut streams = Streams::new(9, BUFFER_LIMIT);
    streams.open(&1, 0, 0, &mut |_| ());
    push_to(&mut streams, 1, 0, 0, b"\0\x04a");
    push_to(&mut streams, 1, 0, 3, b"bc");
    assert_eq!(streams.buffered(), 3);
    push_to(&mut streams, 1, 0, 5, b"d");
    assert_eq!(streams.buffered(), 0);
}

#[test]
fn record_of_an_earlier_time_does_not_make_a_stream_older() {
    let mut streams = Streams::new(9, BUFFER_LIMIT);
    push_to(&mut streams, 1, 100, 0, b"x");
    push_to(&mut streams, 1, 10, 1, b"x");
    streams.expire(120, 50, &mut |_, _| ());
    assert_eq!(streams.len(), 1);
}
