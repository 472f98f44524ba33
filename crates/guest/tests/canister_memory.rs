//! A tenant's memory: images, chunks, sizes.

mod canister_harness;

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use canister_harness::*;
use lazaret_wire::layout::{ENTERED, HEAP_CHUNKS, MAP_RUN_PAGES, STABLE_CHUNKS};
use lazaret_wire::message::{Entry, Outcome, Region, Run, Sizes, Tracking, TrapKind};

const MIB: u64 = 1 << 20;

/// Reads and writes words of either memory; the argument is address and value.
const MEMORY: &str = r#"(module
  (import "ic0" "msg_reply" (func $reply)) (import "ic0" "msg_reply_data_append" (func $append (param {I} {I})))
  (import "ic0" "msg_arg_data_copy" (func $arg (param {I} {I} {I})))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (memory 1)
  (global $at (mut i64) (i64.const 0)) (global $value (mut i64) (i64.const 0))
  (func $take (param $n i64))
  (func (export "canister_query read")
    (call $arg ({I}.const 0) ({I}.const 0) ({I}.const 8))
    (i64.store ({I}.const 16) (i64.load (ADDR)))
    (call $append ({I}.const 16) ({I}.const 8)) (call $reply))
  (func (export "canister_query size")
    (i64.store ({I}.const 16) SIZE)
    (call $append ({I}.const 16) ({I}.const 8)) (call $reply))
  (func (export "canister_query silent_read")
    (drop (i64.load ({I}.const 6291456))) (call $reply))
  (func (export "canister_update write")
    (call $arg ({I}.const 0) ({I}.const 0) ({I}.const 16))
    (i64.store (ADDR) (i64.load ({I}.const 8))) (call $reply))
  (func (export "canister_update copy_in") (call $arg ({I}.const 10485760) ({I}.const 0) ({I}.const 16)) (call $reply))
  (func (export "canister_update grow") (drop (memory.grow ({I}.const 64))) (call $reply))
  (func (export "canister_update stable_grow") (drop (call $stable_grow (i64.const 64))) (call $reply))
  (func (export "canister_update stable_write")
    (call $arg ({I}.const 0) ({I}.const 0) ({I}.const 16))
    (call $stable_write (i64.load ({I}.const 0)) (i64.const 8) (i64.const 8)) (call $reply))
  (func (export "canister_query stable_read")
    (call $arg ({I}.const 0) ({I}.const 0) ({I}.const 8))
    (call $stable_read (i64.const 16) (i64.load ({I}.const 0)) (i64.const 8))
    (call $append ({I}.const 16) ({I}.const 8)) (call $reply))
)"#;

fn text(memory64: bool) -> String {
    let (address, size) = if memory64 {
        ("i64.load (i64.const 0)", "(memory.size)")
    } else {
        ("i32.load (i32.const 0)", "(i64.extend_i32_u (memory.size))")
    };
    width(
        &MEMORY.replace("ADDR", address).replace("SIZE", size),
        memory64,
    )
}

