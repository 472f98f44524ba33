//! Promise: two tenants share nothing through which one could tell the other
//! something, but for what `docs/covert-channels.md` says is open.
#![cfg(target_arch = "x86_64")]

mod quarantine;
#[path = "../../tests/worker_memory.rs"]
mod worker_memory;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use lazaret::Ending;
use lazaret::wall::{Kind, Measure};
use lazaret_redteam::attack::Expected;
use lazaret_redteam::attacks::channels::{CHANNELS, Standing};
use lazaret_redteam::attacks::{channels, find};
use quarantine::{COARSE, Quarantine, READ_WRITE, Seen};

/// Every way in that a process could try, tried by a tenant and by the program
/// that may do most: none of them is answered by the kernel.
#[test]
fn no_channel_s_calls_are_answered() {
    let quarantine = Quarantine::new();
    let mut tried = 0;
    for (number, channel) in CHANNELS.iter().enumerate() {
        for (index, attempt) in channel.calls.iter().enumerate() {
            for kind in [Kind::Tenant, READ_WRITE] {
                let seen = quarantine.attack_as(kind, &format!("channel {number} {index}"));
                let Seen::Ended(Ending::Violation(violation)) = &seen else {
                    panic!("{}: {} as {kind:?}: {seen:?}", channel.object, attempt.name)
                };
                // It was this call that was stopped, where the host was told.
                if let Some(call) = &violation.call {
                    assert_eq!(i64::from(call.number), attempt.number, "{}", attempt.name);
                }
                tried += 1;
            }
        }
        quarantine.neighbour_is_right();
    }
    quarantine.victim_goes_on();
    assert!(tried > 120, "{tried} calls");
}

/// The instructions end the worker of whoever has no exact clocks.
#[test]
fn no_counter_of_the_processor_s_can_be_read() {
    let quarantine = Quarantine::new();
    let receipt = quarantine.hostile.receipt().expect("a receipt");
    let counter = receipt
        .measures
        .iter()
        .find(|entry| entry.measure == Measure::CycleCounter)
        .expect("it is on the receipt");
    assert!(counter.standing.holds(), "{counter:?}");
    for attack in channels::ATTACKS
        .iter()
        .filter(|attack| attack.expected != Expected::Violation)
    {
        for kind in [Kind::Tenant, COARSE] {
            let seen = quarantine.attack_as(kind, attack.name);
            assert!(
                seen.is(attack.expected),
                "{} as {kind:?}: {seen:?}",
                attack.name
            );
        }
        quarantine.neighbour_is_right();
    }
    quarantine.victim_goes_on();
}

/// Nor do system calls tell a finer time than the coarse clocks: a program
/// has those that it was given.
#[test]
fn exact_clocks_can_not_be_asked_for() {
    let quarantine = Quarantine::new();
    for (clock, kind, answered) in [
        (libc::CLOCK_MONOTONIC, COARSE, false),
        (libc::CLOCK_REALTIME, COARSE, false),
        (libc::CLOCK_PROCESS_CPUTIME_ID, COARSE, false),
        (libc::CLOCK_MONOTONIC_COARSE, COARSE, true),
        (libc::CLOCK_REALTIME_COARSE, COARSE, true),
        (libc::CLOCK_MONOTONIC, READ_WRITE, true),
        (libc::CLOCK_MONOTONIC_COARSE, Kind::Tenant, false),
    ] {
        let seen = quarantine.attack_as(kind, &format!("clock {clock}"));
        let right = match answered {
            true => seen.is(Expected::Reply("returned 0")),
            false => seen.is(Expected::Violation),
        };
        assert!(right, "clock {clock} as {kind:?}: {seen:?}");
    }
}

/// The same instruction works where nobody refuses it: the test above would see it.
#[test]
fn a_compiler_keeps_its_counter_and_says_so() {
    let quarantine = Quarantine::new();
    let seen = quarantine.attack_as(Kind::Compiler, "rdtsc");
    assert!(seen.is(Expected::Reply("read ")), "{seen:?}");
}

#[test]
fn what_the_kernel_tells_of_the_machine_can_not_be_opened() {
    let quarantine = Quarantine::new();
    for name in ["open_proc", "open_root", "open_absolute"] {
        let attack = find(name).expect("the attack");
        let seen = quarantine.attack_as(READ_WRITE, name);
        assert!(seen.is(attack.expected), "{name}: {seen:?}");
        assert!(matches!(
            quarantine.attack(name),
            Seen::Ended(Ending::Violation(_))
        ));
    }
}

