//! Queues of sockets, written as what the kernel tells of them.

use bytes::Bytes;

use super::*;
use crate::model::{Comm, Flow, Ifindex, Place, Transport};

const SOCK: SockId = SockId(0x50);
const NETNS: NetnsInode = NetnsInode(3);

/// Sockets that follow datagrams by a letter, and what became of each.
struct Scene {
    sockets: Sockets<char>,
    now: u64,
    said: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        Self {
            sockets: Sockets::new(16),
            now: 1_000_000,
            said: Vec::new(),
        }
    }

    fn packet(&mut self, skb: u64, of: char) -> &mut Self {
        self.now += 1_000;
        let nobody = "0.0.0.0:0".parse().unwrap();
        let packet = Packet {
            ktime: KtimeNs(self.now),
            place: Place::Received,
            netns: NETNS,
            ifindex: Ifindex(2),
            skb: SkbId(skb),
            flow: Flow {
                src: nobody,
                dst: nobody,
            },
            transport: Transport::Udp,
            conntrack: None,
            sender: None,
            headers: Bytes::new(),
            payload: Bytes::new(),
            payload_len: 30,
            again: false,
            unreadable: false,
            tunnel: None,
        };
        self.sockets.arrives(&packet, of);
        self
    }

    fn io(&mut self, netns: NetnsInode, local: u16, event: IoEvent) -> &mut Self {
        self.now += 1_000;
        let io = SocketIo {
            ktime: KtimeNs(self.now),
            netns,
            sock: SOCK,
            local,
            remote: None,
            event,
        };
        let mut updates = Vec::new();
        self.sockets.io(&io, &mut updates);
        self.say(updates);
        self
    }

    fn say(&mut self, updates: Vec<(char, Update)>) {
        self.said.extend(updates.into_iter().map(|(of, update)| {
            let what = match update {
                Update::Sent(_) => "sent",
                Update::Delivery(Delivery::Queued { waits: true, .. }) => "queued",
                Update::Delivery(Delivery::Queued { waits: false, .. }) => "unknown",
                Update::Delivery(Delivery::Read { .. }) => "read",
                Update::Delivery(Delivery::Unseen) => "unseen",
            };
            format!("{of} {what}")
        }));
    }

    /// A datagram is delivered; the last of the `queued` is `skb`, 0 where there is none.
    fn delivered(&mut self, skb: u64, queued: usize) -> &mut Self {
        let last = (skb != 0).then_some(SkbId(skb));
        self.io(NETNS, 53, IoEvent::Delivered { last, queued })
    }

    fn read(&mut self, queued: usize) -> &mut Self {
        self.read_bytes(30, queued)
    }

    fn read_bytes(&mut self, bytes: u32, queued: usize) -> &mut Self {
        let by = Task {
            pid: 7,
            tid: 7,
            comm: Comm([0; 16]),
        };
        self.io(NETNS, 53, IoEvent::Read { by, bytes, queued })
    }

    #[track_caller]
    fn says(&self, expected: &[&str]) {
        assert_eq!(self.said, expected);
    }
}

#[test]
fn what_is_read_is_what_lay_first_in_the_queue() {
    let mut scene = Scene::new();
    scene
        .packet(1, 'a')
        .delivered(1, 1)
        .packet(2, 'b')
        .delivered(2, 2);
    scene.read(1).read(0);
    scene.says(&["a queued", "b queued", "a read", "b read"]);
}

#[test]
fn a_delivery_while_the_first_is_being_read_keeps_the_order() {
    let mut scene = Scene::new();
    scene.packet(1, 'a').delivered(1, 1);
    // The reader has taken `a` out; its call has not returned.
    scene.packet(2, 'b').delivered(2, 1).read(1).read(0);
    scene.says(&["a queued", "b queued", "a read", "b read"]);
}

#[test]
fn a_queue_that_was_not_seen_to_fill_is_unknown_up_to_the_datagram_delivered() {
    let mut scene = Scene::new();
    scene.packet(1, 'a').delivered(1, 3).read(2).read(1).read(0);
    scene.says(&["a queued", "a read"]);
}

