//! Which kernel members the programs read, and where BTF says they are.

use tracer_ebpf::{
    config::{ABSENT, Offsets},
    record::TUPLE_HASH,
};

use super::{Error, btf::Btf};

/// Offsets of all members, for the programs and for decoding.
///
/// # Errors
/// A member that no probe can do without is missing.
pub fn of(btf: &Btf) -> Result<Offsets, Error> {
    let need = |strukt: &'static str, member: &'static str| {
        let found = btf
            .offset(strukt, member)
            .and_then(|offset| u16::try_from(offset).ok());
        found.ok_or(Error::NoMember { strukt, member })
    };
    let may = |strukt: &'static str, member: &'static str| need(strukt, member).unwrap_or(ABSENT);
    let mut offsets = Offsets {
        skb_dev: need("sk_buff", "dev")?,
        skb_sk: need("sk_buff", "sk")?,
        skb_nfct: may("sk_buff", "_nfct"),
        skb_len: need("sk_buff", "len")?,
        skb_data_len: need("sk_buff", "data_len")?,
        skb_protocol: need("sk_buff", "protocol")?,
        skb_network_header: need("sk_buff", "network_header")?,
        skb_head: need("sk_buff", "head")?,
        skb_data: need("sk_buff", "data")?,
        skb_dst: may("sk_buff", "_skb_refdst"),
        skb_iif: need("sk_buff", "skb_iif")?,
        dst_dev: may("dst_entry", "dev"),
        dev_ifindex: need("net_device", "ifindex")?,
        dev_net: need("net_device", "nd_net")?,
        net_inum: need("net", "ns.inum")?,
        sk_family: need("sock", "__sk_common.skc_family")?,
        sk_state: need("sock", "__sk_common.skc_state")?,
        sk_net: need("sock", "__sk_common.skc_net")?,
        sk_daddr: need("sock", "__sk_common.skc_daddr")?,
        sk_rcv_saddr: need("sock", "__sk_common.skc_rcv_saddr")?,
        sk_v6_daddr: may("sock", "__sk_common.skc_v6_daddr"),
        sk_v6_rcv_saddr: may("sock", "__sk_common.skc_v6_rcv_saddr"),
        sk_dport: need("sock", "__sk_common.skc_dport")?,
        sk_num: need("sock", "__sk_common.skc_num")?,
        sk_protocol: need("sock", "sk_protocol")?,
        sk_queue_last: need("sock", "sk_receive_queue.prev")?,
        sk_queue_len: need("sock", "sk_receive_queue.qlen")?,
        sk_err: need("sock", "sk_err")?,
        socket_sk: need("socket", "sk")?,
        udp_reader_len: need("udp_sock", "reader_queue.qlen")?,
        ct_tuplehash: may("nf_conn", "tuplehash"),
        ct_zone: may("nf_conn", "zone.id"),
        hash_tuple: may("nf_conntrack_tuple_hash", "tuple"),
        tuple_saddr: may("nf_conntrack_tuple", "src.u3"),
        tuple_sport: may("nf_conntrack_tuple", "src.u"),
        tuple_family: may("nf_conntrack_tuple", "src.l3num"),
        tuple_daddr: may("nf_conntrack_tuple", "dst.u3"),
        tuple_dport: may("nf_conntrack_tuple", "dst.u"),
        tuple_dir: may("nf_conntrack_tuple", "dst.dir"),
        task_tgid: may("task_struct", "tgid"),
        task_comm: may("task_struct", "comm"),
        task_cgroups: may("task_struct", "cgroups"),
        css_set_cgroup: may("css_set", "dfl_cgrp"),
        cgroup_node: may("cgroup", "kn"),
        node_id: may("kernfs_node", "id"),
    };
    if offsets.skb_data != offsets.skb_head + 8 {
        return Err(Error::Layout {
            what: "sk_buff.data does not follow sk_buff.head",
        });
    }
    if btf.size("nf_conntrack_tuple_hash") != Some(TUPLE_HASH) {
        offsets.ct_tuplehash = ABSENT;
    }
    let way_to_cgroup = [
        offsets.task_comm,
        offsets.task_cgroups,
        offsets.css_set_cgroup,
        offsets.cgroup_node,
        offsets.node_id,
    ];
    if way_to_cgroup.contains(&ABSENT) || !btf.has_function("bpf_get_current_task_btf") {
        offsets.task_tgid = ABSENT;
    }
    Ok(offsets)
}
