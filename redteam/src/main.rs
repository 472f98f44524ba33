//! The hostile worker: a `worker_exe` for tests.

#[cfg(target_arch = "x86_64")]
fn main() {
    lazaret_redteam::init();
    let name = std::env::args_os().next().unwrap_or_default();
    if name.as_encoded_bytes() == lazaret_wall::launcher::ARGV0.to_bytes() {
        lazaret_wall::launcher::main()
    }
    if name.as_encoded_bytes() == lazaret_wall::worker::ARGV0.to_bytes() {
        lazaret_guest::start::worker_with(lazaret_redteam::hostile::Hostile)
    }
    eprintln!(
        "lazaret-redteam: the hostile worker of the tests; a host starts it (Builder::worker_exe)"
    );
    std::process::exit(2)
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("lazaret-redteam: the attacks are written for x86-64");
    std::process::exit(2)
}
