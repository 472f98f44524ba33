//! Hosts as trees of files, and what is said of each.

use super::*;

/// A host, as files.
fn facts(files: &[(&str, &str)]) -> Facts {
    let root = std::env::temp_dir().join(format!(
        "lazaret-advice-{}-{:x}",
        std::process::id(),
        std::ptr::from_ref(files).addr()
    ));
    let _ = fs::remove_dir_all(&root);
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let facts = Facts::read(&root);
    let _ = fs::remove_dir_all(&root);
    facts
}

const ORDINARY: (&str, &str) = (
    "proc/self/status",
    "Name:\tlazaret\nUid:\t1000\t1000\t1000\t1000\nSeccomp:\t0\n",
);
const FILTERED_ROOT: (&str, &str) = (
    "proc/self/status",
    "Name:\tlazaret\nUid:\t0\t0\t0\t0\nSeccomp:\t2\n",
);
const ROOT: (&str, &str) = (
    "proc/self/status",
    "Name:\tlazaret\nUid:\t0\t0\t0\t0\nSeccomp:\t0\n",
);
const NEW: (&str, &str) = ("proc/sys/kernel/osrelease", "6.18.0\n");
const FIRST: (&str, &str) = ("proc/self/uid_map", "         0          0 4294967295\n");

/// Hosts, and what is said of each: about what, and words of the remedies.
#[test]
fn hosts_are_advised() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);
    let cases: &[Case<'_>] = &[
        ("nothing known", &[], &[]),
        (
            "a new kernel, nothing restricted",
            &[NEW, ORDINARY, FIRST],
            &[],
        ),
        (
            "Ubuntu 24.04",
            &[
                ("proc/sys/kernel/osrelease", "6.8.0-31-generic\n"),
                ORDINARY,
                FIRST,
                (
                    "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                    "1\n",
                ),
                ("proc/sys/kernel/unprivileged_userns_clone", "1\n"),
                ("proc/self/attr/current", "unconfined\n"),
                (
                    "sys/kernel/security/lsm",
                    "lockdown,capability,landlock,yama,apparmor",
                ),
            ],
            &[("user-namespace", "/etc/apparmor.d/lazaret")],
        ),
        (
            "Ubuntu 24.04 with the profile",
            &[
                NEW,
                ORDINARY,
                (
                    "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                    "1\n",
                ),
                ("proc/self/attr/current", "unconfined\n"),
                ("proc/self/attr/apparmor/current", "lazaret (unconfined)\n"),
            ],
            &[],
        ),
        (
            "Ubuntu 24.04, as root",
            &[
                NEW,
                ROOT,
                (
                    "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                    "1\n",
                ),
            ],
            &[],
        ),
        (
            "Debian with the old switch",
            &[
                NEW,
                ORDINARY,
                ("proc/sys/kernel/unprivileged_userns_clone", "0\n"),
            ],
            &[("user-namespace", "kernel.unprivileged_userns_clone=1")],
        ),
        (
            "no user namespaces at all, for root neither",
            &[NEW, ROOT, ("proc/sys/user/max_user_namespaces", "0\n")],
            &[("user-namespace", "user.max_user_namespaces=")],
        ),
        (
            "Docker",
            &[NEW, FILTERED_ROOT, FIRST, (".dockerenv", "")],
            &[("user-namespace", "--security-opt seccomp=PROFILE")],
        ),
        (
            "Kubernetes",
            &[
                NEW,
                FILTERED_ROOT,
                ("run/secrets/kubernetes.io/serviceaccount/token", "x"),
                (".dockerenv", ""),
            ],
            &[("user-namespace", "seccompProfile")],
        ),
        (
            "a nested container without a filter",
            &[
                NEW,
                ROOT,
                ("proc/self/uid_map", "0 100000 65536\n"),
                ("run/systemd/container", "lxc\n"),
            ],
            &[("user-namespace", "32 levels")],
        ),
        (
            "Debian 11",
            &[("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n"), ROOT],
            &[
                ("empty-root", "5.12"),
                ("mdwe", "6.3"),
                ("kernel-tracker", "6.7"),
                ("landlock", "5.13"),
            ],
        ),
        (
            "no Landlock on the command line",
            &[
                NEW,
                ROOT,
                ("sys/kernel/security/lsm", "capability,yama,selinux"),
            ],
            &[("landlock", "lsm=landlock,capability,yama,selinux")],
        ),
        (
            "an early Landlock",
            &[
                ("proc/sys/kernel/osrelease", "6.6.2\n"),
                ROOT,
                ("sys/kernel/security/lsm", "capability,landlock\n"),
            ],
            &[
                ("kernel-tracker", "6.7"),
                ("landlock", "nothing has to be done"),
            ],
        ),
        (
            "Yama at its strictest",
            &[NEW, ROOT, ("proc/sys/kernel/yama/ptrace_scope", "3\n")],
            &[("read-workers", "boot anew")],
        ),
        (
            "a user's session without delegation",
            &[
                NEW,
                ORDINARY,
                ("proc/self/cgroup", "0::/user.slice/session-1.scope\n"),
                (
                    "sys/fs/cgroup/user.slice/session-1.scope/cgroup.controllers",
                    "memory pids\n",
                ),
            ],
            &[("cgroup-memory", "Delegate=cpu cpuset io memory pids")],
        ),
        (
            "a delegated service",
            &[
                NEW,
                ORDINARY,
                ("proc/self/cgroup", "0::/lazaret.service\n"),
                (
                    "sys/fs/cgroup/lazaret.service/cgroup.controllers",
                    "cpuset cpu io memory pids\n",
                ),
            ],
            &[],
        ),
        (
            "version 1 beside an empty version 2",
            &[NEW, ROOT, ("proc/self/cgroup", "3:memory:/a\n0::/\n")],
            &[],
        ),
        (
            "what is no number restricts nothing",
            &[
                ("proc/sys/kernel/osrelease", "unknown\n"),
                ORDINARY,
                ("proc/sys/user/max_user_namespaces", "many\n"),
                ("proc/sys/kernel/unprivileged_userns_clone", ""),
            ],
            &[],
        ),
    ];
    for (name, files, expected) in cases {
        let given = advice(&facts(files));
        let about: Vec<&str> = given.iter().map(|advice| advice.about).collect();
        let wanted: Vec<&str> = expected.iter().map(|(about, _)| *about).collect();
        assert_eq!(about, wanted, "{name}: {given:#?}");
        for (advice, (_, words)) in given.iter().zip(*expected) {
            assert!(
                advice.remedies.iter().any(|remedy| remedy.contains(words)),
                "{name}: {advice:#?}"
            );
        }
    }
}

#[test]
fn this_host_s_facts_can_be_read() {
    let facts = Facts::read(Path::new("/"));
    assert!(
        facts.kernel.is_some() && facts.cgroup.is_some(),
        "{facts:?}"
    );
    assert_eq!(facts.root, rustix::process::geteuid().is_root());
}

/// What is said to be in the tree is there, and names what it should.
#[test]
fn the_profile_is_shipped() {
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/apparmor/lazaret");
    let profile = fs::read_to_string(profile).unwrap();
    assert!(profile.contains("flags=(unconfined)") && profile.contains("  userns,\n"));
}