fn word(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

fn pair(at: u64, value: u64) -> Vec<u8> {
    [word(at), word(value)].concat()
}

fn done() -> Outcome {
    Outcome::Reply(Vec::new())
}

/// A tenant with zeros for an image, so that all chunks start closed.
fn zeros(memory64: bool, heap: u64, stable: u64) -> Tenant {
    let mut zeros = setup();
    zeros.sizes = Sizes { heap, stable };
    load(&text(memory64), zeros, Vec::new(), false).unwrap()
}

fn count(tenant: &Tenant) -> u32 {
    tenant
        .shared
        .u32(ENTERED)
        .load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn the_first_write_enters_its_chunk_and_closing_takes_it_back() {
    for memory64 in [false, true] {
        let mut tenant = zeros(memory64, 16 * MIB, 16 * MIB);
        assert_eq!(tenant.query("silent_read", b""), done());
        assert_eq!(
            (entered(tenant.shared, HEAP_CHUNKS), count(&tenant)),
            (vec![], 0),
            "reading enters nothing"
        );
        assert_eq!(tenant.update("write", &pair(5 * MIB, 7)), done());
        assert_eq!(
            entered(tenant.shared, HEAP_CHUNKS),
            [0, 10],
            "the argument's chunk and the word's"
        );
        assert_eq!(tenant.update("write", &pair(8 * MIB - 4, u64::MAX)), done());
        assert_eq!(
            entered(tenant.shared, HEAP_CHUNKS),
            [0, 10, 15, 16],
            "one store across two chunks"
        );
        assert_eq!(tenant.update("copy_in", &[1; 16]), done());
        assert_eq!(
            entered(tenant.shared, HEAP_CHUNKS),
            [0, 10, 15, 16, 20],
            "a store of a host function"
        );
        assert_eq!(tenant.update("stable_write", &pair(2 * MIB - 4, 9)), done());
        assert_eq!(entered(tenant.shared, STABLE_CHUNKS), [3, 4]);
        assert_eq!(count(&tenant), 7);
        tenant.next.close_heap = vec![0, 10, 15, 20];
        tenant.next.close_stable = vec![4];
        assert_eq!(tenant.query("silent_read", b""), done());
        assert_eq!(entered(tenant.shared, HEAP_CHUNKS), [16]);
        assert_eq!(
            (entered(tenant.shared, STABLE_CHUNKS), count(&tenant)),
            (vec![3], 2)
        );
        tenant.next.close_heap = vec![];
        tenant.next.close_stable = vec![];
        assert_eq!(tenant.query("read", &word(5 * MIB)), reply(7));
        assert_eq!(tenant.update("write", &pair(5 * MIB, 8)), done());
        assert_eq!(entered(tenant.shared, HEAP_CHUNKS), [0, 10, 16]);
        assert_eq!(tenant.query("read", &word(5 * MIB)), reply(8));
        assert_eq!(tenant.query("stable_read", &word(2 * MIB - 4)), reply(9));
    }
}

#[test]
fn beyond_the_size_is_a_trap_also_within_an_entered_chunk() {
    for memory64 in [false, true] {
        let mut tenant = zeros(memory64, 5 * MIB, 0);
        assert_eq!(tenant.update("write", &pair(5 * MIB - 8, 1)), done());
        assert_trap(
            tenant.update("write", &pair(5 * MIB - 4, 1)),
            TrapKind::MemoryOutOfBounds,
            "out of bounds",
        );
        assert_trap(
            tenant.update("write", &pair(5 * MIB, 1)),
            TrapKind::MemoryOutOfBounds,
            "out of bounds",
        );
        assert_trap(
            tenant.update("write", &pair(0xffff_fff0, 1)),
            TrapKind::MemoryOutOfBounds,
            "out of bounds",
        );
        assert_eq!(tenant.query("read", &word(5 * MIB - 8)), reply(1));
    }
}

#[test]
fn growth_is_entered_and_a_rolled_back_one_comes_back_as_zeros() {
    for memory64 in [false, true] {
        // The size lies in the middle of a chunk.
        let mut tenant = zeros(memory64, 3 * MIB + MIB / 4, MIB);
        let before = tenant.sizes;
        assert_eq!(
            tenant.run(Entry::Update, "grow", b"").sizes.heap,
            7 * MIB + MIB / 4
        );
        assert_eq!(
            entered(tenant.shared, HEAP_CHUNKS),
            (6..=14).collect::<Vec<_>>()
        );
        // The lower part of the chunk in which the old size lay is open too.
        assert_eq!(tenant.update("write", &pair(3 * MIB, 3)), done());
        assert_eq!(tenant.update("write", &pair(6 * MIB, 5)), done());
        assert_eq!(tenant.query("read", &word(6 * MIB)), reply(5));
        assert_eq!(
            tenant.run(Entry::Update, "stable_grow", b"").sizes.stable,
            5 * MIB
        );
        assert_eq!(tenant.update("stable_write", &pair(4 * MIB, 6)), done());
        assert_eq!(tenant.query("size", b""), reply((7 * MIB + MIB / 4) >> 16));
        tenant.sizes = before;
        assert_eq!(
            tenant.query("size", b""),
            reply((3 * MIB + MIB / 4) >> 16),
            "the instance knows of the size that it was given back"
        );
        assert_trap(
            tenant.query("read", &word(6 * MIB)),
            TrapKind::MemoryOutOfBounds,
            "out of bounds",
        );
        assert_trap(
            tenant.query("stable_read", &word(4 * MIB)),
            TrapKind::MemoryOutOfBounds,
            "stable memory of 1048576",
        );
        assert_eq!(entered(tenant.shared, HEAP_CHUNKS), [0, 6]);
        assert_eq!(tenant.update("grow", b""), done());
        assert_eq!(tenant.update("stable_grow", b""), done());
        assert_eq!(tenant.query("read", &word(6 * MIB)), reply(0));
        assert_eq!(tenant.query("stable_read", &word(4 * MIB)), reply(0));
        assert_eq!(tenant.query("read", &word(3 * MIB)), reply(3));
        // A version that is larger than what the worker has now.
        let larger = tenant.sizes;
        tenant.sizes = before;
        assert_trap(
            tenant.query("silent_read", b""),
            TrapKind::MemoryOutOfBounds,
            "out of bounds",
        );
        tenant.sizes = larger;
        assert_eq!(tenant.query("read", &word(6 * MIB)), reply(0));
    }
}

/// Two files of pages, each page filled with its number (and the file's).
fn files() -> Vec<std::fs::File> {
    (0..2u64)
        .map(|file_number| {
            let mut bytes = Vec::new();
            for page in 0..64u64 {
                (0..512).for_each(|_| bytes.extend((file_number << 32 | page).to_le_bytes()));
            }
            file(&bytes)
        })
        .collect()
}

fn descriptors(files: &[std::fs::File]) -> Vec<OwnedFd> {
    files
        .iter()
        .map(|file| file.try_clone().unwrap().into())
        .collect()
}

fn image(tracking: Tracking) -> lazaret_wire::message::TenantSetup {
    let mut image = setup();
    image.sizes = Sizes {
        heap: 4 * MIB,
        stable: 4 * MIB,
    };
    image.tracking = tracking;
    image.runs = vec![
        run(16, 32, 0, 8 * 4096),
        run(600, 3, 1, 5 * 4096),
        run(48, 16, 1, 0),
        Run {
            region: Region::Stable,
            ..run(1, 1, 0, 63 * 4096)
        },
        Run {
            region: Region::Stable,
            ..run(500, 20, 1, 40 * 4096)
        },
    ];
    image
}

fn check_image(tenant: &mut Tenant) {
    let page = |page: u64| word(page * 4096 + 4088);
    for (at, value) in [
        (15, 0),
        (16, 8),
        (47, 39),
        (48, 1 << 32),
        (63, 1 << 32 | 15),
        (64, 0),
        (599, 0),
        (600, 1 << 32 | 5),
        (602, 1 << 32 | 7),
        (603, 0),
    ] {
        assert_eq!(
            tenant.query("read", &page(at)),
            reply(value),
            "heap page {at}"
        );
    }
    for (at, value) in [
        (0, 0),
        (1, 63),
        (2, 0),
        (500, 1 << 32 | 40),
        (519, 1 << 32 | 59),
        (520, 0),
    ] {
        assert_eq!(
            tenant.query("stable_read", &page(at)),
            reply(value),
            "stable page {at}"
        );
    }
}

#[test]
fn an_image_is_mapped_or_copied_and_its_files_stay_as_they_are() {
    // Long runs are mapped, or none.
    for map_from in [MAP_RUN_PAGES, u64::MAX] {
        mapped_or_copied(map_from);
    }
}

fn mapped_or_copied(map_from: u64) {
    let files = files();
    let mut setup = image(Tracking::None);
    setup.map_from = map_from;
    let mut tenant = load(&text(false), setup, descriptors(&files), false).unwrap();
    assert_eq!(entered(tenant.shared, HEAP_CHUNKS), [] as [usize; 0]);
    check_image(&mut tenant);
    for page in [16, 50, 601] {
        assert_eq!(tenant.update("write", &pair(page * 4096, 0xdead)), done());
        assert_eq!(tenant.query("read", &word(page * 4096)), reply(0xdead));
    }
    assert_eq!(
        tenant.update("stable_write", &pair(500 * 4096, 0xbeef)),
        done()
    );
    for (number, file) in files.iter().enumerate() {
        for page in 0..64 {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, page * 4096).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), (number as u64) << 32 | page);
        }
    }
}

