//! What this host offers: every layer tried for real, in a child process where
//! trying it can't be undone.

mod pages;

use std::io;

use rustix::process::{WaitId, WaitIdOptions};
use serde::Serialize;

use crate::cgroup::{Availability, CgroupOptions, Cgroups, Controller, Probed};
use crate::grade::Grade;
use crate::launcher::{Cloned, clone};
use crate::layer::{Layer, Probe};
use crate::layers::{landlock, mdwe, namespaces, no_new_privs, seccomp};
use crate::policy::{Kind, policy};

pub use pages::{kernel_tracker, reach, reach_child};

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried: a layer's name, or a feature's.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Whether workers are refused without it.
    pub required: bool,
    /// What was found.
    pub probe: Probe,
    /// What it costs not to have it.
    pub cost: &'static str,
    /// How to get it.
    pub remedy: &'static str,
}

/// How a child ended that tried something.
pub(crate) enum Tried {
    Exited(i32),
    Signaled(i32),
}

/// Runs `attempt` in a child with `flags` for its namespaces. The child may
/// only make system calls.
pub(crate) fn in_child(flags: i32, attempt: impl Fn() -> i32) -> io::Result<Tried> {
    // SAFETY: this process may have threads; all attempts below make system
    // calls on data prepared before, and nothing else.
    match unsafe { clone(flags, None) }? {
        Cloned::Child => {
            let code = attempt();
            // SAFETY: ends the child without running anybody's destructors.
            unsafe { libc::_exit(code) }
        }
        Cloned::Parent(_, pidfd) => {
            let status = rustix::process::waitid(
                WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
                WaitIdOptions::EXITED,
            )?;
            match status {
                Some(status) if status.exited() => {
                    Ok(Tried::Exited(status.exit_status().unwrap_or(-1)))
                }
                Some(status) => Ok(Tried::Signaled(status.terminating_signal().unwrap_or(0))),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }
}

pub(crate) fn succeeds(result: io::Result<Tried>, detail: &str) -> Probe {
    match result {
        Ok(Tried::Exited(0)) => Probe::Works(detail.to_owned()),
        Ok(Tried::Exited(code)) => Probe::Missing(io::Error::from_raw_os_error(code).to_string()),
        Ok(Tried::Signaled(signal)) => Probe::Missing(format!(
            "the attempt ended by signal {signal}: an outer filter?"
        )),
        Err(error) => Probe::Missing(error.to_string()),
    }
}

fn errno(result: i64) -> i32 {
    if result >= 0 {
        0
    } else {
        io::Error::last_os_error().raw_os_error().unwrap_or(1)
    }
}

/// Tries one layer.
pub fn layer(layer: Layer) -> Probe {
    let namespace = |flag: i32| {
        succeeds(
            in_child(libc::CLONE_NEWUSER | flag, || 0),
            "clone3 into a new one works",
        )
    };
    match layer {
        Layer::UserNamespace => namespace(0),
        Layer::PidNamespace => namespace(libc::CLONE_NEWPID),
        Layer::MountNamespace => namespace(libc::CLONE_NEWNS),
        Layer::NetworkNamespace => namespace(libc::CLONE_NEWNET),
        Layer::IpcNamespace => namespace(libc::CLONE_NEWIPC),
        Layer::UtsNamespace => namespace(libc::CLONE_NEWUTS),
        Layer::EmptyRoot => empty_root(),
        Layer::NoNewPrivs => succeeds(
            in_child(0, || {
                // SAFETY: plain numbers.
                errno(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
            }),
            "prctl works",
        ),
        Layer::Mdwe => succeeds(
            in_child(0, || match mdwe::apply() {
                Ok(()) if mdwe::is_on() => 0,
                Ok(()) => libc::EINVAL,
                Err(error) => error.source.raw_os_error().unwrap_or(1),
            }),
            "prctl works and reads back",
        ),
        Layer::Landlock => match landlock::abi() {
            Some(abi) => Probe::Works(landlock::coverage(abi)),
            None => Probe::Missing(io::Error::last_os_error().to_string()),
        },
        Layer::Seccomp => seccomp_kills(),
        Layer::Capabilities | Layer::Environment | Layer::Descriptors | Layer::Rlimits => {
            Probe::Works("every supported kernel has it".into())
        }
    }
}

/// A mount of one's own in a mount namespace of one's own.
fn empty_root() -> Probe {
    let attempt = || {
        // SAFETY: constant strings.
        let private = unsafe {
            libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            )
        };
        if private != 0 {
            return errno(-1);
        }
        // SAFETY: constant strings.
        errno(
            unsafe {
                libc::mount(
                    c"tmpfs".as_ptr(),
                    c"/tmp".as_ptr(),
                    c"tmpfs".as_ptr(),
                    0,
                    std::ptr::null(),
                )
            }
            .into(),
        )
    };
    succeeds(
        in_child(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, attempt),
        "mounting in a namespace of one's own works",
    )
}

/// A filter has a listener, and a forbidden call really waits for it.
fn notification() -> Probe {
    let program = match seccomp::compile(&policy(Kind::Tenant), seccomp::Denied::Notify) {
        Ok(program) => program,
        Err(error) => return Probe::Missing(error.to_string()),
    };
    let attempt =
        || match no_new_privs::apply().and_then(|()| seccomp::load_with_listener(&program)) {
            // Closed: then the call fails with ENOSYS, which no other filter of
            // this process's answers with.
            Ok(listener) => {
                drop(listener);
                // SAFETY: asks for a number.
                let told = unsafe { libc::syscall(libc::SYS_getppid) };
                match (told, errno(told)) {
                    (-1, libc::ENOSYS) => 0,
                    _ => libc::EINVAL,
                }
            }
            Err(error) => error.source.raw_os_error().unwrap_or(1),
        };
    succeeds(in_child(0, attempt), "a forbidden call waits for the host")
}

/// A filter is loaded, and a forbidden call really kills.
fn seccomp_kills() -> Probe {
    let program = match seccomp::compile(&policy(Kind::Tenant), seccomp::Denied::Kill) {
        Ok(program) => program,
        Err(error) => return Probe::Missing(error.to_string()),
    };
    let attempt = || {
        // Without it a filter takes a privilege that an ordinary user lacks.
        if let Err(error) = no_new_privs::apply().and_then(|()| seccomp::load(&program)) {
            return error.source.raw_os_error().unwrap_or(1);
        }
        // SAFETY: asks for a number; the filter kills.
        unsafe { libc::syscall(libc::SYS_getppid) };
        0
    };
    match in_child(0, attempt) {
        Ok(Tried::Signaled(libc::SIGSYS)) => Probe::Works("a forbidden call kills".into()),
        Ok(Tried::Exited(0)) => {
            Probe::Missing("a filter was loaded, but a forbidden call went through".into())
        }
        other => succeeds(other, ""),
    }
}

/// Control groups: a group is made for the try, and removed again.
fn cgroups() -> Vec<Finding> {
    let opened = Cgroups::open(CgroupOptions::default());
    let probed = |controller: Controller| match &opened {
        Err(error) => (Probe::Missing(error.to_string()), "mount /proc"),
        Ok(cgroups) => {
            let mut found = cgroups.probe().iter();
            match found.find(|probed| probed.controller == controller) {
                Some(Probed { availability, .. }) => match availability {
                    Availability::Works { detail } => (Probe::Works(detail.clone()), ""),
                    Availability::Missing { why, remedy } => (Probe::Missing(why.clone()), *remedy),
                },
                None => (Probe::Missing("not looked for".into()), ""),
            }
        }
    };
    let findings = Controller::ALL.map(|controller| {
        let (name, cost) = match controller {
            Controller::Memory => (
                "cgroup-memory",
                "memory is limited by RLIMIT_DATA only, which leaves out page tables and what a file system in memory holds; SIGKILL for memory can only be guessed; --worker-memory doesn't work",
            ),
            Controller::Cpu => (
                "cgroup-cpu",
                "workers share the processors as ordinary processes do; --cpu-weight and --cpu-limit don't work",
            ),
            Controller::Pids => (
                "cgroup-pids",
                "only the filter (and RLIMIT_NPROC, for root) keeps a worker to one task",
            ),
            Controller::Io => ("cgroup-io", "workers share the disks as ordinary processes do; --io-weight doesn't work"),
        };
        let (probe, remedy) = probed(controller);
        Finding {
            name,
            purpose: controller.purpose(),
            required: false,
            probe,
            cost,
            remedy: if remedy.is_empty() { "nothing to do" } else { remedy },
        }
    });
    findings.into()
}

/// Tries everything.
pub fn all() -> Vec<Finding> {
    let mut findings: Vec<Finding> = Layer::ALL
        .iter()
        .map(|found| Finding {
            name: found.name(),
            purpose: found.purpose(),
            required: true,
            probe: layer(*found),
            cost: "workers don't start, unless you accept that it is missing (--accept-missing)",
            remedy: found.remedy(),
        })
        .collect();
    findings.push(Finding {
        name: NOTIFICATION,
        purpose: "tells the host of a forbidden call, which stops the worker (seccomp_unotify)",
        required: false,
        probe: notification(),
        cost: "a forbidden call still doesn't happen and kills the worker, but leaves no evidence of which it was",
        remedy: "EBUSY: somebody outside listens to this process's filters already (a container's seccomp agent); run without it",
    });
    findings.push(Finding {
        name: "kernel-tracker",
        purpose: "finds the pages that an update wrote, with unchanged code",
        required: false,
        probe: kernel_tracker(),
        cost: "tenants can't be run with --tracker kernel; cards, which are the default, and --tracker signal work",
        remedy: "run Linux 6.7 or later; in a container allow userfaultfd in the seccomp profile",
    });
    findings.push(Finding {
        name: "read-workers",
        purpose: "the host copies a worker's pages (process_vm_readv, process_vm_writev)",
        required: false,
        probe: reach_child(),
        cost: "workers copy their pages themselves (--page-copy worker), which takes longer; `lazaret run --snapshot-after` doesn't work",
        remedy: "sysctl kernel.yama.ptrace_scope to 0, 1 or 2; in a container allow both calls in the seccomp profile",
    });
    findings.push(Finding {
        name: "memory-executable",
        purpose: "workers are made of an executable of their own, with no compiler in it",
        required: false,
        probe: crate::executable::probe(),
        cost: "workers are the embedding program, started again: they take longer to start and twice the memory (`lazaret bench --filter start`, `--filter memory`)",
        remedy: "sysctl vm.memfd_noexec to 0 or 1; let a security module that forbids it allow executing memfd files",
    });
    findings.push(Finding {
        name: "memory-pressure",
        purpose: "idle workers leave as soon as memory is short",
        required: false,
        probe: crate::memory_pressure::probe(),
        cost: "idle workers leave after their time only, or when there are as many as there may be (PoolOptions)",
        remedy: "run Linux 6.5 or later, or with CAP_SYS_RESOURCE, with pressure stall information on (psi=1 on the kernel's command line); in a container mount /proc/pressure",
    });
    findings.extend(crate::measures::findings());
    findings.extend(cgroups());
    findings
}

/// The name of the finding about forbidden calls being told.
const NOTIFICATION: &str = "notification";

/// The grade of the walls here, by what was found.
pub fn grade(findings: &[Finding]) -> Grade {
    let missing: Vec<Layer> = findings
        .iter()
        .filter(|finding| !finding.probe.works())
        .filter_map(|finding| finding.name.parse().ok())
        .collect();
    let told = findings
        .iter()
        .any(|finding| finding.name == NOTIFICATION && finding.probe.works());
    crate::grade::grade(&missing, told)
}

/// The layers that are namespaces.
pub fn namespace_layers() -> impl Iterator<Item = Layer> {
    namespaces::NAMESPACES.iter().map(|(layer, _)| *layer)
}

/// The namespaces, for tables.
pub fn namespace_names() -> impl Iterator<Item = &'static str> {
    namespaces::NAMESPACES.iter().map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_tried_and_nothing_hangs() {
        let findings = all();
        assert!(findings.len() > Layer::ALL.len());
        for finding in &findings {
            assert!(
                !finding.remedy.is_empty() && !finding.cost.is_empty(),
                "{}",
                finding.name
            );
        }
        // These need nothing of the host's configuration.
        for name in ["no-new-privs", "seccomp"] {
            let found = findings
                .iter()
                .find(|finding| finding.name == name)
                .unwrap();
            assert!(found.probe.works(), "{found:?}");
        }
    }
}
