//! Histories of tenants: what is done to them, what they should be then, and a host in a process of its own that does
//! it and can be killed.
// Each test file uses a part of it.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod numbers;
pub mod operation;
pub mod processes;
pub mod tracer;
pub mod victim;
pub mod world;
