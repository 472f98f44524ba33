//! Promise: where a limit of the host is reached, the request at hand fails with an error
//! that names the limit and what raises it, and that is worth another try; everything else
//! goes on.
//!
//! A full disk is in `bad_disks.rs`; memory of control groups in `cgroups.rs`. Limits of
//! namespaces and of control groups are the machine's, so none is exhausted here.

mod harness;

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use harness::wat;
use lazaret::{CallError, Host, Resource, Shortage, Tenant, TenantError};
use rustix::process::{Pid, Resource as Limit, Rlimit, getrlimit, prlimit};

/// A user that nobody else is, so that its processes are this test's.
const NOBODY_ELSE: u32 = 54_321;

/// Limits are the whole process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host, and a tenant with a worker.
fn there() -> (tempfile::TempDir, Host, Tenant) {
    let directory = tempfile::tempdir().unwrap();
    let host = harness::builder()
        .data_dir(directory.path().join("data"))
        .relaxed_durability()
        // No worker waits for a tenant: each call of a new one asks for what there is too
        // little of.
        .pool(|pool| pool.blanks = 0)
        .build()
        .unwrap();
    let tenant = host.install("there", wat("pages"), b"").unwrap();
    write(&tenant).unwrap();
    (directory, host, tenant)
}

fn u64s(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn write(tenant: &Tenant) -> Result<(), CallError> {
    tenant.update("write", &u64s(&[3, 4096])).map(drop)
}

/// The shortage that a call of a tenant without a worker meets.
fn met(called: Result<(), CallError>) -> Shortage {
    let error = called.expect_err("there is too little for it");
    assert!(error.is_retryable(), "{error}");
    let text = error.to_string();
    assert!(text.contains("try again"), "{text}");
    match error {
        CallError::Shortage { shortage, .. } => {
            assert!(text.contains(&shortage.to_string()), "{text}");
            shortage
        }
        other => panic!("{other:?}"),
    }
}

/// Makes a tenant whose next call needs a worker.
fn sleeping(host: &Host) -> Tenant {
    let tenant = host.install("asleep", wat("pages"), b"").unwrap();
    tenant.sleep();
    tenant
}

fn limit(of: &Shortage) -> &str {
    of.limit.as_deref().expect("the limit is known")
}

/// The soft limit of a process, as long as this lives.
struct Lowered {
    pid: Option<Pid>,
    of: Limit,
    before: Rlimit,
}

impl Lowered {
    fn to(pid: Option<Pid>, of: Limit, current: u64) -> Self {
        let before = getrlimit(of);
        let lowered = Rlimit {
            current: Some(current),
            ..before
        };
        prlimit(pid, of, lowered).unwrap();
        Self { pid, of, before }
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        prlimit(self.pid, self.of, self.before).unwrap();
    }
}

fn descriptors_are_used_up() {
    let _alone = alone();
    let (_directory, host, tenant) = there();
    let asleep = sleeping(&host);
    let pages = wat("pages");
    let highest = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u64>().ok())
        .max()
        .unwrap();
    let lowered = Lowered::to(None, Limit::Nofile, highest + 1);
    let null = std::fs::File::open("/proc/self/cmdline");
    let mut taken: Vec<OwnedFd> = Vec::new();
    if let Ok(null) = null {
        while let Ok(another) = null.try_clone() {
            taken.push(another.into());
        }
        taken.push(null.into());
    }
    let shortage = met(write(&asleep));
    // Who has what it needs goes on.
    write(&tenant).unwrap();
    let installed = host.install("new", pages, b"");
    drop(taken);
    drop(lowered);
    assert_eq!(shortage.of, Resource::Descriptors);
    assert!(shortage.raise.contains("ulimit -n"), "{shortage}");
    match installed {
        Err(error @ TenantError::Shortage { .. } | error @ TenantError::Call { .. }) => {
            assert!(error.is_retryable(), "{error}");
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    write(&asleep).unwrap();
    write(&tenant).unwrap();
    write(&host.install("new", wat("pages"), b"").unwrap()).unwrap();
}

fn no_process_may_be_started() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let host = harness::builder()
        .data_dir(directory.path().join("data"))
        .pool(|pool| pool.blanks = 0)
        .build()
        .unwrap();
    // Not even the launcher.
    let lowered = Lowered::to(None, Limit::Nproc, 1);
    let error = host.install("there", wat("pages"), b"").unwrap_err();
    drop(lowered);
    assert!(error.is_retryable(), "{error}");
    let text = error.to_string();
    assert!(text.contains("RLIMIT_NPROC 1"), "{text}");
    assert!(text.contains("ulimit -u"), "{text}");
    let tenant = host.install("there", wat("pages"), b"").unwrap();
    let asleep = sleeping(&host);
    write(&tenant).unwrap();
    // No worker: the limit is the launcher's now.
    let launcher = Pid::from_raw(host.launcher_pid().unwrap());
    let lowered = Lowered::to(launcher, Limit::Nproc, 1);
    let shortage = met(write(&asleep));
    write(&tenant).unwrap();
    drop(lowered);
    assert_eq!(shortage.of, Resource::Processes);
    assert!(shortage.raise.contains("ulimit -u"), "{shortage}");
    write(&asleep).unwrap();
}

fn mappings_are_used_up() {
    let _alone = alone();
    let (_directory, host, tenant) = there();
    let asleep = sleeping(&host);
    let page = rustix::param::page_size();
    let most: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if most > 1 << 20 {
        eprintln!("skipped: a process may have {most} mappings here");
        return;
    }
    // Neighbours with other rights aren't joined.
    let mut taken = Vec::with_capacity(most);
    loop {
        let rights = match taken.len() % 2 {
            0 => libc::PROT_NONE,
            _ => libc::PROT_READ,
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a mapping of its own, at an address that is free.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), page, rights, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            break;
        }
        taken.push(at.addr());
    }
    let called = write(&asleep);
    let other = write(&tenant);
    for at in taken {
        // SAFETY: made above, and nobody has a reference to it.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(at), page) };
    }
    other.unwrap();
    let shortage = met(called);
    assert_eq!(shortage.of, Resource::Mappings);
    assert!(limit(&shortage).contains("vm.max_map_count"), "{shortage}");
    write(&asleep).unwrap();
}

