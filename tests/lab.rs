//! Builds the lab.
