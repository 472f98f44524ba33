//! Measures the ways to find the pages that a call wrote, in one process:
//!
//!     cargo run --release -p lazaret-guest --example trackers
//!
//! *Kernel*: userfaultfd write-protection in async mode, found and armed again
//! by `PAGEMAP_SCAN`. *Cards*: one byte per page, set by the module itself
//! before each store (crate lazaret-instrument). *Signal*: pages are read-only,
//! and the fault handler of a worker opens and notes them (its own code, on the
//! memory that it has in a worker). Each row is a call that writes
//! as many pages with as many stores each; figures are nanoseconds per page
//! over the same call with nothing tracked, finding the pages and arming them
//! again included.

use std::error::Error;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use lazaret_guest::memory::{TenantMemory, linear};
use lazaret_instrument::{CardOptions, Options, instrument};
use lazaret_wire::message::{Purpose, Sizes, TenantSetup, Tracking};
use lazaret_wire::{Shared, layout};
use wasmtime::{Engine, Instance, Memory, Module, Store, TypedFunc};

/// Memory of the module, in pages of 4 KiB: 256 MiB.
const PAGES: usize = 65_536;

const MODULE: &str = r#"
(module
  (memory (export "memory") 4096)
  ;; Writes `pages` pages, every `stride` bytes, with `stores` stores each.
  (func (export "stores") (param $pages i32) (param $stride i32) (param $stores i32)
    (local $at i32) (local $left i32)
    (loop $page
      (local.set $left (local.get $stores))
      (loop $store
        (i32.store
          (i32.add (local.get $at) (i32.and (i32.shl (local.get $left) (i32.const 2)) (i32.const 4092)))
          (local.get $left))
        (br_if $store (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (local.set $at (i32.add (local.get $at) (local.get $stride)))
      (br_if $page (local.tee $pages (i32.sub (local.get $pages) (i32.const 1)))))))
"#;

/// A loaded module and what is needed of it.
struct Subject {
    store: Store<()>,
    instance: Instance,
    stores: TypedFunc<(i32, i32, i32), ()>,
}

fn load(engine: &Engine, wasm: &[u8]) -> Result<Subject, Box<dyn Error>> {
    let module = Module::new(engine, wasm)?;
    let mut store = Store::new(engine, ());
    let instance = Instance::new(&mut store, &module, &[])?;
    let stores = instance.get_typed_func(&mut store, "stores")?;
    // Resident, so that only tracking is measured, not the first touch.
    stores.call(&mut store, (PAGES as i32, 4096, 1))?;
    Ok(Subject {
        store,
        instance,
        stores,
    })
}

impl Subject {
    fn memory(&mut self, name: &str) -> Result<Memory, Box<dyn Error>> {
        self.instance
            .get_memory(&mut self.store, name)
            .ok_or_else(|| format!("no memory {name}").into())
    }
}

/// `struct pm_scan_arg` (kernel: `include/uapi/linux/fs.h`) as twelve words.
fn scan(
    pagemap: &std::fs::File,
    start: u64,
    end: u64,
    regions: &mut [[u64; 3]],
    report: bool,
) -> std::io::Result<u64> {
    const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;
    const WRITTEN: u64 = 2;
    let (mut at, mut pages) = (start, 0);
    while at < end {
        let (vec, len, mask, wanted) = if report {
            (
                regions.as_mut_ptr() as u64,
                regions.len() as u64,
                WRITTEN,
                WRITTEN,
            )
        } else {
            (0, 0, 0, 0)
        };
        // Flags: WP_MATCHING | CHECK_WPASYNC.
        let mut argument = [96, 3, at, end, 0, vec, len, 0, 0, mask, 0, wanted];
        // SAFETY: an argument of the size it names, with a vector as long as it says.
        let count =
            unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, argument.as_mut_ptr()) };
        if count < 0 {
            return Err(std::io::Error::last_os_error());
        }
        pages += regions
            .iter()
            .take(if report { count as usize } else { 0 })
            .map(|[from, to, _]| (to - from) / 4096)
            .sum::<u64>();
        at = argument[4].max(at + 4096);
    }
    Ok(pages)
}

/// Tracks `base..base + length` as the host does a worker's memory.
fn track(base: u64, length: u64) -> std::io::Result<OwnedFd> {
    const UFFDIO_API: libc::c_ulong = 0xC018_AA3F;
    const UFFDIO_REGISTER: libc::c_ulong = 0xC020_AA00;
    let last = || Err(std::io::Error::last_os_error());
    // SAFETY: flags only (O_CLOEXEC | UFFD_USER_MODE_ONLY); a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1) };
    if fd < 0 {
        return last();
    }
    // SAFETY: just made.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut api = [0xAA_u64, 1 << 15 | 1 << 13, 0];
    // SAFETY: structs of the sizes that the numbers encode.
    unsafe {
        if libc::ioctl(fd.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()) != 0 {
            return last();
        }
        let mut register = [base, length, 2, 0];
        if libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER, register.as_mut_ptr()) != 0 {
            return last();
        }
    }
    Ok(fd)
}

/// A tenant's memory under the signal tracker, as large as the module's.
fn signal_memory() -> Result<(TenantMemory, &'static Shared), Box<dyn Error>> {
    let file = lazaret_wire::shared::create()?;
    let shared: &'static Shared = Box::leak(Box::new(Shared::map(file.as_fd())?));
    let bytes = (PAGES * 4096) as u64;
    let setup = TenantSetup {
        heap_limit: bytes,
        stable_limit: 0,
        sizes: Sizes {
            heap: bytes,
            stable: 0,
        },
        runs: Vec::new(),
        map_from: layout::MAP_RUN_PAGES,
        tracking: Tracking::Signal,
        reusable: true,
        host_functions: Vec::new(),
        budgeted: false,
    };
    let (memory, _) = TenantMemory::new(&setup, 0, &[], shared)?;
    Ok((memory, shared))
}

