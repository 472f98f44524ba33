//! Promise: where memory is short, idle workers leave before anybody is killed, and where
//! somebody is, it is a worker and not the host.

mod harness;
#[path = "histories/processes.rs"]
#[expect(dead_code, reason = "other files use the rest")]
mod processes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::wat;
use lazaret::wall::cgroup::{Controller, Version, hierarchies};
use lazaret::{Host, Tenant};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the group of this process may have, in bytes.
const LIMIT: usize = 256 << 20;

fn u64s(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// A control group that this process is in, with a limit of memory.
struct Group {
    path: PathBuf,
    above: PathBuf,
    usage: PathBuf,
}

impl Group {
    /// Nothing where none may be made, and why.
    fn enter() -> Result<Self, String> {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap();
        let found = hierarchies(&read("mountinfo"), &read("cgroup"));
        let hierarchy = found
            .iter()
            .find(|one| one.controllers.contains(&Controller::Memory))
            .or(found.iter().find(|one| one.version == Version::V2))
            .ok_or("no control groups")?;
        let path = hierarchy
            .own
            .join(format!("lazaret-test-{}", std::process::id()));
        let [limit, usage] = match hierarchy.version {
            Version::V1 => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
            Version::V2 => ["memory.max", "memory.current"],
        };
        let group = Self {
            usage: path.join(usage),
            above: hierarchy.own.clone(),
            path,
        };
        let write = |file: PathBuf, text: String| {
            fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
        };
        fs::create_dir(&group.path)
            .map_err(|error| format!("{}: {error}", group.path.display()))?;
        write(group.path.join(limit), LIMIT.to_string())?;
        write(group.path.join("cgroup.procs"), "0".into())?;
        Ok(group)
    }

    fn usage(&self) -> usize {
        fs::read_to_string(&self.usage)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.above.join("cgroup.procs"), "0");
        // Groups of workers that are ending lie in it.
        let begin = Instant::now();
        while fs::remove_dir(&self.path).is_err() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn tenants(directory: &Path, count: usize) -> (Host, Vec<Tenant>) {
    let host = harness::builder()
        .data_dir(directory)
        .relaxed_durability()
        .pool(|pool| pool.idle = None)
        .build()
        .unwrap();
    let tenants = (0..count)
        .map(|number| {
            let tenant = host
                .install(&format!("t{number}"), wat("pages"), b"")
                .unwrap();
            tenant.update("write", &u64s(&[3, 4096])).unwrap();
            tenant
        })
        .collect();
    (host, tenants)
}

fn sum(tenant: &Tenant) -> u64 {
    let reply = tenant.query("sum", &u64s(&[3, 4096])).unwrap();
    u64::from_le_bytes(reply.bytes.try_into().unwrap())
}

fn heavy_idle_workers_leave_when_memory_is_short() {
    const TENANTS: usize = 12;
    let directory = tempfile::tempdir().unwrap();
    let group = match Group::enter() {
        Ok(group) => group,
        Err(why) => {
            eprintln!("skipped: no control group with a limit of memory can be made: {why}");
            return;
        }
    };
    let (host, tenants) = tenants(&directory.path().join("data"), TENANTS);
    let before: Vec<u64> = tenants.iter().map(sum).collect();
    assert_eq!(host.pool().workers, TENANTS);
    // Stays: less than a tenth is left of what the group may have.
    let mut held = vec![0u8; (LIMIT - group.usage()).saturating_sub(LIMIT / 16)];
    for page in held.chunks_mut(4096) {
        page[0] = 1;
    }
    let begin = Instant::now();
    while host.pool().left_for_memory < TENANTS as u64 / 2 && begin.elapsed() < PATIENCE {
        // Wants more than there is, until it is killed for it.
        let _ = Command::new("sh")
            .args([
                "-c",
                "echo 1000 > /proc/$$/oom_score_adj; exec tail /dev/zero",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    let pool = host.pool();
    assert!(held.iter().step_by(4096).all(|byte| *byte == 1));
    // Else there would be no memory for an error's backtrace.
    drop(held);
    assert!(pool.left_for_memory >= TENANTS as u64 / 2, "{pool}");
    // They come back where they were.
    let after: Vec<u64> = tenants.iter().map(sum).collect();
    assert_eq!(after, before);
    drop((tenants, host));
}

fn a_worker_is_killed_before_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let (host, tenants) = tenants(&directory.path().join("data"), 1);
    let score = |pid: i32| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let own = score(std::process::id().cast_signed());
    assert!(own < 1000, "{own}");
    assert_eq!(score(host.launcher_pid().unwrap()), 1000);
    assert_eq!(score(tenants[0].info().worker.unwrap()), 1000);
}

harness::tests! {
    heavy_idle_workers_leave_when_memory_is_short,
    a_worker_is_killed_before_the_host,
}