/// The pages of the heap's first 8 MiB that were written since they were armed,
/// found as the host finds them (`PAGEMAP_SCAN`, fs/proc/task_mmu.c); `arm`
/// arms them again.
fn written(tenant: &Tenant, arm: bool) -> Vec<u64> {
    use std::os::fd::AsRawFd;
    const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;
    const WRITTEN: u64 = 2;
    const PRESENT_OR_SWAPPED: u64 = 8 | 16;
    const CHECK_WPASYNC: u64 = 2;
    let start = tenant.canister.memory().heap().base() as u64;
    let mut regions = [[0u64; 3]; 64];
    let flags = CHECK_WPASYNC | u64::from(arm);
    let (vec, vec_len) = (regions.as_mut_ptr() as u64, regions.len() as u64);
    // Armed are also the pages that nobody has touched.
    let any_of = if arm { 0 } else { PRESENT_OR_SWAPPED };
    let mut scan: [u64; 12] = [
        96,
        flags,
        start,
        start + 8 * MIB,
        0,
        vec,
        vec_len,
        0,
        0,
        WRITTEN,
        any_of,
        WRITTEN,
    ];
    let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
    // SAFETY: the argument is a `struct pm_scan_arg` with room for 64 regions.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, scan.as_mut_ptr()) };
    assert!(found >= 0, "{}", std::io::Error::last_os_error());
    regions[..found as usize]
        .iter()
        .flat_map(|region| (region[0] - start) / 4096..(region[1] - start) / 4096)
        .collect()
}

