//! The kernel programs of tracer and the records they emit.
