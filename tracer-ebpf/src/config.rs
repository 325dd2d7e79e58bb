//! What user space tells the programs before load: what is wanted, and where members lie.
//!
//! Both live in `.rodata`, frozen before load, so the verifier knows every value and drops the
//! branches that cannot be taken.

/// How many DNS ports can be watched at once.
pub const DNS_PORTS: usize = 4;

/// Index of each program in the loss counters.
pub mod program {
    /// `net:net_dev_queue`
    pub const NET_DEV_QUEUE: u32 = 0;
    /// `net:netif_receive_skb`
    pub const NETIF_RECEIVE_SKB: u32 = 1;
    /// `skb:kfree_skb`
    pub const KFREE_SKB: u32 = 2;
    /// `sock:inet_sock_set_state`
    pub const INET_SOCK_SET_STATE: u32 = 3;
    /// `tcp:tcp_retransmit_skb`
    pub const TCP_RETRANSMIT_SKB: u32 = 4;
    /// `sock:sk_data_ready`
    pub const SK_DATA_READY: u32 = 5;
    /// `sock:sock_recv_length`
    pub const SOCK_RECV_LENGTH: u32 = 6;
    /// `sock:sock_send_length`
    pub const SOCK_SEND_LENGTH: u32 = 7;
    /// `udp:udp_fail_queue_rcv_skb`
    pub const UDP_FAIL_QUEUE_RCV_SKB: u32 = 8;
    /// `sock:inet_sk_error_report`
    pub const INET_SK_ERROR_REPORT: u32 = 9;
    /// `icmp:icmp_send`
    pub const ICMP_SEND: u32 = 10;
    /// `nf_ct_resolve_clash`
    pub const CONNTRACK_CLASH: u32 = 11;
    /// `early_drop` of conntrack
    pub const CONNTRACK_FULL: u32 = 12;
    /// How many there are.
    pub const COUNT: u32 = 13;
}

/// How payload in page fragments gets out: [`Config::paged`].
pub mod paged {
    /// Not at all.
    pub const NOT: u8 = 0;
    /// By `bpf_skb_output`, to a perf buffer, from BTF tracepoints alone.
    pub const PERF: u8 = 1;
    /// Read where [`Pages`](super::Pages) tells that it lies, to the ring.
    pub const READ: u8 = 2;
}

abi! {
    /// What is wanted.
    pub struct Config {
        /// Ports whose UDP and TCP payload is captured, network order; 0 is unused.
        pub dns_ports: [[u8; 2]; DNS_PORTS],
        /// 1 when TCP connections and UDP flows of other ports are wanted.
        pub connections: u8,
        /// 1 when the `VIPS` map holds prefixes.
        pub vips: u8,
        /// 1 when the second argument of `kfree_skb` is followed by a drop reason (Linux 5.17).
        pub drop_reason: u8,
        /// 1 when drops are counted by group instead of recorded one by one.
        pub drops: u8,
        /// 1 when headers are wanted as they stand, before the payload.
        pub headers: u8,
        /// One of [`paged`].
        pub paged: u8,
        /// 1 when the probes of sockets' ends are attached.
        pub paths: u8,
        /// Zero.
        pub pad: u8,
        /// Bytes in the ring at which the reader is woken before its timer.
        pub wake_at: u32,
        /// Chunks of each processor's lane, a power of two; 0 where lanes are not used.
        pub lane_chunks: u32,
    }
}

abi! {
    /// Where page fragments lie, for [`paged::READ`].
    pub struct Pages {
        /// Address of the variable that holds where `struct page` of the first page lies (`vmemmap_base`).
        pub page_array: u64,
        /// Address of the variable that holds where that page itself is mapped (`page_offset_base`).
        pub direct_map: u64,
        /// Bytes of a `struct page`.
        pub page: u32,
        /// Offset of `sk_buff.end`, which tells where `struct skb_shared_info` is.
        pub skb_end: u16,
        /// Offset of `skb_shared_info.nr_frags`.
        pub fragments: u16,
        /// Offset of `skb_shared_info.frags`.
        pub first: u16,
        /// Zero.
        pub pad: [u8; 6],
    }
}

abi! {
    /// What a program lost, by cause.
    pub struct Lost {
        /// Records for which the ring buffer had no room.
        pub ring_full: u64,
        /// Packets whose headers could not be read.
        pub unreadable: u64,
        /// Packets passed over because the program was busy with another on that processor.
        pub nested: u64,
    }
}

