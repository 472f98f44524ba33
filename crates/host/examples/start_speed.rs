//! How long a tenant without a worker takes to answer: with a blank worker
//! waiting, and without.
//!
//!     cargo run --release -p lazaret --example start_speed

use std::time::{Duration, Instant};

const COUNTER: &str = r#"
(module
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func (export "canister_query get") (call $reply)))
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    lazaret::init();
    let directory = tempfile::tempdir()?;
    for blanks in [0, 4] {
        let host = lazaret::Host::builder()
            .data_dir(directory.path().join(blanks.to_string()))
            .pool(|pool| pool.blanks = blanks)
            .build()?;
        let tenant = host.install("tenant", COUNTER, &[])?;
        let mut times = Vec::new();
        for _ in 0..300 {
            tenant.sleep();
            std::thread::sleep(Duration::from_millis(60));
            let begin = Instant::now();
            tenant.query("get", &[])?;
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        println!(
            "{blanks} blanks: p50 {:?}, p90 {:?}, p99 {:?}; {}",
            times[150],
            times[270],
            times[297],
            host.pool()
        );
    }
    Ok(())
}