/// How many pages the fault handler has noted, found as the host finds them.
fn noted(shared: &Shared) -> usize {
    let word = |at: usize| shared.u64(at).load(Relaxed);
    let words = layout::CHUNK_PAGES / 64;
    (0..PAGES / layout::CHUNK_PAGES)
        .filter(|chunk| word(layout::HEAP_CHUNKS + chunk / 64 * 8) >> (chunk % 64) & 1 == 1)
        .flat_map(|chunk| chunk * words..(chunk + 1) * words)
        .map(|at| word(layout::HEAP_PAGES + at * 8).count_ones() as usize)
        .sum()
}

/// The median of `n` times of `run`, in nanoseconds.
fn median(
    n: usize,
    mut run: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let started = Instant::now();
        run()?;
        times.push(started.elapsed().as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[n / 2])
}

fn main() -> Result<(), Box<dyn Error>> {
    // Huge pages would make one byte 512 pages.
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let engine = lazaret_guest::engine::compiling(Purpose::Program)?;
    let wasm = wat::parse_str(MODULE)?;
    let metered = |cards| Options {
        metering: false,
        recursion_limit: None,
        cards,
        ..Options::default()
    };
    let plain_wasm = instrument(
        &wasm,
        &Options {
            persistent: false,
            ..metered(None)
        },
    )?
    .wasm;
    let carded = instrument(
        &wasm,
        &Options {
            persistent: false,
            ..metered(Some(CardOptions::default()))
        },
    )?
    .wasm;
    let (mut plain, mut kernel, mut cards) = (
        load(&engine, &plain_wasm)?,
        load(&engine, &plain_wasm)?,
        load(&engine, &carded)?,
    );

    // Its memory comes from where a tenant's does.
    let tenant = lazaret_guest::engine::compiling(Purpose::Tenant)?;
    let (signal_memory, shared) = signal_memory()?;
    linear::provide(&signal_memory);
    let mut signal = load(&tenant, &plain_wasm)?;

    let memory = kernel.memory("memory")?;
    let (base, length) = (
        memory.data_ptr(&kernel.store) as u64,
        memory.data_size(&kernel.store) as u64,
    );
    let _tracking = track(base, length)?;
    let pagemap = std::fs::File::open("/proc/self/pagemap")?;
    let mut regions = vec![[0u64; 3]; 512];
    scan(&pagemap, base, base + length, &mut regions, false)?;

    println!(
        "{:>7} {:>13} {:>14} {:>14} {:>14}   ns per page over the untracked call",
        "pages", "stores/page", "kernel", "cards", "signal"
    );
    for pages in [1usize, 100, 10_000] {
        for stores in [1, 10, 100, 1_000, 4_000] {
            let stride = (PAGES / pages * 4096).min(1 << 20) as i32 & !4095;
            let arguments = (
                pages as i32,
                stride.min((PAGES / pages * 4096) as i32),
                stores,
            );
            let repeat = if pages * stores as usize > 1_000_000 {
                5
            } else {
                31
            };
            let span = (pages as u64 * arguments.1 as u64).min(length);
            let nothing = median(repeat, || {
                Ok(plain.stores.call(&mut plain.store, arguments)?)
            })?;
            let with_kernel = median(repeat, || {
                kernel.stores.call(&mut kernel.store, arguments)?;
                // Only entered chunks are scanned: those between the first and
                // the last page, at most.
                let chunk = lazaret_wire::layout::CHUNK as u64;
                let mut found = 0;
                let step = (arguments.1 as u64).max(chunk);
                let mut at = 0;
                while at < span {
                    found += scan(
                        &pagemap,
                        base + at,
                        base + (at + chunk).min(length),
                        &mut regions,
                        true,
                    )?;
                    at += step;
                }
                (found >= pages as u64)
                    .then_some(())
                    .ok_or_else(|| format!("{found} of {pages} pages were found").into())
            })?;
            let card_memory = cards.memory("lazaret:cards")?;
            let with_cards = median(repeat, || {
                cards.stores.call(&mut cards.store, arguments)?;
                let bytes = &mut card_memory.data_mut(&mut cards.store)[..PAGES];
                let mut found = 0;
                for word in bytes.as_chunks_mut::<8>().0 {
                    if u64::from_ne_bytes(*word) != 0 {
                        found += word.iter().filter(|card| **card != 0).count();
                        *word = [0; 8];
                    }
                }
                (found >= pages)
                    .then_some(())
                    .ok_or_else(|| format!("{found} of {pages} cards were set").into())
            })?;
            let with_signal = median(repeat, || {
                signal_memory.begin();
                signal.stores.call(&mut signal.store, arguments)?;
                let found = noted(shared);
                (found >= pages)
                    .then_some(())
                    .ok_or_else(|| format!("{found} of {pages} pages were noted").into())
            })?;
            let over = |time: f64| (time - nothing) / pages as f64;
            println!(
                "{pages:>7} {stores:>13} {:>14.0} {:>14.0} {:>14.0}",
                over(with_kernel),
                over(with_cards),
                over(with_signal)
            );
        }
    }
    Ok(())
}
