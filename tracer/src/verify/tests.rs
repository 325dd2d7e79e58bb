//! What the tests of this module share.

use crate::model::cluster::{
    ObjectName, PortProtocol, Service, ServicePort, ServiceType, TrafficPolicy,
};

/// `shop/web`, TCP port 80, called `http`.
pub(super) fn service() -> Service {
    Service {
        name: ObjectName {
            namespace: "shop".into(),
            name: "web".into(),
        },
        uid: "1".into(),
        r#type: ServiceType::ClusterIp,
        cluster_ips: vec![[10, 96, 0, 10].into()],
        headless: false,
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: PortProtocol::Tcp,
            port: 80,
            node_port: None,
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        health_check_node_port: None,
        affinity: None,
        publish_not_ready: false,
        traffic_distribution: None,
        proxy_name: None,
        selector: Vec::new(),
        created: crate::model::WallNs(0),
    }
}
