//! Which rows are wanted, by the names of those who take part.

use crate::{
    cli::{ObjectFilter, RowArgs, ServiceFilter, WorkloadFilter},
    model::{Named, Row, selector::Selector},
};

/// Rows must meet each kind of condition that is given, one of each kind being enough.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    namespaces: Vec<String>,
    pods: Vec<ObjectFilter>,
    services: Vec<ServiceFilter>,
    selectors: Vec<Selector>,
    nodes: Vec<String>,
    workloads: Vec<WorkloadFilter>,
}

impl Filter {
    pub(super) fn new(args: &RowArgs) -> Self {
        Self {
            namespaces: args.namespace.clone(),
            pods: args.pod.clone(),
            services: args.service.clone(),
            selectors: args.selector.clone(),
            nodes: args.node.clone(),
            workloads: args.workload.clone(),
        }
    }

    pub(super) fn wants(&self, row: &Row, named: &Named) -> bool {
        let asked = named.asked.service.as_ref().map(|name| &name.port);
        // What was asked and not translated serves the row itself.
        let backend = match row.backend() {
            Some(_) => named.backend.as_ref(),
            None => named.asked.pod.as_ref(),
        };
        let ends = || named.pod.iter().chain(backend);
        let pods = || ends().map(|name| &name.pod);
        let nodes = [&named.client_node, &named.backend_node, &named.asked.node];
        let is_in = |wanted: &String| {
            let service = asked.map(|port| &port.service.namespace);
            let mut namespaces = pods().map(|pod| &pod.namespace).chain(service);
            namespaces.any(|namespace| **namespace == **wanted)
        };
        let is_pod =
            |wanted: &ObjectFilter| pods().any(|pod| wanted.matches(&pod.namespace, &pod.name));
        let is_service = |wanted: &ServiceFilter| asked.is_some_and(|port| wanted.matches(port));
        let is_labelled = |wanted: &Selector| {
            let mut objects = ends().filter_map(|name| name.object.as_ref());
            objects.any(|object| wanted.matches(&object.labels))
        };
        let is_on = |wanted: &String| {
            let mut nodes = nodes.into_iter().flatten();
            nodes.any(|node| **node == **wanted)
        };
        let is_of = |wanted: &WorkloadFilter| {
            ends().any(|name| {
                let namespace = &name.pod.namespace;
                let workload = name.workload();
                workload.is_some_and(|workload| wanted.matches(namespace, workload))
            })
        };
        any(&self.namespaces, is_in)
            && any(&self.pods, is_pod)
            && any(&self.services, is_service)
            && any(&self.selectors, is_labelled)
            && any(&self.nodes, is_on)
            && any(&self.workloads, is_of)
    }
}

/// Whether one of `conditions` holds, or there is none.
fn any<T>(conditions: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    conditions.is_empty() || conditions.iter().any(holds)
}
