//! What the node's memory budget costs: calls that don't grow, and a heap that
//! grows page by page. Both hosts run in turns, and medians are printed.
//!
//!     cargo run --release -p lazaret --example budget_speed

use std::time::Instant;

const GROW: &str = r#"
(module
  (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func (export "canister_query nothing") (call $reply))
  (func (export "canister_query grow") (local $left i32)
    (call $copy (i32.const 0) (i32.const 0) (i32.const 4))
    (local.set $left (i32.load (i32.const 0)))
    (loop $next
      (i32.store (i32.shl (memory.grow (i32.const 1)) (i32.const 16)) (i32.const 1))
      (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (call $reply)))
"#;

const ROUNDS: usize = 41;
const CALLS: u32 = 2_000;
/// Pages of 64 KiB.
const PAGES: u32 = 1_024;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    lazaret::init();
    let directory = tempfile::tempdir()?;
    let tenant = |name: &str, budget: Option<u64>| -> Result<_, lazaret::TenantError> {
        let builder = lazaret::Host::builder().data_dir(directory.path().join(name));
        let builder = match budget {
            Some(bytes) => builder.memory_budget(bytes),
            None => builder,
        };
        let host = builder.build().expect("a host");
        let tenant = host.install(name, GROW, b"")?;
        Ok((host, tenant))
    };
    let hosts = [
        ("no budget", tenant("free", None)?),
        ("16 GiB", tenant("plenty", Some(16 << 30))?),
    ];
    let mut nothing = [Vec::new(), Vec::new()];
    let mut grow = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (index, (_, (_, tenant))) in hosts.iter().enumerate() {
            let begin = Instant::now();
            for _ in 0..CALLS {
                tenant.query("nothing", b"")?;
            }
            nothing[index].push(begin.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
            let begin = Instant::now();
            tenant.query("grow", &PAGES.to_le_bytes())?;
            grow[index].push(begin.elapsed().as_secs_f64() * 1e9 / f64::from(PAGES));
        }
    }
    for (index, (name, _)) in hosts.iter().enumerate() {
        println!(
            "{name:>10}: empty query {:6.0} ns; growing by a page of 64 KiB and touching it {:6.0} ns",
            median(std::mem::take(&mut nothing[index])),
            median(std::mem::take(&mut grow[index])),
        );
    }
    Ok(())
}