#[test]
fn with_a_tracker_all_works_the_same() {
    let files = files();
    let mut tenant = match load(
        &text(true),
        image(Tracking::Kernel),
        descriptors(&files),
        false,
    ) {
        Ok(tenant) => tenant,
        // Kernels before 6.7, and containers that forbid it.
        Err(failed) if failed.message.contains("userfaultfd") => {
            eprintln!("skipped: {}", failed.message);
            return;
        }
        Err(failed) => panic!("{failed:?}"),
    };
    assert!(tenant.tracker.is_some());
    check_image(&mut tenant);
    // Arms all that is there, then looks for what was written since.
    written(&tenant, true);
    assert_eq!(written(&tenant, false), []);
    assert_eq!(tenant.update("write", &pair(17 * 4096, 1)), done());
    assert_eq!(tenant.update("write", &pair(50 * 4096, 1)), done());
    assert_eq!(tenant.update("write", &pair(601 * 4096, 1)), done());
    assert_eq!(tenant.update("write", &pair(700 * 4096, 1)), done());
    assert_eq!(written(&tenant, true), [0, 17, 50, 601, 700]);
    assert_eq!(tenant.update("grow", b""), done());
    assert_eq!(tenant.update("write", &pair(7 * MIB, 2)), done());
    assert_eq!(written(&tenant, false), [0, 7 * MIB / 4096]);
    assert_eq!(tenant.query("read", &word(17 * 4096)), reply(1));
    assert_eq!(tenant.query("read", &word(7 * MIB)), reply(2));
}

/// The pages whose cards are set, of the heap and of the stable memory; clears
/// them, as the host does.
fn carded(tenant: &Tenant) -> [Vec<usize>; 2] {
    let cards = tenant.canister.memory().cards().unwrap();
    [0, 1].map(|of: usize| {
        let region = cards[of].region();
        let mut bytes = Vec::new();
        assert!(region.read(0, region.size(), &mut bytes));
        let set: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
        for &at in &set {
            assert!(region.write(at as u64, &[0]));
        }
        set
    })
}

