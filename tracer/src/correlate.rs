//! Turns facts into rows: pure, synchronous, time only from events.
pub mod message;
pub mod stream;
