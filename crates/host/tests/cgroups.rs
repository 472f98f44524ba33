//! Workers have control groups with limits where the host may make them, and
//! whoever asks is told where it may not. The tests hold for version 1 and 2.

mod harness;
#[path = "histories/processes.rs"]
#[expect(dead_code, reason = "other files use the rest")]
mod processes;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use harness::{buffer, wat};
use lazaret::wall::cgroup::{Controller, Version, hierarchies};
use lazaret::wall::receipt::{Grouping, State};
use lazaret::{BuildError, CallError, CgroupError, CgroupOptions, Ending, Host, Tenant, Verdict};

const MIB: u64 = 1 << 20;

/// A host whose workers have such groups, with a directory for its data; or the
/// error, which is one that says that this can't be had here.
fn host(change: impl FnOnce(&mut CgroupOptions)) -> Option<(Host, tempfile::TempDir)> {
    let directory = tempfile::tempdir().unwrap();
    let built = harness::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        // Each group is accounted for.
        .pool(|pool| pool.blanks = 0)
        .cgroups(change)
        .build();
    match built {
        Ok(host) => Some((host, directory)),
        Err(BuildError::Cgroup(CgroupError::Asked { option, remedy, .. })) => {
            assert!(option.starts_with("--") && !remedy.is_empty());
            None
        }
        Err(other) => panic!("{other}"),
    }
}

fn works(host: &Host, controller: Controller) -> bool {
    let mut found = host.cgroups().unwrap().probe().iter();
    found.any(|probed| probed.controller == controller && probed.missing().is_none())
}

fn grouping(tenant: &Tenant) -> Grouping {
    tenant.receipt().unwrap().cgroup.unwrap()
}

/// The directory of a group, as a receipt says it.
fn directory_of(group: &str) -> PathBuf {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap();
    let (name, path) = match group.split_once(":/") {
        Some((name, _)) => (name, &group[name.len() + 1..]),
        None => ("", group),
    };
    let found = hierarchies(&read("mountinfo"), &read("cgroup"));
    let hierarchy = found.iter().find(|hierarchy| match hierarchy.version {
        Version::V2 => name.is_empty(),
        Version::V1 => hierarchy.controllers.iter().any(|one| {
            name.split(',')
                .any(|name| name == one.kernel_name(Version::V1))
        }),
    });
    let hierarchy = hierarchy.unwrap();
    // The mount's root is as far up as this process's own path is long.
    let own = hierarchy.own.to_str().unwrap();
    let mount = own.strip_suffix(hierarchy.path.as_str()).unwrap_or(own);
    PathBuf::from(format!("{}{path}", mount.trim_end_matches('/')))
}

