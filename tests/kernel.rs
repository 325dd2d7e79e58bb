//! Runs the tracer on this machine's kernel while real packets pass through namespaces, and compares what it
//! prints with what happened. Each test has namespaces of its own and looks at no other's rows.

mod support;

mod kernel {
    mod lab;

    mod journeys;
    mod queries;
    mod tcp;
    mod upstream;

    mod connections;
    mod nat;
    mod overlays;

    mod broken;
    mod diagnosis;
    mod doctor;
    mod drops;
    mod faults;
    mod healthy;
    mod ipvs;
    mod lies;
    mod million;
    mod named;
    mod races;
    mod stopped;
    mod wire;

    mod command;
    mod load;
    mod manifest;
    mod page;
    mod recordings;
    mod rules;
    mod sockets;
    mod virtio;
}
