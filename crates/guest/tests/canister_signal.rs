//! The signal tracker with many pages: they are found, and mappings stay few.
//! Copying by the worker.

mod canister_harness;

use canister_harness::*;
use lazaret_wire::layout::{MAX_OPEN_RUNS, PAGE, TRANSFER};
use lazaret_wire::message::{
    Outcome, Region, Sizes, Space, Tracking, Transfer, TransferDirection, TransferRun,
};

/// Adds one to bytes: how many, the distance between them, how often all of
/// them in turn, and where the first is.
const PASSES: &str = r#"(module
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_arg_data_copy" (func $arg (param i32 i32 i32)))
  (memory 4096)
  (func (export "canister_update add")
    (local $passes i32) (local $left i32) (local $at i32)
    (call $arg (i32.const 0) (i32.const 0) (i32.const 16))
    (local.set $passes (i32.load (i32.const 8)))
    (loop $pass
      (local.set $left (i32.load (i32.const 0)))
      (local.set $at (i32.load (i32.const 12)))
      (loop $next
        (i32.store8 (local.get $at) (i32.add (i32.load8_u (local.get $at)) (i32.const 1)))
        (local.set $at (i32.add (local.get $at) (i32.load (i32.const 4))))
        (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (br_if $pass (local.tee $passes (i32.sub (local.get $passes) (i32.const 1)))))
    (call $reply))
  (func (export "canister_query nothing") (call $reply)))"#;

const FIRST: u64 = 65_536 / PAGE as u64;

fn load_passes(tracking: Tracking) -> Tenant {
    let mut setup = setup();
    setup.tracking = tracking;
    setup.heap_limit = 256 << 20;
    setup.sizes = Sizes {
        heap: 256 << 20,
        stable: 0,
    };
    load(PASSES, setup, Vec::new(), false).unwrap()
}

fn add(tenant: &mut Tenant, count: u32, stride: i32, passes: u32) {
    add_from(tenant, FIRST * PAGE as u64, count, stride, passes);
}

fn add_from(tenant: &mut Tenant, from: u64, count: u32, stride: i32, passes: u32) {
    let numbers = [count, stride.cast_unsigned(), passes, from as u32];
    let argument = numbers.map(u32::to_le_bytes).concat();
    assert_eq!(tenant.update("add", &argument), Outcome::Reply(Vec::new()));
}

/// How many mappings the heap is (proc_pid_maps(5)).
fn mappings(tenant: &Tenant) -> usize {
    let heap = tenant.canister.memory().heap();
    let start = heap.base() as usize;
    let range = start..start + heap.capacity();
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter_map(|line| usize::from_str_radix(line.split('-').next()?, 16).ok())
        .filter(|start| range.contains(start))
        .count()
}

fn closed(tenant: &mut Tenant) {
    assert_eq!(tenant.query("nothing", b""), Outcome::Reply(Vec::new()));
    assert_eq!(noted(tenant), [vec![], vec![]]);
    // What can be accessed, and what can't.
    assert_eq!(mappings(tenant), 2);
}

#[test]
fn scattered_pages_are_noted_one_by_one_however_many_and_mappings_stay_few() {
    let mut tenant = load_passes(Tracking::Signal);
    closed(&mut tenant);
    for (count, apart) in [(20_000, 2), (3, 5_000), (9_000, 3), (20_000, 2)] {
        add(&mut tenant, count, apart * PAGE as i32, 1);
        let mut expected = vec![0];
        expected.extend((0..u64::from(count)).map(|i| FIRST + i * apart as u64));
        assert_eq!(noted(&tenant), [expected, vec![]]);
        assert!(
            mappings(&tenant) <= 2 * MAX_OPEN_RUNS + 3,
            "{} mappings",
            mappings(&tenant)
        );
        closed(&mut tenant);
    }
}

/// Pages that are closed for want of mappings while they are still written to.
#[test]
fn more_pages_than_mappings_written_again_and_again_are_all_noted() {
    let mut tenant = load_passes(Tracking::Signal);
    let (count, apart, passes) = (20_000, 3, 6);
    add(&mut tenant, count, apart * PAGE as i32, passes);
    let [heap, _] = noted(&tenant);
    let heap: std::collections::BTreeSet<u64> = heap.into_iter().collect();
    for i in 0..u64::from(count) {
        let page = FIRST + i * apart as u64;
        assert!(heap.contains(&page), "page {page}");
        let mut byte = Vec::new();
        assert!(
            tenant
                .canister
                .memory()
                .heap()
                .read(page * PAGE as u64, 1, &mut byte)
        );
        assert_eq!(byte, [passes as u8], "page {page}");
    }
    assert!(mappings(&tenant) <= 2 * MAX_OPEN_RUNS + 3);
    closed(&mut tenant);
}

#[test]
fn of_pages_in_a_row_at_most_as_many_again_are_noted() {
    let mut tenant = load_passes(Tracking::Signal);
    // Downwards from the last of them, upwards from the first.
    for (count, down) in [1u64, 2, 3, 5, 40, 1_000]
        .into_iter()
        .flat_map(|count| [(count, false), (count, true)])
    {
        let (from, stride) = match down {
            false => (FIRST, PAGE as i32),
            true => (FIRST + count - 1, -(PAGE as i32)),
        };
        add_from(&mut tenant, from * PAGE as u64, count as u32, stride, 1);
        let [heap, _] = noted(&tenant);
        assert!((FIRST..FIRST + count).all(|page| heap.contains(&page)));
        assert!(
            heap.len() as u64 <= 1 + 2 * count,
            "{} for {count}",
            heap.len()
        );
    }
    closed(&mut tenant);
}

#[test]
fn the_worker_copies_pages_out_and_in() {
    let runs = |pages: &[(u64, u32)]| -> Vec<TransferRun> {
        let run = |&(first_page, pages)| TransferRun {
            region: Region::Heap,
            first_page,
            pages,
        };
        pages.iter().map(run).collect()
    };
    for tracking in [Tracking::Cards, Tracking::Signal, Tracking::None] {
        let mut tenant = load_passes(tracking);
        add(&mut tenant, 3, 7 * PAGE as i32, 1);
        let before = noted(&tenant);
        let transfer = |space, direction, pages: &[(u64, u32)]| Transfer {
            space,
            direction,
            runs: runs(pages),
        };
        let take = |tenant: &Tenant, space, pages: &[(u64, u32)], count: usize| {
            let out = transfer(space, TransferDirection::Out, pages);
            tenant.canister.memory().transfer(&out, tenant.shared);
            let mut bytes = vec![0; count * PAGE];
            tenant.shared.copy_out_to(TRANSFER, &mut bytes);
            bytes
        };
        let bytes = take(&tenant, Space::Memory, &[(FIRST, 1), (FIRST + 7, 2)], 3);
        let set: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
        assert_eq!(
            set,
            [0, PAGE],
            "the second of two neighbours was not written"
        );
        assert_eq!(noted(&tenant), before, "reading notes nothing");
        // What the host writes is not noted as the guest's.
        tenant.shared.copy_in(TRANSFER, &[9; 2 * PAGE]);
        let put = transfer(
            Space::Memory,
            TransferDirection::In,
            &[(FIRST, 1), (300, 1)],
        );
        tenant.canister.memory().transfer(&put, tenant.shared);
        assert_eq!(
            take(&tenant, Space::Memory, &[(FIRST, 1), (300, 1), (301, 1)], 3),
            [[9; PAGE], [9; PAGE], [0; PAGE]].concat()
        );
        if tracking == Tracking::Cards {
            let cards = take(&tenant, Space::Cards, &[(0, 1)], 1);
            let set: Vec<usize> = (0..PAGE).filter(|&at| cards[at] != 0).collect();
            assert_eq!(set, [0, 16, 23, 30]);
            tenant.shared.copy_in(TRANSFER, &[0; PAGE]);
            let clear = transfer(Space::Cards, TransferDirection::In, &[(0, 1)]);
            tenant.canister.memory().transfer(&clear, tenant.shared);
            assert_eq!(take(&tenant, Space::Cards, &[(0, 1)], 1), [0; PAGE]);
        }
        assert_eq!(tenant.query("nothing", b""), Outcome::Reply(Vec::new()));
        assert_eq!(noted(&tenant), [vec![], vec![]]);
    }
}
