//! Why a layer may be missing on this host, and the exact remedy.
//!
//! Probes say what works; they can't say why not. [`Facts`] are what the kernel
//! tells of its own settings, read under a root directory that tests put in place
//! of `/`, and [`advice`] is a function of nothing but facts.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// What is known of a host. What could not be read is nothing: a file that isn't
/// there, or is no number, restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The kernel's version, as two numbers.
    pub kernel: Option<(u32, u32)>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu 23.10 and later).
    pub apparmor_restricts: Option<u64>,
    /// The AppArmor profile of this process (`/proc/self/attr/apparmor/current`,
    /// or the older `/proc/self/attr/current`).
    pub apparmor_profile: Option<String>,
    /// `kernel.unprivileged_userns_clone` (Debian's and Arch's patch).
    pub unprivileged_userns_clone: Option<u64>,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `kernel.yama.ptrace_scope`.
    pub ptrace_scope: Option<u64>,
    /// The security modules that run (`/sys/kernel/security/lsm`).
    pub modules: Option<Vec<String>>,
    /// Whether this process is root's, in its own namespace.
    pub root: bool,
    /// Whether its user namespace maps all ids, as the first one does.
    pub first_user_namespace: bool,
    /// The container that it is in, by its own mark.
    pub container: Option<String>,
    /// Whether a filter of system calls is on it already.
    pub filtered: bool,
    /// The control groups: `version 2`, `version 1`, both, or none.
    pub cgroup: Option<Groups>,
}

/// What can be seen of control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// This process's group of version 2, if there is one.
    pub path: Option<String>,
    /// The controllers of its group.
    pub controllers: Vec<String>,
    /// Whether version 1 is mounted beside or instead.
    pub version_1: bool,
}

/// One piece of advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What it is about: a layer's or finding's name.
    pub about: &'static str,
    /// What keeps it from working.
    pub because: String,
    /// What to do, in the order in which to try.
    pub remedies: Vec<String>,
}

fn text(root: &Path, path: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    Some(text.trim_end_matches(['\n', '\0']).to_owned())
}

fn number(root: &Path, path: &str) -> Option<u64> {
    text(root, path)?.trim().parse().ok()
}

/// `6.8.0-31-generic` is 6.8.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A line of `/proc/self/status`.
fn line<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

