//! Promise: whatever a tenant does, its neighbour's answers are right.
#![cfg(target_arch = "x86_64")]

mod quarantine;

use lazaret::Ending;
use lazaret::wall::Kind;
use lazaret_redteam::attacks::{exhaustion, find, granted};
use quarantine::{MEMORY, Quarantine, READ_ONLY, READ_WRITE, Seen};

/// The worker scribbles over everything shared without end, in one thread's
/// time with the host's reading, for 10,000 calls; it is killed when the host
/// notices, and replaced. Its neighbour is called as often.
#[test]
fn ten_thousand_calls_beside_a_worker_that_scribbles_over_everything_shared() {
    let quarantine = Quarantine::new();
    let (mut answered, mut killed) = (0, 0);
    for round in 0..10_000 {
        match quarantine.attack(&format!("scribble {round}")) {
            Seen::Reply(_) => answered += 1,
            Seen::Ended(Ending::Malformed(_)) => killed += 1,
            // What it says of its memory may be unreadable too.
            Seen::Unreadable(_) => killed += 1,
            // An answer that was scribbled into another outcome.
            Seen::Other(_) => answered += 1,
            other => panic!("round {round}: {other:?}"),
        }
        quarantine.neighbour_is_right();
    }
    // Both happen, or the test tests nothing.
    assert!(
        answered > 1000 && killed > 100,
        "{answered} answered, {killed} killed"
    );
    let _ = quarantine.hostile.logs().expect("the log");
}

#[test]
fn scribbling_over_the_bells_too_ends_the_worker() {
    let quarantine = Quarantine::new();
    for seed in 1..50 {
        let seen = quarantine.attack(&format!("scribble_everything {seed}"));
        assert!(
            matches!(seen, Seen::Ended(Ending::Malformed(_))),
            "{seen:?}"
        );
        quarantine.neighbour_is_right();
    }
    quarantine.victim_goes_on();
}

/// The number in `refused after N ...`.
fn refused_after(seen: &Seen) -> u64 {
    match seen {
        Seen::Reply(text) => text
            .strip_prefix("refused after ")
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{text}")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_memory_bomb_ends_at_the_limit() {
    let quarantine = Quarantine::new();
    // Both memories and the worker's own 512 MiB (`OWN_DATA` of the host).
    let limit = ((2 * MEMORY) >> 20) + 512;
    for name in ["break_bomb", "map_bomb"] {
        let got = refused_after(&quarantine.attack(name));
        assert!(
            got > 0 && got <= limit,
            "{name}: {got} MiB, the limit is {limit}"
        );
        quarantine.neighbour_is_right();
    }
    quarantine.check(find("allocate").expect("the attack"), "");
    quarantine.victim_goes_on();
}

#[test]
fn mappings_end_at_the_kernel_s_limit() {
    let quarantine = Quarantine::new();
    let most: u64 = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .expect("the limit")
        .trim()
        .parse()
        .expect("a number");
    let got = refused_after(&quarantine.attack("mappings"));
    assert!(got <= most, "{got} mappings");
    quarantine.neighbour_is_right();
    quarantine.victim_goes_on();
}

/// 64 GiB that are only read once took 128 MiB of page tables, which no limit
/// of memory counts.
#[test]
fn page_tables_end_at_the_limit_of_addresses() {
    let quarantine = Quarantine::new();
    let seen = quarantine.attack("page_tables");
    let got = refused_after(&seen);
    // What the kernel says when RLIMIT_AS refuses a mapping (mmap(2)).
    let refusal = format!("with errno {}", libc::ENOMEM);
    assert!(
        matches!(&seen, Seen::Reply(text) if text.ends_with(&refusal)),
        "{seen:?}"
    );
    // All is still mapped, in a worker that lives.
    let pid = quarantine.hostile.info().worker.expect("its worker");
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a file of the worker's")
    };
    let (status, limits) = (read("status"), read("limits"));
    let kibibytes = |name: &str| -> u64 {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {status}"))
    };
    let limit: u64 = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("the limit of addresses in {limits}"));
    let (limit, size, tables) = (limit >> 10, kibibytes("VmSize"), kibibytes("VmPTE"));
    // It was this limit and no other: not two more MiB fit below it.
    assert!(
        size <= limit && limit - size < 2048,
        "{size} KiB of {limit} KiB, {seen:?}"
    );
    // A table of 4 KiB for every 2 MiB, of what was got and of what can be; 2
    // MiB for the levels above and the ends of mappings.
    assert!(
        tables >= (got << 10) / 512 && tables <= limit / 512 + 2048,
        "{tables} KiB of page tables for {got} MiB"
    );
    println!("{got} MiB mapped, {tables} KiB of page tables, at most {limit} KiB of addresses");
    quarantine.neighbour_is_right();
    quarantine.victim_goes_on();
    // The other kinds (`OWN_ADDRESSES` of a program, and beside a compiler's
    // 8 GiB of memory).
    for (kind, most) in [(READ_ONLY, 1 + 32), (Kind::Compiler, 8 + 16)] {
        let seen = quarantine.attack_as(kind, "page_tables");
        let got = refused_after(&seen);
        assert!(got > 0 && got < most << 10, "{kind:?}: {seen:?}");
    }
}

#[test]
fn descriptors_end_at_the_limit() {
    let quarantine = Quarantine::new();
    assert!(
        exhaustion::ATTACKS
            .iter()
            .any(|attack| attack.name == "descriptors")
    );
    let got = refused_after(&quarantine.attack_as(READ_ONLY, "descriptors"));
    assert!(got > 0 && got < 256, "{got} descriptors");
    quarantine.neighbour_is_right();
}

#[test]
fn a_granted_directory_has_no_way_out() {
    let quarantine = Quarantine::new();
    for attack in granted::ATTACKS {
        let writing = attack.name == "make_link_out";
        let kind = if writing { READ_WRITE } else { READ_ONLY };
        let seen = quarantine.attack_as(kind, attack.name);
        assert!(seen.is(attack.expected), "{}: {seen:?}", attack.name);
    }
    let directory = quarantine.directory();
    assert_eq!(
        std::fs::read(directory.join("inside")).expect("the file"),
        b"inside"
    );
    assert!(!directory.join("made").exists());
    // What is granted for writing can be written.
    let seen = quarantine.attack_as(READ_WRITE, "make_file");
    assert_eq!(seen, Seen::Reply("reached".into()));
    assert!(directory.join("made").exists());
}