abi! {
    /// Byte offsets of kernel struct members, from BTF. `u16::MAX` means the kernel has none.
    pub struct Offsets {
        /// `sk_buff.dev`
        pub skb_dev: u16,
        /// `sk_buff.sk`
        pub skb_sk: u16,
        /// `sk_buff._nfct`
        pub skb_nfct: u16,
        /// `sk_buff.len`
        pub skb_len: u16,
        /// `sk_buff.data_len`
        pub skb_data_len: u16,
        /// `sk_buff.protocol`
        pub skb_protocol: u16,
        /// `sk_buff.network_header`
        pub skb_network_header: u16,
        /// `sk_buff.head`
        pub skb_head: u16,
        /// `sk_buff.data`
        pub skb_data: u16,
        /// `sk_buff._skb_refdst`
        pub skb_dst: u16,
        /// `sk_buff.skb_iif`
        pub skb_iif: u16,
        /// `dst_entry.dev`
        pub dst_dev: u16,
        /// `net_device.ifindex`
        pub dev_ifindex: u16,
        /// `net_device.nd_net`
        pub dev_net: u16,
        /// `net.ns.inum`
        pub net_inum: u16,
        /// `sock.__sk_common.skc_family`
        pub sk_family: u16,
        /// `sock.__sk_common.skc_state`
        pub sk_state: u16,
        /// `sock.__sk_common.skc_net`
        pub sk_net: u16,
        /// `sock.__sk_common.skc_daddr`
        pub sk_daddr: u16,
        /// `sock.__sk_common.skc_rcv_saddr`
        pub sk_rcv_saddr: u16,
        /// `sock.__sk_common.skc_v6_daddr`
        pub sk_v6_daddr: u16,
        /// `sock.__sk_common.skc_v6_rcv_saddr`
        pub sk_v6_rcv_saddr: u16,
        /// `sock.__sk_common.skc_dport`
        pub sk_dport: u16,
        /// `sock.__sk_common.skc_num`
        pub sk_num: u16,
        /// `sock.sk_protocol`
        pub sk_protocol: u16,
        /// `sock.sk_receive_queue.prev`: the last datagram, or the queue itself when it is empty.
        pub sk_queue_last: u16,
        /// `sock.sk_receive_queue.qlen`
        pub sk_queue_len: u16,
        /// `sock.sk_err`
        pub sk_err: u16,
        /// `socket.sk`
        pub socket_sk: u16,
        /// `udp_sock.reader_queue.qlen`: what a reader took from that queue at once, to read it
        /// one by one.
        pub udp_reader_len: u16,
        /// `nf_conn.tuplehash`
        pub ct_tuplehash: u16,
        /// `nf_conn.zone.id`
        pub ct_zone: u16,
        /// `nf_conntrack_tuple_hash.tuple`
        pub hash_tuple: u16,
        /// `nf_conntrack_tuple.src.u3`
        pub tuple_saddr: u16,
        /// `nf_conntrack_tuple.src.u`
        pub tuple_sport: u16,
        /// `nf_conntrack_tuple.src.l3num`
        pub tuple_family: u16,
        /// `nf_conntrack_tuple.dst.u3`
        pub tuple_daddr: u16,
        /// `nf_conntrack_tuple.dst.u`
        pub tuple_dport: u16,
        /// `nf_conntrack_tuple.dst.dir`
        pub tuple_dir: u16,
        /// `task_struct.tgid`; absent where programs cannot have the current task (before Linux 5.11), or where any of the
        /// members below is.
        pub task_tgid: u16,
        /// `task_struct.comm`
        pub task_comm: u16,
        /// `task_struct.cgroups`
        pub task_cgroups: u16,
        /// `css_set.dfl_cgrp`
        pub css_set_cgroup: u16,
        /// `cgroup.kn`
        pub cgroup_node: u16,
        /// `kernfs_node.id`
        pub node_id: u16,
    }
}

/// An offset the running kernel has no member for.
pub const ABSENT: u16 = u16::MAX;

impl Config {
    /// Nothing is wanted.
    pub const NONE: Self = Self {
        dns_ports: [[0; 2]; DNS_PORTS],
        connections: 0,
        vips: 0,
        drop_reason: 0,
        drops: 0,
        headers: 0,
        paged: paged::NOT,
        paths: 0,
        pad: 0,
        wake_at: 0,
        lane_chunks: 0,
    };
}

impl Pages {
    /// Nothing is known.
    pub const NONE: Self = Self {
        page_array: 0,
        direct_map: 0,
        page: 0,
        skb_end: 0,
        fragments: 0,
        first: 0,
        pad: [0; 6],
    };
}

impl Offsets {
    /// Nothing is known.
    pub const NONE: Self = Self {
        skb_dev: ABSENT,
        skb_sk: ABSENT,
        skb_nfct: ABSENT,
        skb_len: ABSENT,
        skb_data_len: ABSENT,
        skb_protocol: ABSENT,
        skb_network_header: ABSENT,
        skb_head: ABSENT,
        skb_data: ABSENT,
        skb_dst: ABSENT,
        skb_iif: ABSENT,
        dst_dev: ABSENT,
        dev_ifindex: ABSENT,
        dev_net: ABSENT,
        net_inum: ABSENT,
        sk_family: ABSENT,
        sk_state: ABSENT,
        sk_net: ABSENT,
        sk_daddr: ABSENT,
        sk_rcv_saddr: ABSENT,
        sk_v6_daddr: ABSENT,
        sk_v6_rcv_saddr: ABSENT,
        sk_dport: ABSENT,
        sk_num: ABSENT,
        sk_protocol: ABSENT,
        sk_queue_last: ABSENT,
        sk_queue_len: ABSENT,
        sk_err: ABSENT,
        socket_sk: ABSENT,
        udp_reader_len: ABSENT,
        ct_tuplehash: ABSENT,
        ct_zone: ABSENT,
        hash_tuple: ABSENT,
        tuple_saddr: ABSENT,
        tuple_sport: ABSENT,
        tuple_family: ABSENT,
        tuple_daddr: ABSENT,
        tuple_dport: ABSENT,
        tuple_dir: ABSENT,
        task_tgid: ABSENT,
        task_comm: ABSENT,
        task_cgroups: ABSENT,
        css_set_cgroup: ABSENT,
        cgroup_node: ABSENT,
        node_id: ABSENT,
    };
}
