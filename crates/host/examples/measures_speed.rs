//! What the measures against side channels cost: starting a worker, and a call of
//! one that is hot, with all that this host has and without any.
//!
//!     cargo run --release -p lazaret --example measures_speed
//!
//! The two hosts take turns, so that whatever else the machine does hits both.

use std::time::{Duration, Instant};

use lazaret::wall::Measure;
use lazaret::wall::measures::Standing;
use lazaret::{Host, MeasureOptions, Tenant};

/// Adds to a sum; loads and stores over 64 KiB, for what speculation is worth.
const MODULE: &str = r#"
(module
  (import "ic0" "msg_reply" (func $reply))
  (memory 2)
  (func (export "canister_query nothing") (call $reply))
  (func (export "canister_query sweep") (local $at i32) (local $round i32)
    (loop $rounds
      (local.set $at (i32.const 0))
      (loop $next
        (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (local.get $round)))
        (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4))) (i32.const 65536))))
      (br_if $rounds (i32.lt_u (local.tee $round (i32.add (local.get $round) (i32.const 1))) (i32.const 20))))
    (call $reply)))
"#;

const STARTS: usize = 200;
const CALLS: usize = 20_000;
const SWEEPS: usize = 200;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn timed(tenant: &Tenant, method: &str) -> Result<Duration, lazaret::CallError> {
    let begin = Instant::now();
    tenant.query(method, b"")?;
    Ok(begin.elapsed())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    lazaret::init();
    let directory = tempfile::tempdir()?;
    let tenant =
        |name: &str, off: &[Measure]| -> Result<(Host, Tenant), Box<dyn std::error::Error>> {
            let host = Host::builder()
                .data_dir(directory.path().join(name))
                .relaxed_durability()
                .measures(MeasureOptions {
                    off: off.to_vec(),
                    ..MeasureOptions::default()
                })
                .build()?;
            let tenant = host.install(name, MODULE, b"")?;
            Ok((host, tenant))
        };
    let (_with_host, with) = tenant("with", &[])?;
    let (_without_host, without) = tenant("without", Measure::ALL)?;
    for entry in with.receipt()?.measures {
        let state = match &entry.standing {
            Standing::Missing(_) => "missing: ",
            Standing::Off(_) => "off: ",
            _ => "",
        };
        println!("{}: {state}{}", entry.measure, entry.standing.words());
    }
    let mut times: [[Vec<Duration>; 2]; 3] = Default::default();
    for _ in 0..STARTS {
        for (tenant, times) in [&with, &without].into_iter().zip(&mut times[0]) {
            tenant.sleep();
            times.push(timed(tenant, "nothing")?);
        }
    }
    for (rows, count, method) in [(1, CALLS, "nothing"), (2, SWEEPS, "sweep")] {
        // In blocks: a worker that has just slept is not hot.
        for _ in 0..10 {
            for (tenant, times) in [&with, &without].into_iter().zip(&mut times[rows]) {
                for _ in 0..count / 100 {
                    timed(tenant, method)?;
                }
                for _ in 0..count / 10 {
                    times.push(timed(tenant, method)?);
                }
            }
        }
    }
    for (name, [with, without]) in ["start and call", "call", "sweep"].iter().zip(times) {
        let (with, without) = (median(with), median(without));
        println!(
            "{name:<16} with {with:?}, without {without:?}: {:.3} times",
            with.as_secs_f64() / without.as_secs_f64()
        );
    }
    Ok(())
}
