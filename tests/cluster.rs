//! Runs the tracer on a node of a real cluster, and compares what it prints with what the API server, the
//! clients themselves and the node's conntrack say.

#[expect(
    dead_code,
    reason = "shared with the kernel's tests, which use the rest"
)]
mod support;

mod cluster {
    mod api;
    mod bed;
    mod credentials;
    mod failures;
    mod manifests;
    mod names;
    mod outage;
    mod path;
    mod policies;
    mod verify;
    mod watched;
}
