//! Nodes of Flannel, Calico and Weave Net as directory trees, netlink facts and API objects, for
//! tests. Written after clusters of two nodes on Linux 6.18 (containerd 2.4, Kubernetes 1.37;
//! Flannel 0.28.10, Calico 3.32.1, Weave Net 2.9.0): what stands in them says whether it was
//! observed there, or derived (from the plugins' sources, or put in to make the node whole).

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    cluster::objects::{NodeObject, Objects, Policies},
    doctor::{
        Root, Seen,
        seen::{
            http::Page,
            network::{Forwarding, Link, LinkKind, Mac, Neighbour, Network, Route},
            process::Process,
        },
    },
    node::scratch::Scratch,
};

/// A node, with the directory that it is read from.
pub(in crate::doctor) struct Node {
    pub(in crate::doctor) seen: Seen,
    root: Scratch,
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = Scratch::new(files);
        let mut seen = Seen::of(Root::new(root.path()));
        seen.objects = Ok(objects());
        Self { seen, root }
    }

    pub(in crate::doctor) fn write(&self, path: &str, text: &str) {
        self.root.write(path, text);
    }

    pub(in crate::doctor) fn remove(&self, path: &str) {
        self.root.remove(path);
    }

    pub(in crate::doctor) fn network(&mut self) -> &mut Network {
        self.seen.network.as_mut().expect("a fixture has one")
    }

    fn runs(&mut self, comms: &[&str]) {
        for (pid, comm) in (100..).zip(comms) {
            self.run(pid, &[comm]);
        }
    }

    /// A process of the node's own network, by its command line.
    pub(in crate::doctor) fn run(&mut self, pid: u32, args: &[&str]) {
        self.seen.processes.push(Process {
            pid,
            comm: args[0].to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            here: true,
        });
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Nodes n1, this one, and n2; nothing else.
fn objects() -> Objects {
    Objects {
        clock_ahead: Some(0),
        nodes: Ok(vec![
            node("n1", "192.0.2.11", "10.244.1.0"),
            node("n2", "192.0.2.12", "10.244.2.0"),
        ]),
        pods: Ok(Vec::new()),
        workloads: Ok(Vec::new()),
        dns_services: Ok(Vec::new()),
        dns_endpoints: Ok(Vec::new()),
        dns_targets: Ok(Vec::new()),
        config_maps: Ok(BTreeMap::new()),
        service_accounts: Ok(Vec::new()),
        roles: Ok(Vec::new()),
        network_policies: Ok(Policies::default()),
        address_pools: Err("the server could not find the requested resource".to_owned()),
        pod_count: Ok(10),
        service_count: Ok(5),
    }
}

fn node(name: &str, address: &str, range: &str) -> NodeObject {
    NodeObject {
        name: name.to_owned(),
        addresses: vec![ip(address)],
        pod_cidrs: vec![(ip(range), 24)],
        annotations: BTreeMap::new(),
        ready: Ok(()),
        taints: Vec::new(),
        runtime: "containerd://2.4.2".to_owned(),
    }
}

fn link(index: u32, name: &str, kind: LinkKind, mtu: u32, mac: Mac, master: Option<u32>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind,
        mtu,
        up: true,
        mac: Some(mac),
        master,
        tx_dropped: 0,
    }
}

fn vxlan(vni: u32, port: u16) -> LinkKind {
    LinkKind::Vxlan {
        vni,
        port,
        below: 2,
        local: Some(ip("192.0.2.11")),
    }
}

fn route(to: &str, bits: u8, via: Option<&str>, device: u32) -> Route {
    Route {
        to: ip(to),
        bits,
        via: via.map(ip),
        device: Some(device),
        blackhole: false,
    }
}

/// Tunnel's device of node n2, and the neighbour and forwarding entry that lead to it.
const N2: Mac = [0x5e, 0, 0, 0, 0, 2];

fn to_n2(device: u32, tunnel: &str) -> (Neighbour, Forwarding) {
    let neighbour = Neighbour {
        device,
        ip: ip(tunnel),
        mac: Some(N2),
        failed: false,
    };
    let forwarding = Forwarding {
        device,
        mac: N2,
        to: ip("192.0.2.12"),
    };
    (neighbour, forwarding)
}