fn u64s(numbers: &[u64]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

fn number(result: Result<lazaret::Reply, CallError>) -> u64 {
    u64::from_le_bytes(result.unwrap().bytes.try_into().unwrap())
}

fn a_receipt_says_what_the_kernel_says() {
    let (host, _directory) = host(|_| {}).unwrap();
    let tenant = host.install("t", wat("empty"), &[]).unwrap();
    tenant.query("empty", &[]).unwrap();
    let Grouping { state, seen } = grouping(&tenant);
    let groups = host.cgroups().unwrap();
    if !groups.is_used() {
        let (missing, remedy) = groups.degraded().unwrap();
        let words = format!("limits underneath only: {missing}");
        assert_eq!(state, State::Missing(words));
        assert!(!missing.is_empty() && !remedy.is_empty());
        assert!(seen.groups.is_empty() && seen.limits.is_empty());
        return;
    }
    assert!(matches!(state, State::Verified(_)), "{state:?}");
    let worker = tenant.info().worker.unwrap();
    let kernel = std::fs::read_to_string(format!("/proc/{worker}/cgroup")).unwrap();
    for group in &seen.groups {
        let path = group
            .split_once(":/")
            .map_or(group.as_str(), |(name, _)| &group[name.len() + 1..]);
        assert!(
            kernel.lines().any(|line| line.ends_with(path)),
            "{group}: {kernel}"
        );
        let tasks = std::fs::read_to_string(directory_of(group).join("cgroup.procs")).unwrap();
        assert_eq!(tasks, format!("{worker}\n"), "nobody else is in {group}");
    }
    for limit in &seen.limits {
        let mut files = seen
            .groups
            .iter()
            .map(|group| directory_of(group).join(limit.file));
        let says = files
            .find_map(|file| std::fs::read_to_string(file).ok())
            .unwrap();
        assert_eq!(says.lines().next().unwrap(), limit.value, "{limit:?}");
    }
    let value = |controller, file: &str| {
        let mut limits = seen.limits.iter();
        let found =
            limits.find(|limit| limit.controller == controller && limit.file.contains(file));
        found.map(|limit| limit.value.clone())
    };
    if works(&host, Controller::Pids) {
        assert_eq!(value(Controller::Pids, "pids.max").as_deref(), Some("1"));
    }
    if works(&host, Controller::Memory) {
        let limit = value(Controller::Memory, "memory.").unwrap();
        // Heap and stable memory may have 4 and 8 GiB.
        assert!(limit.parse::<u64>().unwrap() > 12 << 30, "{limit}");
    }
}

fn a_group_is_off_when_it_is_turned_off() {
    let (host, _directory) = host(|options| options.mode = lazaret::CgroupMode::Off).unwrap();
    let tenant = host.install("t", wat("empty"), &[]).unwrap();
    tenant.query("empty", &[]).unwrap();
    let Grouping { state, seen } = grouping(&tenant);
    assert_eq!(state, State::Missing("turned off (--cgroup off)".into()));
    assert!(seen.groups.is_empty());
    let worker = tenant.info().worker.unwrap();
    let kernel = std::fs::read_to_string(format!("/proc/{worker}/cgroup")).unwrap();
    assert!(!kernel.contains("lazaret-"), "{kernel}");
}

fn memory_over_the_limit_is_told_as_such() {
    let Some((host, _directory)) = host(|options| options.memory = Some(64 * MIB)) else {
        return;
    };
    let (_, out) = buffer();
    let report = host
        .program(wat("memory_hog"))
        .memory(512 * MIB)
        .stdout(out)
        .run()
        .unwrap();
    assert_eq!(
        (report.verdict, report.exit_code),
        (Verdict::MemoryLimit, 137)
    );
    let detail = report.detail.unwrap();
    assert!(
        detail.contains("control group's limit of 67108864 bytes"),
        "{detail}"
    );

    let tenant = host.install("t", wat("pages"), &[]).unwrap();
    for _ in 0..2 {
        // 240 MB written; the next worker's group counts its own kills only.
        match tenant.query("write_query", &u64s(&[60_000, 4096])) {
            Err(CallError::WorkerEnded(Ending::OutOfMemory {
                text,
                of_host: false,
                ..
            })) => {
                assert!(text.contains("67108864"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(number(tenant.query("read", &u64s(&[65_536]))), 0);
        processes::kill(tenant.info().worker.unwrap());
        let ending = tenant.query("sum", &u64s(&[1, 1]));
        if let Err(error) = ending {
            assert!(!format!("{error:?}").contains("OutOfMemory"), "{error:?}");
        }
    }
}

/// Clean pages of files are given back before anybody is killed.
fn an_image_larger_than_the_limit_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let builder = || harness::builder().data_dir(directory.path());
    let host = builder().build().unwrap();
    let tenant = host.install("t", wat("pages"), &[]).unwrap();
    // 234 MiB, in the base.
    let all = u64s(&[60_000, 4096]);
    assert_eq!(number(tenant.update("write", &all)), 60_000);
    tenant.compact().unwrap();
    drop((tenant, host));
    // Nobody has them in memory, so whoever reads them is charged for them.
    forget(directory.path());
    let host = match builder()
        .cgroups(|options| options.memory = Some(64 * MIB))
        .build()
    {
        Ok(host) => host,
        Err(BuildError::Cgroup(CgroupError::Asked { .. })) => return,
        Err(other) => panic!("{other}"),
    };
    let tenant = host.tenant("t").unwrap();
    assert_eq!(number(tenant.query("sum", &all)), 60_000);
    let worker = tenant.info().worker;
    for _ in 0..2 {
        assert_eq!(number(tenant.query("sum", &all)), 60_000);
    }
    assert_eq!(tenant.info().worker, worker, "nothing was killed");
    // It was at its limit, so that is why.
    let groups = grouping(&tenant).seen.groups;
    let mut full = groups.iter().filter_map(|group| {
        let read = |file| std::fs::read_to_string(directory_of(group).join(file)).ok();
        let events = || {
            let events = read("memory.events")?;
            let line = events.lines().find_map(|line| line.strip_prefix("max "))?;
            Some(line.to_owned())
        };
        // Version 1 says how much there was, to the last pages.
        let most = || {
            let most = read("memory.max_usage_in_bytes")?;
            let most: u64 = most.trim().parse().ok()?;
            Some((most / (60 * MIB)).to_string())
        };
        most().or_else(events)?.trim().parse::<u64>().ok()
    });
    assert!(full.next().unwrap() > 0);
}

/// Drops clean pages of the files in a directory from the page cache.
fn forget(directory: &std::path::Path) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            forget(&path);
        } else if let Ok(file) = std::fs::File::open(&path) {
            rustix::fs::fdatasync(&file).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

fn a_kill_from_outside_is_no_memory_limit() {
    let (host, _directory) = host(|_| {}).unwrap();
    let tenant = host.install("c", wat("counter32"), b"").unwrap();
    tenant.query("get", b"").unwrap();
    let worker = tenant.info().worker.unwrap();
    let failed = std::thread::scope(|scope| {
        let call = scope.spawn(|| tenant.update("loop_after_inc", b""));
        std::thread::sleep(Duration::from_millis(50));
        processes::kill(worker);
        call.join().unwrap()
    });
    let counted = works(&host, Controller::Memory);
    match failed {
        Err(CallError::WorkerEnded(Ending::Killed)) => assert!(counted),
        Err(CallError::WorkerEnded(Ending::Signal(libc::SIGKILL))) => assert!(!counted),
        other => panic!("{other:?}"),
    }
}

fn groups_are_used_again_and_none_is_left() {
    let (host, _directory) = host(|_| {}).unwrap();
    let tenant = host.install("t", wat("empty"), &[]).unwrap();
    let mut groups = BTreeSet::new();
    let mut used = 0;
    for _ in 0..8 {
        tenant.query("empty", &[]).unwrap();
        let seen = grouping(&tenant).seen;
        used = seen.groups.len();
        groups.extend(seen.groups);
        let worker = tenant.info().worker.unwrap();
        tenant.sleep();
        while std::fs::exists(format!("/proc/{worker}")).unwrap() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(groups.len() <= used * 4, "{groups:?}");
    let directories: Vec<PathBuf> = groups.iter().map(|group| directory_of(group)).collect();
    for directory in &directories {
        assert!(directory.is_dir(), "{directory:?}");
    }
    drop(tenant);
    drop(host);
    for directory in directories {
        assert!(!directory.exists(), "{directory:?}");
    }
}

fn a_ceiling_holds() {
    let Some((host, _directory)) = host(|options| options.cpu_limit = Some(200)) else {
        return;
    };
    let report = host
        .program(wat("loop"))
        .time(Duration::from_secs(1))
        .run()
        .unwrap();
    assert_eq!(report.verdict, Verdict::TimeLimit);
    // A fifth of all its life, and what a period has begun with. Load on the
    // machine only makes it less.
    let lived = report.spawn_ms + report.wall_ms;
    assert!(report.cpu_ms < lived / 2.0, "{report:?}");
    let receipt = report.receipt.unwrap().cgroup.unwrap();
    let mut limits = receipt.seen.limits.iter();
    assert!(limits.any(|limit| limit.value.split(' ').next() == Some("20000")));
}

/// While a tenant loops in more queries than there are processors and fills
/// memory, all calls of another are answered.
fn a_tenant_that_takes_all_it_can_leaves_others_their_share() {
    let directory = tempfile::tempdir().unwrap();
    let host = harness::builder()
        .data_dir(directory.path())
        .tenant_limits(|limits| limits.queries = 6)
        .build()
        .unwrap();
    let neighbour = host.install("neighbour", wat("pages"), &[]).unwrap();
    let tenant = host.install("t", wat("empty"), &[]).unwrap();
    let (stop, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    number(neighbour.query("write_query", &u64s(&[20_000, 4096])));
                    taken.fetch_add(1, SeqCst);
                }
            });
        }
        let begin = taken.load(SeqCst);
        let mut answered = 0;
        // Until both have got on.
        while answered < 100 || taken.load(SeqCst) < begin + 6 {
            tenant.query("empty", &[]).unwrap();
            answered += 1;
        }
        stop.store(true, SeqCst);
    });
}