fn address_space_is_used_up() {
    let _alone = alone();
    let (_directory, host, tenant) = there();
    let asleep = sleeping(&host);
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    // Enough for what a call that needs no worker allocates.
    let room = 512 << 10;
    let bytes = pages * rustix::param::page_size() as u64 + room;
    let lowered = Lowered::to(None, Limit::As, bytes);
    let called = write(&asleep);
    let other = write(&tenant);
    drop(lowered);
    other.unwrap();
    let shortage = met(called);
    assert_eq!(shortage.of, Resource::Memory);
    assert!(shortage.raise.contains("memory"), "{shortage}");
    write(&asleep).unwrap();
}

fn main() {
    let worker = std::env::args_os()
        .next()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"lazaret:"));
    // Root's limit of processes is none.
    if rustix::process::geteuid().is_root() && !worker {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("code-{NOBODY_ELSE}"));
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&cache, Some(NOBODY_ELSE), Some(NOBODY_ELSE)).unwrap();
        // SAFETY: this process has one thread yet; the raw calls change it.
        let dropped = unsafe {
            libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<u32>()) == 0
                && libc::syscall(libc::SYS_setresgid, NOBODY_ELSE, NOBODY_ELSE, NOBODY_ELSE) == 0
                && libc::syscall(libc::SYS_setresuid, NOBODY_ELSE, NOBODY_ELSE, NOBODY_ELSE) == 0
        };
        assert!(dropped, "{}", std::io::Error::last_os_error());
    }
    harness::main(TESTS);
}

const TESTS: &[harness::Test] = &[
    ("descriptors_are_used_up", descriptors_are_used_up, &[]),
    ("no_process_may_be_started", no_process_may_be_started, &[]),
    ("mappings_are_used_up", mappings_are_used_up, &[]),
    ("address_space_is_used_up", address_space_is_used_up, &[]),
];
