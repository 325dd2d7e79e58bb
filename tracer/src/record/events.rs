//! The table `events`: its columns. `super::encode` makes rows of events, `super::decode` events of
//! rows.

use super::column::{Blob, Flag, Ip, Time, U8, U16, U32, U64, Word, table};

/// Words of the column `kind`.
pub(super) mod kind {
    pub(in crate::record) const PACKET: &str = "packet";
    pub(in crate::record) const SOCKET: &str = "socket";
    pub(in crate::record) const SOCKET_IO: &str = "socket_io";
    pub(in crate::record) const TICK: &str = "tick";
    pub(in crate::record) const LOSS: &str = "loss";
    pub(in crate::record) const SYMBOL: &str = "symbol";
    pub(in crate::record) const ENDS: &str = "ends";
    pub(in crate::record) const DEVICE: &str = "device";
    pub(in crate::record) const INSERT: &str = "insert";
    pub(in crate::record) const COUNTED: &str = "counted";
    pub(in crate::record) const CONNTRACK: &str = "conntrack";
    pub(in crate::record) const OBJECT: &str = "object";
}

table! {
    /// Events, one a row, in order. A column is null where an event has nothing to say.
    Events, EventsRead {
        /// place in the stream, from 0; null where an earlier event is repeated
        seq: U64,
        /// `packet`, `socket`, `socket_io`, `insert`, `counted`, `conntrack`, `object`, `ends`, `device`, `symbol`, `loss` or `tick`
        kind: Word,
        /// by the wall clock; of `ends`, from when on they are so called; of `object`, when it was learnt
        time: Time,
        /// nanoseconds since boot, suspend excluded
        ktime_ns: U64,
        /// packet: `queued`, `received`, `dropped` or `refused`; socket: `connecting`, `established`, `failed` or `retransmitted`; socket_io: `delivered`, `read`, `sent`, `full` or `failed`; insert: `clash_resolved`, `clash_dropped` or `table_full`; object: `listing`, `listed`, `set`, `gone`, `lost` or `heard`
        what: Word,
        /// inode of the network namespace
        netns: U32,
        /// index of the device in it
        ifindex: U32,
        /// address of the packet's `sk_buff`: an identity while it lives; of a delivery, the last one in the queue
        skb: U64,
        /// source address; of a socket its own; of `ends` the client's
        src_ip: Ip,
        /// source port
        src_port: U16,
        /// destination address; of `ends` the one asked
        dst_ip: Ip,
        /// destination port
        dst_port: U16,
        /// `udp`, `tcp`, `icmp_error` or `later_fragment`
        transport: Word,
        /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16
        tcp_flags: U8,
        /// sequence number
        tcp_seq: U32,
        /// acknowledgement number
        tcp_ack: U32,
        /// of an ICMP error
        icmp_type: U8,
        /// of an ICMP error
        icmp_code: U8,
        /// of the ICMP error with which a packet was refused
        refused_type: U8,
        /// of the ICMP error with which a packet was refused
        refused_code: U8,
        /// `enum skb_drop_reason`, by number; names are in the file's metadata
        drop_reason: U32,
        /// address of the kernel code that dropped the packet
        location: U64,
        /// where on IP's path it was dropped
        hook: Word,
        /// conntrack, original direction
        ct_original_src_ip: Ip,
        /// conntrack, original direction
        ct_original_src_port: U16,
        /// conntrack, original direction
        ct_original_dst_ip: Ip,
        /// conntrack, original direction
        ct_original_dst_port: U16,
        /// conntrack, reply direction
        ct_reply_src_ip: Ip,
        /// conntrack, reply direction
        ct_reply_src_port: U16,
        /// conntrack, reply direction
        ct_reply_dst_ip: Ip,
        /// conntrack, reply direction
        ct_reply_dst_port: U16,
        /// conntrack zone
        ct_zone: U16,
        /// of a clash, the entry in the way, original direction
        ct_other_original_src_ip: Ip,
        /// of a clash, the entry in the way, original direction
        ct_other_original_src_port: U16,
        /// of a clash, the entry in the way, original direction
        ct_other_original_dst_ip: Ip,
        /// of a clash, the entry in the way, original direction
        ct_other_original_dst_port: U16,
        /// of a clash, the entry in the way, reply direction
        ct_other_reply_src_ip: Ip,
        /// of a clash, the entry in the way, reply direction
        ct_other_reply_src_port: U16,
        /// of a clash, the entry in the way, reply direction
        ct_other_reply_dst_ip: Ip,
        /// of a clash, the entry in the way, reply direction
        ct_other_reply_dst_port: U16,
        /// of a clash, zone of the entry in the way
        ct_other_zone: U16,
        /// counted by conntrack since the last look; of `conntrack`, since the first: packets that no entry can be made of
        ct_invalid: U64,
        /// counted by conntrack since the last look; of `conntrack`, since the first: packets dropped because their entry could not be inserted
        ct_insert_failed: U64,
        /// counted by conntrack since the last look; of `conntrack`, since the first: packets dropped for want of room
        ct_drop: U64,
        /// counted by conntrack since the last look; of `conntrack`, since the first: entries thrown out to make room
        ct_early_drop: U64,
        /// counted by conntrack since the last look; of `conntrack`, since the first: clashes that the kernel resolved
        ct_clash_resolve: U64,
        /// counted by conntrack since the last look; of `conntrack`, since the first: packets dropped because too many entries share a bucket
        ct_chaintoolong: U64,
        /// nanoseconds since boot of the look before
        ct_since_ns: U64,
        /// entries in the table
        ct_entries: U64,
        /// most it may hold
        ct_max: U64,
        /// process that sends or reads
        pid: U32,
        /// thread that reads or sends
        tid: U32,
        /// name of that thread
        comm: Word,
        /// cgroup v2 id of the socket
        cgroup: U64,
        /// address of the `sock`: an identity while it lives
        sock: U64,
        /// captured bytes from the network header to the payload; null where they were not captured
        headers: Blob,
        /// captured bytes of the transport's payload
        payload: Blob,
        /// bytes of payload that the packet has
        payload_len: U32,
        /// part of the payload could not be read
        unreadable: Flag,
        /// `vxlan`, `geneve`, `gre`, `ipip` or `sleeve`: what carries the packet
        tunnel: Word,
        /// the node that sends
        tunnel_src_ip: Ip,
        /// the node it is for
        tunnel_dst_ip: Ip,
        /// network identifier or key
        tunnel_network: U32,
        /// datagrams in the socket's queue
        queued: U64,
        /// bytes read or sent
        bytes: U32,
        /// error that the application gets
        errno: U32,
        /// records lost: no room in the kernel's buffers
        lost_ring_full: U64,
        /// packets lost: a program met itself
        lost_skipped: U64,
        /// packets lost: headers out of reach
        lost_unreadable: U64,
        /// records lost: not understood
        lost_undecodable: U64,
        /// of a symbol, function and offset; of a network namespace, its name; of an object, its kind as kubectl calls it
        name: Word,
        /// name of the device
        device: Word,
        /// what the API server said of it, trimmed, as JSON
        object: Word,
        /// the client's container
        container: Word,
        /// namespace of the client's pod
        pod_namespace: Word,
        /// the client's pod
        pod: Word,
        /// uid of the client's pod
        pod_uid: Word,
        /// who says so, on the node itself: `runtime`, `kubelet` or `cni`
        pod_source: Word,
        /// how long ago, in nanoseconds
        pod_age_ns: U64,
        /// uid, or hash, of the client's pod in the path of its cgroup
        cgroup_pod_uid: Word,
        /// namespace of the pod whose own address was asked
        asked_pod_namespace: Word,
        /// that pod
        asked_pod: Word,
        /// uid of that pod
        asked_pod_uid: Word,
        /// who says so
        asked_pod_source: Word,
        /// how long ago, in nanoseconds
        asked_pod_age_ns: U64,
        /// address of the backend
        backend_ip: Ip,
        /// port of the backend
        backend_port: U16,
        /// namespace of the backend's pod
        backend_pod_namespace: Word,
        /// the backend's pod
        backend_pod: Word,
        /// uid of the backend's pod
        backend_pod_uid: Word,
        /// who says so
        backend_pod_source: Word,
        /// how long ago, in nanoseconds
        backend_pod_age_ns: U64,
        /// the rule of the node that turned the packet away
        rule: Word,
        /// which process of the server did not run, and why
        held: Word,
    }
}
