//! The executable of launcher and workers: only what they need, so that a worker
//! starts sooner, takes less memory and offers hostile code less to work with
//! than if it were a copy of whatever program embeds Lazaret. There is no
//! compiler in it; a compile worker is the embedding program, started again.
//!
//! `crates/worker-executable` builds it and carries it along.

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = name.as_encoded_bytes();
    if name == lazaret_wall::launcher::ARGV0.to_bytes() {
        lazaret_wall::launcher::main()
    }
    if name == lazaret_wall::worker::ARGV0.to_bytes() {
        lazaret_guest::start::worker()
    }
    eprintln!("lazaret-worker: this is started by a Lazaret host, with its socket");
    ExitCode::from(2)
}
