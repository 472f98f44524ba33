//! Ten thousand tenants on one machine: few are busy at a time, their workers come
//! when they are called and leave when they are idle, and nobody notices.
//!
//!     cargo run --release -p lazaret --example many_tenants
//!
//! Two numbers may follow: how many tenants, and for how many seconds they are
//! called. Every answer is compared with what it must be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lazaret::Host;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Each adds something else to a number of eight bytes, and answers with it.
fn module(step: u64) -> String {
    format!(
        r#"
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func $answer (call $append (i32.const 0) (i32.const 8)) (call $reply))
  (func (export "canister_update add")
    (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const {step})))
    (call $answer))
  (func (export "canister_query get") (call $answer)))
"#
    )
}

/// As many modules as there are.
const MODULES: u64 = 3;
/// Half of all calls go to these few tenants, half to any.
const FAVOURITES: u64 = 100;
/// After this long without a call a worker leaves.
const IDLE: Duration = Duration::from_secs(5);
/// Threads that install, and threads that call.
const THREADS: u64 = 4;

fn name(tenant: u64) -> String {
    format!("tenant-{tenant}")
}

/// Numbers that look random (Steele and others, SplitMix64, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// How long calls took, in microseconds.
fn percentiles(what: &str, times: &mut [u32]) {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize);
    if let (Some(p50), Some(p99)) = (at(0.5), at(0.99)) {
        let calls = times.len();
        println!("  {what}: {calls} calls, p50 {p50} us, p99 {p99} us");
    }
}

fn main() -> Result<(), Error> {
    lazaret::init();
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let tenants = numbers.next().transpose()?.unwrap_or(10_000).max(1);
    let seconds = numbers.next().transpose()?.unwrap_or(60);
    let directory = tempfile::tempdir()?;
    let build = || {
        Host::builder()
            .data_dir(directory.path())
            .pool(|pool| pool.idle = Some(IDLE))
            .build()
    };

    let host = build()?;
    let begin = Instant::now();
    let installed = AtomicU64::new(0);
    on_threads(|_| {
        loop {
            let tenant = installed.fetch_add(1, Relaxed);
            if tenant >= tenants {
                return Ok(());
            }
            host.install(&name(tenant), module(tenant % MODULES + 1), &[])?;
        }
    })?;
    let took = begin.elapsed();
    println!(
        "{tenants} tenants of {MODULES} modules installed in {took:.1?}, {:.2?} each",
        took / tenants as u32
    );

    let begin = Instant::now();
    drop(host);
    println!("the host let go in {:.1?}", begin.elapsed());
    let begin = Instant::now();
    let host = build()?;
    let built = begin.elapsed();
    let listed = host.tenants()?.len();
    println!(
        "a new one was there after {built:.1?}, and had listed all {listed} after {:.1?}",
        begin.elapsed()
    );

    let expected: Vec<AtomicU64> = (0..tenants).map(|_| AtomicU64::new(0)).collect();
    let busy: Vec<AtomicBool> = (0..tenants).map(|_| AtomicBool::new(false)).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    println!("calls for {seconds} s, by {THREADS} threads; workers leave after {IDLE:?}:");
    let times = std::thread::scope(|scope| -> Result<_, Error> {
        scope.spawn(|| {
            while Instant::now() < end {
                std::thread::sleep(Duration::from_secs(5).min(end - Instant::now()));
                println!("  {}", host.pool());
            }
        });
        on_threads(|thread| {
            let mut random = Random(thread);
            let (mut there, mut started) = (Vec::new(), Vec::new());
            while Instant::now() < end {
                let among = match random.below(2) {
                    0 => FAVOURITES.min(tenants),
                    _ => tenants,
                };
                let tenant = random.below(among);
                // One at a time, so that it is known what it must answer.
                if busy[tenant as usize].swap(true, Relaxed) {
                    continue;
                }
                let begin = Instant::now();
                let handle = host.tenant(&name(tenant))?;
                let had_worker = handle.has_worker();
                let model = &expected[tenant as usize];
                let reply = match random.below(2) {
                    0 => {
                        model.fetch_add(tenant % MODULES + 1, Relaxed);
                        handle.update("add", &[])?
                    }
                    _ => handle.query("get", &[])?,
                };
                let took = begin.elapsed().as_micros() as u32;
                assert_eq!(reply.bytes, model.load(Relaxed).to_le_bytes());
                match had_worker {
                    true => there.push(took),
                    false => started.push(took),
                }
                busy[tenant as usize].store(false, Relaxed);
            }
            Ok((there, started))
        })
    })?;
    let (there, started): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    percentiles("with a worker", &mut there.concat());
    percentiles("brought back", &mut started.concat());

    println!("nobody calls for {:?}:", IDLE * 2);
    std::thread::sleep(IDLE * 2);
    println!("  {}", host.pool());
    for (tenant, expected) in expected.iter().enumerate().step_by(97) {
        let reply = host.tenant(&name(tenant as u64))?.query("get", &[])?;
        assert_eq!(reply.bytes, expected.load(Relaxed).to_le_bytes());
    }
    println!("every answer was right");
    Ok(())
}

/// Runs this on several threads, which it tells apart; an error of any is the
/// whole's.
fn on_threads<T: Send>(run: impl Fn(u64) -> Result<T, Error> + Sync) -> Result<Vec<T>, Error> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let run = &run;
                scope.spawn(move || run(thread))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked")?)
            .collect()
    })
}
