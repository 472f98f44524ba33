//! `init`: the first line of `main`.

use std::sync::atomic::{AtomicBool, Ordering};

static CALLED: AtomicBool = AtomicBool::new(false);

/// Must be the first line of `main` of every program that embeds Lazaret.
///
/// Workers that compile are this same executable, started again, and so are
/// launcher and all workers where no executable for them is carried along
/// (crate `lazaret-worker-executable`). In them, `init` never returns; in the
/// host it returns at once. [`crate::Host`]
/// refuses to start without it: a program that forgot it would otherwise run
/// its own `main` again in every worker.
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     lazaret::init();
///     let host = lazaret::Host::builder().build()?;
///     # drop(host);
///     Ok(())
/// }
/// ```
pub fn init() {
    CALLED.store(true, Ordering::SeqCst);
    let Some(name) = std::env::args_os().next() else {
        return;
    };
    if name.as_encoded_bytes() == lazaret_wall::launcher::ARGV0.to_bytes() {
        alone("launcher");
        lazaret_wall::launcher::main()
    }
    if name.as_encoded_bytes() == lazaret_wall::worker::ARGV0.to_bytes() {
        alone("worker");
        lazaret_guest::start::worker()
    }
}

/// Whether [`init`] was called in this process.
pub(crate) fn was_called() -> bool {
    CALLED.load(Ordering::SeqCst)
}

/// Launcher and workers are single-threaded: something that ran before `init`
/// (a constructor, a runtime) and started a thread would take its locks along.
fn alone(role: &str) {
    let threads = std::fs::read_dir("/proc/self/task")
        .map(Iterator::count)
        .unwrap_or(1);
    if threads > 1 {
        eprintln!(
            "lazaret {role}: lazaret::init() must be the first line of main, but {threads} threads are running already"
        );
        std::process::exit(2);
    }
}