/// No page that one worker may write is another's too, and what both can read is
/// nobody's to write.
#[test]
fn two_workers_share_nothing_that_either_could_write() {
    let quarantine = Quarantine::new();
    quarantine.neighbour_is_right();
    let pids = [&quarantine.hostile, &quarantine.neighbour]
        .map(|tenant| tenant.info().worker.expect("its worker"));
    assert_ne!(pids[0], pids[1]);
    let writable_by_all = |pid: i32| -> BTreeSet<(String, u64)> {
        worker_memory::mappings(pid)
            .into_iter()
            .filter(|mapping| mapping.flags.contains('s'))
            .filter_map(|mapping| mapping.file)
            .collect()
    };
    let [ours, theirs] = pids.map(writable_by_all);
    // Each shares its wire with the host, and only that.
    assert_eq!((ours.len(), theirs.len()), (1, 1), "{ours:?} {theirs:?}");
    assert_eq!(ours.intersection(&theirs).count(), 0, "{ours:?}");
    // What both map of one file, they map privately.
    let files = |pid: i32| -> BTreeSet<(String, u64)> {
        let mappings = worker_memory::mappings(pid).into_iter();
        mappings.filter_map(|mapping| mapping.file).collect()
    };
    let both: BTreeSet<_> = files(pids[0])
        .intersection(&files(pids[1]))
        .cloned()
        .collect();
    assert!(!both.is_empty(), "they run the same executable");
    for pid in pids {
        for mapping in worker_memory::mappings(pid) {
            if mapping
                .file
                .as_ref()
                .is_some_and(|file| both.contains(file))
            {
                assert!(mapping.flags.ends_with('p'), "{mapping:?}");
            }
        }
    }
}

/// A process whose memory is dumped leaves it to whoever collects crashes.
/// `PIDFD_GET_INFO` (kernel: include/uapi/linux/pidfd.h, Linux 6.16) tells of a
/// process whether it would be.
#[test]
fn a_crash_of_a_worker_leaves_no_core() {
    const GET_INFO: u64 = 0xc050_ff0b;
    const COREDUMP: u64 = 1 << 4;
    const SKIP: u32 = 1 << 1;
    let quarantine = Quarantine::new();
    let pid = quarantine.hostile.info().worker.expect("its worker");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("the limit of cores");
    assert_eq!(
        core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(),
        ["0", "0"]
    );
    let mask = |pid: u32| -> Option<u32> {
        let process = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(pid as i32)?,
            rustix::process::PidfdFlags::empty(),
        )
        .expect("a pidfd");
        // Ten numbers of eight bytes; the first is what is wanted, and the core's
        // state follows the sixteen numbers of four bytes.
        let mut info = [0u64; 10];
        info[0] = COREDUMP;
        // SAFETY: the ioctl writes as many bytes as its number says, 80.
        let done = unsafe {
            libc::ioctl(
                std::os::fd::AsRawFd::as_raw_fd(&process),
                GET_INFO,
                info.as_mut_ptr(),
            )
        };
        (done == 0 && info[0] & COREDUMP != 0)
            .then(|| info.map(u64::to_ne_bytes).concat())
            .map(|bytes| u32::from_ne_bytes(std::array::from_fn(|at| bytes[CORE_AT + at])))
    };
    /// Where `coredump_mask` lies in `struct pidfd_info`: after mask and cgroupid
    /// (8 bytes each), eleven ids (4 each) and the exit code.
    const CORE_AT: usize = 16 + 4 * 12;
    match (mask(pid as u32), mask(std::process::id())) {
        (Some(worker), Some(own)) => {
            assert_eq!(
                worker & SKIP,
                SKIP,
                "its memory would be dumped: {worker:#x}"
            );
            assert_eq!(own & SKIP, 0, "this process is like any other: {own:#x}");
        }
        _ => eprintln!("this kernel doesn't tell (PIDFD_GET_INFO, Linux 6.16)"),
    }
}

/// `docs/covert-channels.md` is the table in words. `UPDATE_DOCS=1` renews it.
#[test]
fn the_documented_table_is_the_tested_one() {
    let mut text = String::from(
        "# Covert channels\n\n\
What two tenants on one machine could share, through which one could learn of the\n\
other or tell it something: who closes it, and which test shows that. This table is\n\
`redteam/src/attacks/channels/table.rs`; `redteam/tests/channels.rs` tries each call in a\n\
tenant's worker and in that of the program that may do most, and keeps this file as\n\
it is there (`UPDATE_DOCS=1` writes it anew).\n\n\
| what is shared | state | by what, or how far | calls that are tried, and other tests |\n\
|---|---|---|---|\n",
    );
    for channel in CHANNELS {
        let (state, words) = match channel.standing {
            Standing::Closed(by) => ("closed", by),
            Standing::Open(far) => ("**open**", far),
        };
        let mut tests: Vec<String> = channel
            .calls
            .iter()
            .map(|attempt| format!("`{}`", attempt.name))
            .collect();
        tests.extend((!channel.shown_by.is_empty()).then(|| channel.shown_by.to_owned()));
        // A closed channel has a test, or it is only said to be closed.
        assert!(
            state != "closed" || !tests.is_empty(),
            "{} is shown by nothing",
            channel.object
        );
        writeln!(
            text,
            "| {} | {state} | {words} | {} |",
            channel.object,
            tests.join(", ")
        )
        .expect("text");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/covert-channels.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let kept = std::fs::read_to_string(&path).expect("the documented table");
    assert_eq!(
        kept, text,
        "docs/covert-channels.md: UPDATE_DOCS=1 renews it"
    );
}