impl Facts {
    /// Reads them under `root`, which is `/` but in tests.
    pub fn read(root: &Path) -> Self {
        let status = text(root, "proc/self/status").unwrap_or_default();
        let whole = |map: &str| {
            let words: Vec<&str> = map.split_whitespace().collect();
            words == ["0", "0", "4294967295"]
        };
        Self {
            kernel: text(root, "proc/sys/kernel/osrelease").and_then(|text| version(&text)),
            apparmor_restricts: number(
                root,
                "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            ),
            apparmor_profile: text(root, "proc/self/attr/apparmor/current")
                .or_else(|| text(root, "proc/self/attr/current"))
                .filter(|profile| !profile.is_empty()),
            unprivileged_userns_clone: number(root, "proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: number(root, "proc/sys/user/max_user_namespaces"),
            ptrace_scope: number(root, "proc/sys/kernel/yama/ptrace_scope"),
            modules: text(root, "sys/kernel/security/lsm")
                .map(|text| text.split(',').map(str::to_owned).collect()),
            root: line(&status, "Uid").and_then(|ids| ids.split_whitespace().nth(1)) == Some("0"),
            first_user_namespace: text(root, "proc/self/uid_map").is_none_or(|map| whole(&map)),
            container: container(root),
            filtered: line(&status, "Seccomp").is_some_and(|mode| mode != "0"),
            cgroup: groups(root),
        }
    }

    fn older_than(&self, major: u32, minor: u32) -> bool {
        self.kernel.is_some_and(|kernel| kernel < (major, minor))
    }

    /// In words: `Linux 5.10`.
    fn named(&self) -> String {
        match self.kernel {
            Some((major, minor)) => format!("Linux {major}.{minor}"),
            None => "this kernel".to_owned(),
        }
    }
}

/// Marks that container managers leave (systemd's container interface, Docker's
/// `/.dockerenv`, Podman's `/run/.containerenv`, Kubernetes' service account).
fn container(root: &Path) -> Option<String> {
    let there = |path: &str| root.join(path).exists();
    if there("run/secrets/kubernetes.io") || there("var/run/secrets/kubernetes.io") {
        return Some("Kubernetes".to_owned());
    }
    if there(".dockerenv") {
        return Some("Docker".to_owned());
    }
    if there("run/.containerenv") {
        return Some("Podman".to_owned());
    }
    text(root, "run/systemd/container").filter(|name| !name.is_empty())
}

fn groups(root: &Path) -> Option<Groups> {
    let lines = text(root, "proc/self/cgroup")?;
    let path = lines.lines().find_map(|line| line.strip_prefix("0::"));
    let version_1 = lines.lines().any(|line| !line.starts_with("0::"));
    let controllers = path
        .and_then(|path| {
            let group = path.trim_start_matches('/');
            text(
                &root.join("sys/fs/cgroup").join(group),
                "cgroup.controllers",
            )
        })
        .map(|text| text.split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default();
    Some(Groups {
        path: path.map(str::to_owned),
        controllers,
        version_1,
    })
}

/// What keeps something from working, and what to do.
pub fn advice(facts: &Facts) -> Vec<Advice> {
    let mut all = Vec::new();
    namespaces(facts, &mut all);
    kernel(facts, &mut all);
    landlock(facts, &mut all);
    reach(facts, &mut all);
    cgroups(facts, &mut all);
    all
}

/// Whether its profile is one that may make user namespaces as far as is known: a
/// named one with `userns,`. `unconfined` without a name is what is restricted.
fn has_profile(facts: &Facts) -> bool {
    facts
        .apparmor_profile
        .as_deref()
        .is_some_and(|profile| profile != "unconfined")
}

fn namespaces(facts: &Facts, all: &mut Vec<Advice>) {
    let mut add = |because: &str, remedies: &[&str]| {
        all.push(Advice {
            about: "user-namespace",
            because: because.to_owned(),
            remedies: remedies.iter().map(|&text| text.to_owned()).collect(),
        });
    };
    if facts.max_user_namespaces == Some(0) {
        add(
            "user.max_user_namespaces is 0: nobody may make user namespaces",
            &[
                "sysctl -w user.max_user_namespaces=15000, and the same line in /etc/sysctl.d/60-lazaret.conf",
            ],
        );
    }
    let ordinary = !facts.root;
    if ordinary && facts.unprivileged_userns_clone == Some(0) {
        add(
            "kernel.unprivileged_userns_clone is 0: only root may make user namespaces",
            &[
                "sysctl -w kernel.unprivileged_userns_clone=1, and the same line in /etc/sysctl.d/60-lazaret.conf",
                "or run the host as root: workers still get ids of their own",
            ],
        );
    }
    if ordinary && facts.apparmor_restricts.is_some_and(|on| on != 0) && !has_profile(facts) {
        add(
            "kernel.apparmor_restrict_unprivileged_userns is on, and this program has no AppArmor profile",
            &[
                "install the profile docs/apparmor/lazaret of the source tree: install -m 644 docs/apparmor/lazaret /etc/apparmor.d/lazaret && apparmor_parser -r /etc/apparmor.d/lazaret (with the path of this program, if it isn't in /usr/bin, /usr/local/bin or ~/.cargo/bin)",
                "or, for all programs: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
                "or run the host as root",
            ],
        );
    }
    match &facts.container {
        Some(name) if facts.filtered => {
            let setting = match name.as_str() {
                "Kubernetes" => {
                    "securityContext: seccompProfile: {type: Localhost, localhostProfile: …} with a profile that allows clone3, clone, unshare, mount, umount2, pivot_root, open_tree, move_mount, mount_setattr, and procMount: Unmasked with hostUsers: false"
                }
                _ => {
                    "run the container with --security-opt seccomp=PROFILE, a profile that also allows clone3, unshare, mount, umount2, pivot_root, open_tree, move_mount and mount_setattr, and with --security-opt apparmor=unconfined where AppArmor refuses mount"
                }
            };
            add(
                &format!(
                    "this is a container ({name}) whose filter may refuse namespaces and mounts"
                ),
                &[setting, "or run the host outside of the container"],
            );
        }
        Some(name) if !facts.first_user_namespace => add(
            &format!(
                "this is a container ({name}) in a user namespace: nested ones count against its limits"
            ),
            &["raise user.max_user_namespaces outside, up to 32 levels may be nested"],
        ),
        _ => {}
    }
}

fn kernel(facts: &Facts, all: &mut Vec<Advice>) {
    for (about, major, minor, what) in [
        ("user-namespace", 5, 3, "clone3 and pidfds"),
        ("seccomp", 5, 7, "notifications and groups at birth"),
        (
            "empty-root",
            5,
            12,
            "mount_setattr, and id-mapped mounts for root's --dir",
        ),
        ("mdwe", 6, 3, "memory-deny-write-execute"),
        ("kernel-tracker", 6, 7, "PAGEMAP_SCAN"),
    ] {
        if facts.older_than(major, minor) {
            all.push(Advice {
                about,
                because: format!("{} is older than {what}", facts.named()),
                remedies: vec![format!("run Linux {major}.{minor} or later")],
            });
        }
    }
}

fn landlock(facts: &Facts, all: &mut Vec<Advice>) {
    let mut add = |because: String, remedies: &[&str]| {
        all.push(Advice {
            about: "landlock",
            because,
            remedies: remedies.iter().map(|&text| text.to_owned()).collect(),
        });
    };
    if facts.older_than(5, 13) {
        add(
            format!("{} is older than Landlock", facts.named()),
            &["run Linux 5.13 or later, better 6.12"],
        );
    } else if facts
        .modules
        .as_ref()
        .is_some_and(|modules| modules.iter().all(|module| module != "landlock"))
    {
        let modules = facts.modules.clone().unwrap_or_default().join(",");
        add(
            format!("landlock is not among the security modules that run ({modules})"),
            &[
                &format!("add it to the kernel's command line: lsm=landlock,{modules}"),
                "if it is refused there, the kernel needs CONFIG_SECURITY_LANDLOCK=y",
            ],
        );
    } else if facts.older_than(6, 7) {
        add(
            format!(
                "{} has an early Landlock: files, but not the network (6.7) or signals and abstract sockets (6.12)",
                facts.named()
            ),
            &[
                "nothing has to be done: the filter and the namespaces keep these; run Linux 6.12 or later for the third layer",
            ],
        );
    }
}

fn reach(facts: &Facts, all: &mut Vec<Advice>) {
    if facts.ptrace_scope == Some(3) {
        all.push(Advice {
            about: "read-workers",
            because: "kernel.yama.ptrace_scope is 3: nobody may look into another process".into(),
            remedies: vec![
                "set kernel.yama.ptrace_scope to 0, 1 or 2 in /etc/sysctl.d and boot anew: 3 can't be taken back".into(),
                "or leave it: workers then copy their pages themselves".into(),
            ],
        });
    }
}

fn cgroups(facts: &Facts, all: &mut Vec<Advice>) {
    let Some(groups) = &facts.cgroup else { return };
    let Some(path) = &groups.path else { return };
    // With version 1 beside it, its controllers are used.
    if groups.version_1 {
        return;
    }
    let missing: Vec<&str> = ["memory", "cpu", "pids", "io"]
        .into_iter()
        .filter(|wanted| groups.controllers.iter().all(|has| has != wanted))
        .collect();
    if missing.is_empty() {
        return;
    }
    let mut remedies = vec![
        "under systemd: Delegate=yes in the service, or systemd-run --user --scope -p Delegate=yes lazaret …".to_owned(),
    ];
    if !facts.root {
        remedies.push(
            "for a user's own services to have all controllers: mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' > /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload, and log in anew".to_owned(),
        );
    }
    if facts.container.is_some() {
        remedies.push(
            "in a container: a writable /sys/fs/cgroup (--cgroupns=private and a mount that isn't read-only)".to_owned(),
        );
    }
    all.push(Advice {
        about: "cgroup-memory",
        because: format!(
            "the group of this process ({path}) has no controller {}",
            missing.join(", ")
        ),
        remedies,
    });
}

#[cfg(test)]
mod tests;
