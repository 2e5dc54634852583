//! The `afterhours` binary.

fn main() {}