#[test]
fn with_cards_all_works_the_same() {
    for memory64 in [false, true] {
        let files = files();
        let image = image(Tracking::Cards);
        let mut tenant = load(&text(memory64), image, descriptors(&files), false).unwrap();
        assert!(tenant.tracker.is_none());
        assert_eq!(
            (count(&tenant), carded(&tenant)),
            (0, [vec![], vec![]]),
            "what the image holds was not written"
        );
        check_image(&mut tenant);
        // The argument is in a page of its own, written by a system call.
        assert_eq!(carded(&tenant), [vec![0], vec![]]);
        assert_eq!(entered(tenant.shared, HEAP_CHUNKS), [0]);
        for page in [17, 50, 601, 700] {
            assert_eq!(tenant.update("write", &pair(page * 4096, 1)), done());
        }
        assert_eq!(carded(&tenant), [vec![0, 17, 50, 601, 700], vec![]]);
        assert_eq!(
            tenant.update("write", &pair(20 * 4096 - 4, u64::MAX)),
            done(),
            "one store to two pages"
        );
        assert_eq!(carded(&tenant)[0], [0, 19, 20]);
        assert_eq!(tenant.update("stable_write", &pair(2 * MIB - 4, 9)), done());
        assert_eq!(carded(&tenant)[1], [511, 512]);
        assert_eq!(tenant.update("grow", b""), done());
        assert_eq!(tenant.update("write", &pair(7 * MIB, 2)), done());
        assert_eq!(carded(&tenant)[0], [0, 7 * MIB as usize / 4096]);
        assert_eq!(tenant.query("read", &word(17 * 4096)), reply(1));
        assert_eq!(tenant.query("read", &word(7 * MIB)), reply(2));
        // A closed page of cards opens again, and is entered again.
        carded(&tenant);
        tenant.next.close_heap = vec![0];
        assert_eq!(tenant.query("silent_read", b""), done());
        assert_eq!(entered(tenant.shared, HEAP_CHUNKS), [] as [usize; 0]);
        tenant.next.close_heap = vec![];
        assert_eq!(tenant.update("write", &pair(17 * 4096, 3)), done());
        assert_eq!(entered(tenant.shared, HEAP_CHUNKS), [0]);
        assert_eq!(carded(&tenant)[0], [0, 17]);
    }
}

#[test]
fn with_the_signal_tracker_all_works_the_same() {
    for memory64 in [false, true] {
        let files = files();
        let image = image(Tracking::Signal);
        let mut tenant = load(&text(memory64), image, descriptors(&files), false).unwrap();
        assert!(tenant.tracker.is_none());
        assert_eq!(count(&tenant), 0, "what the image holds was not written");
        check_image(&mut tenant);
        // The argument is in a page of its own, written by a system call.
        assert_eq!(noted(&tenant), [vec![0], vec![]]);
        for page in [17, 50, 601, 700] {
            assert_eq!(tenant.update("write", &pair(page * 4096, 1)), done());
            assert_eq!(
                noted(&tenant),
                [vec![0, page], vec![]],
                "of this call alone"
            );
        }
        assert_eq!(
            tenant.update("write", &pair(20 * 4096 - 4, u64::MAX)),
            done(),
            "one store to two pages"
        );
        assert_eq!(noted(&tenant)[0], [0, 19, 20]);
        assert_eq!(tenant.update("stable_write", &pair(2 * MIB - 4, 9)), done());
        assert_eq!(noted(&tenant)[1], [511, 512]);
        assert_eq!(tenant.update("grow", b""), done());
        assert_eq!(noted(&tenant), [vec![], vec![]], "growing writes nothing");
        assert_eq!(tenant.update("write", &pair(7 * MIB, 2)), done());
        assert_eq!(noted(&tenant)[0], [0, 7 * MIB / 4096]);
        assert_eq!(tenant.query("silent_read", b""), done());
        assert_eq!((noted(&tenant), count(&tenant)), ([vec![], vec![]], 0));
        assert_eq!(tenant.query("read", &word(17 * 4096)), reply(1));
        assert_eq!(tenant.query("read", &word(7 * MIB)), reply(2));
    }
}