/// Flannel 0.28.10, vxlan.
pub(in crate::doctor) fn flannel() -> Node {
    let mut node = Node::new(&[
        (
            // Observed: name, plugins, delegate.
            "etc/cni/net.d/10-flannel.conflist",
            r#"{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
                {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
                {"type": "portmap", "capabilities": {"portMappings": true}}]}"#,
        ),
        (
            // Observed.
            "run/flannel/subnet.env",
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        ),
        // Observed: line 1 the sandbox id with CR LF, line 2 the device.
        ("var/lib/cni/networks/cbr0/10.244.1.2", "5a9d\r\neth0"),
        // Observed: NETWORK-SANDBOX-eth0.
        ("var/lib/cni/results/cbr0-5a9d-eth0", "{}"),
    ]);
    let (neighbour, forwarding) = to_n2(3, "10.244.2.0");
    node.seen.network = Ok(Network {
        links: vec![
            // Derived: the machine's own card.
            link(
                2,
                "eth0",
                LinkKind::Other(String::new()),
                1500,
                [2; 6],
                None,
            ),
            // Observed: VNI 1, port 8472, MTU 1450.
            link(
                3,
                "flannel.1",
                vxlan(1, 8472),
                1450,
                [0x5e, 0, 0, 0, 0, 1],
                None,
            ),
            // Observed: bridge with the first address of the range, MTU 1450.
            link(4, "cni0", LinkKind::Bridge, 1450, [4; 6], None),
            // Observed: random name.
            link(5, "veth5a9d1b2c", LinkKind::Veth, 1450, [5; 6], Some(4)),
        ],
        addresses: vec![
            // Derived: the machine's own address.
            (2, ip("192.0.2.11"), 24),
            // Observed.
            (3, ip("10.244.1.0"), 32),
            (4, ip("10.244.1.1"), 24),
        ],
        routes: vec![
            // Derived: the machine's own way out.
            route("0.0.0.0", 0, Some("192.0.2.1"), 2),
            // Observed: "10.244.N.0/24 via 10.244.N.0 dev flannel.1 onlink".
            route("10.244.2.0", 24, Some("10.244.2.0"), 3),
            // Derived: what the bridge's address brings with it.
            route("10.244.1.0", 24, None, 4),
        ],
        // Observed: permanent neighbour, then "dst NODE-IP self permanent".
        neighbours: vec![neighbour],
        forwarding: vec![forwarding],
    });
    let nodes = node.seen.objects.as_mut().unwrap().nodes.as_mut().unwrap();
    for (index, node) in nodes.iter_mut().enumerate() {
        let number = index + 1;
        // Observed: the four annotations.
        node.annotations = [
            (
                "backend-data",
                format!(r#"{{"VNI":1,"VtepMAC":"5e:00:00:00:00:0{number}"}}"#),
            ),
            ("backend-type", "vxlan".to_owned()),
            ("kube-subnet-manager", "true".to_owned()),
            ("public-ip", format!("192.0.2.1{number}")),
        ]
        .map(|(key, value)| (format!("flannel.alpha.coreos.com/{key}"), value))
        .into();
    }
    // Observed.
    node.runs(&["flanneld"]);
    node
}