fn limits_that_can_not_be_are_refused() {
    let build = |change: fn(&mut CgroupOptions)| harness::builder().cgroups(change).build();
    for (change, words) in [
        (
            (|options| options.cpu_limit = Some(2000)) as fn(&mut CgroupOptions),
            "between 0.01 and 1 processor",
        ),
        (
            |options| options.cpu_weight = Some(0),
            "between 1 and 10000",
        ),
        (|options| options.memory = Some(MIB), "a worker needs"),
    ] {
        match build(change) {
            Err(error @ BuildError::Cgroup(_)) => {
                assert!(error.to_string().contains(words), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    match build(|options| options.mode = lazaret::CgroupMode::Require) {
        Ok(host) => assert!(host.cgroups().unwrap().degraded().is_none()),
        Err(BuildError::Cgroup(error @ CgroupError::Required { .. })) => {
            assert!(error.to_string().contains("--cgroup require"), "{error}");
        }
        Err(other) => panic!("{other}"),
    }
}

harness::tests! {
    a_receipt_says_what_the_kernel_says,
    a_group_is_off_when_it_is_turned_off,
    memory_over_the_limit_is_told_as_such,
    an_image_larger_than_the_limit_is_read,
    a_kill_from_outside_is_no_memory_limit,
    groups_are_used_again_and_none_is_left,
    a_ceiling_holds,
    a_tenant_that_takes_all_it_can_leaves_others_their_share,
    limits_that_can_not_be_are_refused,
}
