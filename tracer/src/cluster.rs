//! What the API server says. Beyond this door there is no kube type.

pub mod objects;