/// Calico 3.32.1, vxlan.
pub(in crate::doctor) fn calico() -> Node {
    let mut node = Node::new(&[
        (
            // Observed: name, types, ipam, policy, nodename.
            "etc/cni/net.d/10-calico.conflist",
            r#"{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [
                {"type": "calico", "nodename": "n1", "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"}},
                {"type": "portmap", "capabilities": {"portMappings": true}}]}"#,
        ),
        // Observed.
        ("etc/cni/net.d/calico-kubeconfig", ""),
        ("var/lib/calico/nodename", "n1"),
    ]);
    let (neighbour, forwarding) = to_n2(3, "10.244.69.0");
    node.seen.network = Ok(Network {
        links: vec![
            // Derived: the machine's own card.
            link(
                2,
                "eth0",
                LinkKind::Other(String::new()),
                1500,
                [2; 6],
                None,
            ),
            // Observed: VNI 4096, port 4789, MTU 1450.
            link(
                3,
                "vxlan.calico",
                vxlan(4096, 4789),
                1450,
                [0x66, 0, 0, 0, 0, 1],
                None,
            ),
            // Observed: "cali" and eleven digits, MAC ee:ee:ee:ee:ee:ee, no bridge.
            link(4, "cali1234567890a", LinkKind::Veth, 1450, [0xee; 6], None),
        ],
        addresses: vec![
            // Derived: the machine's own address.
            (2, ip("192.0.2.11"), 24),
            // Observed: the tunnel's address, /32.
            (3, ip("10.244.51.64"), 32),
        ],
        routes: vec![
            // Derived: the machine's own way out.
            route("0.0.0.0", 0, Some("192.0.2.1"), 2),
            // Observed: "POD dev caliX scope link".
            route("10.244.51.65", 32, None, 4),
            // Observed: the node's own /26 is a blackhole.
            Route {
                blackhole: true,
                device: None,
                ..route("10.244.51.64", 26, None, 0)
            },
            // Observed: "/26 via TUNNEL-ADDRESS dev vxlan.calico onlink".
            route("10.244.69.0", 26, Some("10.244.69.0"), 3),
        ],
        neighbours: vec![neighbour],
        forwarding: vec![forwarding],
    });
    let nodes = node.seen.objects.as_mut().unwrap().nodes.as_mut().unwrap();
    for (node, tunnel) in nodes.iter_mut().zip(["10.244.51.64", "10.244.69.0"]) {
        // Observed: the two annotations; the Node's podCIDR is not used.
        node.annotations = [
            ("IPv4Address", format!("{}/24", node.addresses[0])),
            ("IPv4VXLANTunnelAddr", tunnel.to_owned()),
        ]
        .map(|(key, value)| (format!("projectcalico.org/{key}"), value))
        .into();
    }
    // Derived: the process's name. Observed: the port, and its 200.
    node.runs(&["calico-node"]);
    let page = Page {
        status: 200,
        body: String::new(),
    };
    node.seen
        .http
        .insert("127.0.0.1:9099/readiness".to_owned(), Ok(page));
    node
}

/// Weave Net 2.9.0, sleeve, with npc.
pub(in crate::doctor) fn weave() -> Node {
    let mut node = Node::new(&[
        (
            // Observed: name and types.
            "etc/cni/net.d/10-weave.conflist",
            r#"{"name": "weave", "cniVersion": "0.3.0", "plugins": [
                {"type": "weave-net", "hairpinMode": true},
                {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}"#,
        ),
        // Observed.
        ("var/lib/weave/weave-netdata.db", ""),
    ]);
    node.seen.network = Ok(Network {
        links: vec![
            // Derived: the machine's own card.
            link(
                2,
                "eth0",
                LinkKind::Other(String::new()),
                1500,
                [2; 6],
                None,
            ),
            // Observed: bridge, MTU 65535; vethwe-bridge and vethwe-pcap, which weaver captures.
            link(3, "weave", LinkKind::Bridge, 65535, [3; 6], None),
            link(4, "vethwe-bridge", LinkKind::Veth, 65535, [4; 6], Some(3)),
            link(5, "vethwe-pcap", LinkKind::Veth, 65535, [5; 6], None),
            // Observed: "vethwepl" and 7 of the sandbox id.
            link(6, "vethwepl5a9d1b2", LinkKind::Veth, 65535, [6; 6], Some(3)),
        ],
        addresses: vec![
            // Derived: the machine's own address.
            (2, ip("192.0.2.11"), 24),
            // Observed: one flat range on every node. Derived: which address.
            (3, ip("10.32.0.1"), 12),
        ],
        routes: vec![
            // Derived: the machine's own way out.
            route("0.0.0.0", 0, Some("192.0.2.1"), 2),
            // Observed: no route for each node.
            route("10.32.0.0", 12, None, 3),
        ],
        neighbours: Vec::new(),
        forwarding: Vec::new(),
    });
    // Observed.
    node.runs(&["weaver", "weave-npc"]);
    for (path, body) in [
        (
            // Observed: "established sleeve". Derived: the rest of the line.
            "connections",
            "-> 192.0.2.12:6783       established sleeve 4e:11:96:a3:79:3b(n2) encrypted=false mtu=1438\n\
             -> 192.0.2.11:6783       failed cannot connect to ourself, retry: never\n",
        ),
        (
            // Derived, after weave's own `status ipam`.
            "ipam",
            "16:aa:96:a3:79:3a(n1)  524288 IPs (50.0% of total) (2 active)\n\
             4e:11:96:a3:79:3b(n2)  524288 IPs (50.0% of total)\n",
        ),
    ] {
        let page = Page {
            status: 200,
            body: body.to_owned(),
        };
        let port = format!("127.0.0.1:6784/status/{path}");
        node.seen.http.insert(port, Ok(page));
    }
    node
}