#[test]
fn after_a_lost_read_nothing_is_said_of_what_was_in_the_queue() {
    let mut scene = Scene::new();
    scene.packet(1, 'a').delivered(1, 1);
    // `a` was read, and the record of it lost.
    scene.packet(2, 'b').delivered(2, 1).read(0);
    scene.says(&["a queued", "b queued", "a unknown", "b unknown"]);
    scene.said.clear();
    scene.packet(3, 'c').delivered(3, 1).read(0);
    scene.says(&["c queued", "c read"]);
}

#[test]
fn after_a_lost_delivery_only_what_came_later_is_told() {
    let mut scene = Scene::new();
    scene.packet(1, 'a').delivered(1, 1);
    scene.packet(3, 'c').delivered(3, 3).read(2).read(1).read(0);
    scene.says(&["a queued", "c queued", "a unknown", "c read"]);
}

#[test]
fn two_threads_that_read_at_once_leave_both_untold() {
    let mut scene = Scene::new();
    scene
        .packet(1, 'a')
        .delivered(1, 1)
        .packet(2, 'b')
        .delivered(2, 2);
    // Both are taken out before either call returns.
    scene.read(0).read(0);
    scene.says(&["a queued", "b queued", "a unknown", "b unknown"]);
}

#[test]
fn more_bytes_than_a_datagram_has_were_not_read_from_it() {
    let mut scene = Scene::new();
    scene.packet(1, 'a').delivered(1, 1).read_bytes(31, 0);
    scene.says(&["a queued", "a unknown"]);
}

#[test]
fn a_read_that_is_told_before_its_delivery_does_not_shift_the_next() {
    let mut scene = Scene::new();
    scene.packet(1, 'a').read(0).delivered(0, 0);
    scene.packet(2, 'b').delivered(2, 1).read(0);
    scene.says(&["b queued", "b read"]);
}

#[test]
fn two_deliveries_at_once_are_told_as_one_and_the_first_is_unknown() {
    let mut scene = Scene::new();
    scene
        .packet(1, 'a')
        .packet(2, 'b')
        .delivered(2, 2)
        .delivered(2, 2);
    scene.read(1).read(0);
    scene.says(&["b queued", "b read"]);
}

#[test]
fn an_skb_used_again_is_another_datagram() {
    let mut scene = Scene::new();
    scene
        .packet(1, 'a')
        .delivered(1, 1)
        .packet(1, 'b')
        .delivered(1, 2);
    scene.read(1).read(0);
    scene.says(&["a queued", "b queued", "a read", "b read"]);
}

#[test]
fn a_packet_that_came_long_before_is_not_what_is_delivered() {
    let mut scene = Scene::new();
    scene.packet(1, 'a');
    scene.now += 20_000_000;
    scene.delivered(1, 1).read(0);
    scene.says(&[]);
}

#[test]
fn a_socket_at_the_same_address_with_another_port_is_another() {
    let mut scene = Scene::new();
    scene.packet(1, 'a').delivered(1, 1).packet(2, 'b');
    let last = Some(SkbId(2));
    scene.io(NETNS, 54, IoEvent::Delivered { last, queued: 1 });
    scene.says(&["a queued", "a unknown", "b queued"]);
}

#[test]
fn a_call_to_send_returns_what_that_socket_was_sending() {
    let by = Task {
        pid: 7,
        tid: 7,
        comm: Comm([0; 16]),
    };
    let sent = IoEvent::Sent { by, bytes: 30 };
    let mut scene = Scene::new();
    scene.sockets.sends(SOCK, KtimeNs(scene.now), 'a');
    scene.io(NETNS, 53, sent).io(NETNS, 53, sent);
    scene.says(&["a sent"]);
    // Two threads that send by one socket.
    for of in ['b', 'c'] {
        scene.sockets.sends(SOCK, KtimeNs(scene.now), of);
    }
    scene.io(NETNS, 53, sent).io(NETNS, 53, sent);
    scene.says(&["a sent"]);
}

#[test]
fn what_is_never_read_is_given_up_in_time_and_nothing_is_left() {
    let mut scene = Scene::new();
    scene.packet(1, 'a').delivered(1, 1).packet(2, 'b');
    let mut updates = Vec::new();
    let keep = Duration::from_secs(15);
    for seconds in [3, 16] {
        let now = KtimeNs(scene.now + seconds * 1_000_000_000);
        scene.sockets.sweep(now, keep, &mut updates);
        assert_eq!(updates.len(), usize::from(seconds > 15));
    }
    assert!(scene.sockets.queues.is_empty() && scene.sockets.arrived.is_empty());
}