/// Cards take memory beside the tenant's limit, and none of its fuel.
#[test]
fn cards_change_neither_limits_nor_fuel() {
    let fuel = |tracking| {
        let mut small = setup();
        (small.tracking, small.heap_limit) = (tracking, 8 * MIB);
        small.sizes = Sizes {
            heap: 4 * MIB,
            stable: 4 * MIB,
        };
        let mut tenant = load(&text(true), small, Vec::new(), false).unwrap();
        ["write", "grow", "grow", "grow", "copy_in"].map(|method| {
            let done = tenant.run(Entry::Update, method, &pair(64, 7));
            (done.fuel_left, done.sizes, done.outcome)
        })
    };
    assert_eq!(fuel(Tracking::None), fuel(Tracking::Cards));
    assert_eq!(fuel(Tracking::None), fuel(Tracking::Signal));
}

#[test]
fn code_with_cards_is_refused_where_none_are_wanted() {
    let mut asked = image(Tracking::Kernel);
    asked.runs.clear();
    let wasm = wat::parse_str(text(true)).unwrap();
    let settings = lazaret_wire::message::CompileSettings {
        purpose: lazaret_wire::message::Purpose::Tenant,
        metered: true,
        cards: true,
        snapshot: false,
    };
    let (artefact, _) = lazaret_guest::compiler::compile(&wasm, &settings).unwrap();
    let engine = lazaret_guest::engine::running(settings.purpose).unwrap();
    let shared: &'static lazaret_wire::Shared = Box::leak(Box::new(
        lazaret_wire::Shared::map(std::os::fd::AsFd::as_fd(
            &lazaret_wire::shared::create().unwrap(),
        ))
        .unwrap(),
    ));
    let failed = lazaret_guest::canister::Canister::load(
        &engine,
        &canister_harness::file(&artefact),
        &asked,
        Vec::new(),
        shared,
    )
    .err()
    .unwrap();
    assert!(failed.message.contains("compiled with cards"), "{failed:?}");
}

#[test]
fn a_wrong_image_is_refused_before_anything_is_mapped() {
    let refused = |change: fn(&mut lazaret_wire::message::TenantSetup), part: &str| {
        let mut wrong = image(Tracking::None);
        change(&mut wrong);
        let failed = load(&text(false), wrong, descriptors(&files()), false)
            .err()
            .unwrap();
        assert!(failed.message.contains(part), "{}", failed.message);
    };
    refused(
        |image| image.runs = vec![run(1020, 5, 0, 0)],
        "beyond the memory",
    );
    refused(
        |image| image.runs = vec![run(u64::MAX, 5, 0, 0)],
        "beyond the memory",
    );
    refused(|image| image.runs = vec![run(0, 0, 0, 0)], "empty");
    refused(|image| image.runs = vec![run(0, 16, 2, 0)], "no such file");
    refused(
        |image| image.runs = vec![run(0, 16, 0, 100)],
        "multiple of 4096",
    );
    refused(
        |image| image.runs = vec![run(0, 16, 0, 49 * 4096)],
        "beyond the end of its file",
    );
    refused(
        |image| image.runs = vec![run(0, 1, 0, u64::MAX - 4095)],
        "beyond the end of its file",
    );
    refused(|image| image.runs = vec![run(0, 16, 0, 0); 4001], "compact");
    let mut copied = image(Tracking::None);
    (copied.runs, copied.map_from) = (vec![run(0, 16, 0, 0); 4001], 17);
    assert!(load(&text(false), copied, descriptors(&files()), false).is_ok());
    refused(|image| image.sizes.heap = 65 * MIB, "at most its limit");
    refused(|image| image.sizes.stable = 4097, "multiple of 65536");
    refused(|image| image.stable_limit = u64::MAX, "lower it");
}
