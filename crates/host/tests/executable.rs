//! Promise: workers have an executable of their own, and where none can be made
//! in memory, they are the embedding program itself.

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use harness::wat;
use lazaret::wall::Profile;
use lazaret::{Report, Verdict};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

fn run(builder: lazaret::Builder) -> Report {
    let host = builder.build().unwrap();
    let report = host.program(wat("hello")).run().unwrap();
    assert_eq!(report.verdict, Verdict::Exited);
    report
}

/// What the receipt says of the file that the worker ran.
fn ran(report: &Report) -> String {
    let receipt = report.receipt.as_ref().unwrap();
    let mut measures = receipt.measures.iter();
    let entry = measures.find(|entry| entry.measure.name() == "read-only-executable");
    format!("{:?}", entry.unwrap().standing)
}

fn is_carried_along() -> bool {
    let carried = lazaret_worker_executable::IMAGE.is_some();
    if !carried {
        eprintln!("skipped: this was built without an executable for workers");
    }
    carried
}

fn without_a_cache_workers_run_a_sealed_file_in_memory() {
    if is_carried_along() {
        let ran = ran(&run(harness::older_kernels::builder()));
        assert!(ran.contains("sealed"), "{ran}");
    }
}

/// Copied into memory only where it can't be mounted.
fn workers_run_the_file_that_is_in_the_cache() {
    if !is_carried_along() {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let builder = || harness::older_kernels::builder().cache_dir(cache.path());
    let how = match harness::older_kernels::profile() {
        Profile::Full => "on a read-only mount",
        _ => "sealed",
    };
    for _ in 0..2 {
        let ran = ran(&run(builder()));
        assert!(ran.contains(how), "{ran}");
    }
    let mut entries = std::fs::read_dir(cache.path().join("entries")).unwrap();
    let is_program = |path: &Path| path.extension().is_some_and(|end| end == "executable");
    assert!(entries.any(|entry| is_program(&entry.unwrap().path())));
}

/// This is the first host of its process: an image that is in memory already
/// would do.
fn without_executables_in_memory_workers_are_this_program() {
    if !is_carried_along() {
        return;
    }
    // As with vm.memfd_noexec at 2, for this process and all after it.
    const MFD_EXEC: u64 = 0x10;
    let wants = SeccompCondition::new(
        1,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(MFD_EXEC),
        MFD_EXEC,
    );
    let rule = SeccompRule::new(vec![wants.unwrap()]).unwrap();
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_memfd_create, vec![rule])]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EACCES as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
    // The sealed copy of an executable is one in memory too, so it takes a mount.
    match harness::older_kernels::profile() {
        Profile::Full => {
            let ran = ran(&run(harness::older_kernels::builder()));
            assert!(ran.contains("read-only mount"), "{ran}");
        }
        _ => {
            let host = harness::older_kernels::builder().build().unwrap();
            let error = host.program(wat("hello")).run().unwrap_err().to_string();
            assert!(error.contains("vm.memfd_noexec to 0 or 1"), "{error}");
        }
    }
}

/// The supervisor looks at who lives each second.
fn a_cache_that_is_removed_disturbs_nobody_who_lives() {
    let (data, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let host = harness::older_kernels::builder()
        .data_dir(data.path())
        .cache_dir(cache.path().join("cache"))
        .build()
        .unwrap();
    let tenant = host.install("tenant", wat("empty"), b"").unwrap();
    tenant.query("empty", b"").unwrap();
    let worker = tenant.info().worker;
    assert!(worker.is_some());
    drop(cache);
    std::thread::sleep(Duration::from_millis(2500));
    tenant.query("empty", b"").unwrap();
    assert_eq!(tenant.info().worker, worker);
    // Whoever comes next is started all the same.
    tenant.sleep();
    tenant.query("empty", b"").unwrap();
    assert!(host.recent_incidents().is_empty());
}

harness::tests! {
    a_cache_that_is_removed_disturbs_nobody_who_lives,
    without_a_cache_workers_run_a_sealed_file_in_memory,
    workers_run_the_file_that_is_in_the_cache,
    without_executables_in_memory_workers_are_this_program,
}
