use std::path::Path;

use super::super::MemoryKill;
use super::super::imitation::Imitation;
use super::*;

/// Version 2 without a tree that several tests would share.
fn open(options: CgroupOptions, surroundings: Surroundings) -> Result<Arc<Cgroups>, CgroupError> {
    Cgroups::open_in(options, surroundings, None)
}

fn auto() -> CgroupOptions {
    CgroupOptions::default()
}

fn required() -> CgroupOptions {
    CgroupOptions {
        mode: Mode::Require,
        ..auto()
    }
}

fn pid() -> String {
    std::process::id().to_string()
}

/// What can't be used, with its remedy.
fn missing(cgroups: &Cgroups) -> Vec<(Controller, &str, &'static str)> {
    let found = cgroups.probe().iter();
    found
        .filter_map(|probed| {
            let (why, remedy) = probed.missing()?;
            Some((probed.controller, why, remedy))
        })
        .collect()
}

#[test]
fn alone_in_a_delegated_group_the_host_makes_a_leaf_for_itself_and_comes_back() {
    let there = Imitation::new("cpu memory pids");
    let surroundings = there.group("/system.slice/box.service", &format!("{}\n", pid()));
    let own = "system.slice/box.service";
    // What the imitation's parents hand down.
    std::fs::write(
        there.path(own).join("cgroup.controllers"),
        "cpu memory pids",
    )
    .unwrap();
    let cgroups = open(required(), surroundings).unwrap();
    let [tree] = there.groups(own).try_into().unwrap();
    assert_eq!(Owner::of(&tree), Owner::here(Path::new("/proc")));
    let at = |file: &str| there.read(&format!("{own}/{tree}/{file}"));
    assert_eq!(at("host/cgroup.procs"), pid());
    // (The imitation gives files only to groups that are made later.)
    assert_eq!(at("launcher/cpu.weight"), "10000");
    assert_eq!(
        there.read(&format!("{own}/cgroup.subtree_control")),
        "+memory +cpu +pids"
    );
    assert_eq!(at("cgroup.subtree_control"), "+memory +cpu +pids");
    assert!(cgroups.launcher().is_some());
    drop(cgroups);
    assert_eq!(there.groups(own), [""; 0]);
    assert_eq!(
        there.read(&format!("{own}/cgroup.subtree_control")),
        "-memory -cpu -pids"
    );
    assert_eq!(there.read(&format!("{own}/cgroup.procs")).trim(), pid());
}

#[test]
fn with_others_in_its_group_the_host_makes_groups_beside_it() {
    let there = Imitation::new("cpu memory pids");
    let surroundings = there.group("/user.scope", &format!("{}\n4711\n", pid()));
    let cgroups = open(required(), surroundings).unwrap();
    assert_eq!(there.groups("user.scope"), [""; 0]);
    assert_eq!(there.groups("").len(), 2, "its tree");
    let lease = cgroups.take(64 << 20).unwrap().unwrap();
    let entrance = lease.entrance().unwrap();
    assert!(entrance.directory.is_some() && entrance.tasks.is_empty());
    drop(lease);
    drop(cgroups);
    assert_eq!(there.groups(""), ["user.scope"]);
    // The root was not touched.
    assert_eq!(there.read("cgroup.subtree_control"), "cpu memory pids");
}

#[test]
fn a_group_has_the_limits_and_is_used_again() {
    let there = Imitation::new("cpu memory pids");
    let surroundings = there.group("/", "1\n");
    let options = CgroupOptions {
        cpu_weight: Some(25),
        cpu_limit: Some(500),
        ..required()
    };
    let cgroups = open(options, surroundings).unwrap();
    let [tree] = there.groups("").try_into().unwrap();
    let worker = |there: &Imitation| {
        let groups = there.groups(&tree);
        let worker = groups.iter().find(|name| name.starts_with("lazaret-"));
        format!("{tree}/{}", worker.unwrap())
    };
    let lease = cgroups.take(64 << 20).unwrap().unwrap();
    let name = worker(&there);
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("cpu.weight", "25"),
        ("cpu.max", "50000 100000"),
        ("pids.max", "1"),
    ] {
        assert_eq!(there.read(&format!("{name}/{file}")), value, "{file}");
    }
    lease.enter(4711).unwrap();
    assert_eq!(there.read(&format!("{name}/cgroup.procs")), "4711");
    // The kernel counts a kill, and the group says so once.
    let events = there.path(&name).join("memory.events");
    assert_eq!(lease.memory_kill(), MemoryKill::No);
    std::fs::write(&events, "oom 1\noom_kill 1\n").unwrap();
    let kill = MemoryKill::Yes {
        limit: 64 << 20,
        at_limit: true,
    };
    assert_eq!(lease.memory_kill(), kill);
    drop(lease);
    let lease = cgroups.take(128 << 20).unwrap().unwrap();
    assert_eq!(worker(&there), name, "the same group");
    assert_eq!(there.read(&format!("{name}/memory.max")), "134217728");
    assert_eq!(
        lease.memory_kill(),
        MemoryKill::No,
        "that was another worker's"
    );
    // Two at a time are two groups.
    let second = cgroups.take(128 << 20).unwrap().unwrap();
    assert_eq!(there.groups(&tree).len(), 3, "launcher and two workers");
    second.spend();
    drop(second);
    assert_eq!(there.groups(&tree).len(), 2, "it is not used again");
    drop(lease);
    cgroups.refill();
    assert_eq!(there.groups(&tree).len(), 2, "one is free already");
    let _lease = cgroups.take(128 << 20).unwrap().unwrap();
    cgroups.refill();
    assert_eq!(there.groups(&tree).len(), 3, "one is made ahead");
}

#[test]
fn a_group_that_somebody_removed_is_made_anew() {
    let there = Imitation::new("cpu memory pids");
    let cgroups = open(required(), there.group("/", "1\n")).unwrap();
    let [tree] = there.groups("").try_into().unwrap();
    for name in there.groups(&tree) {
        if name.starts_with("lazaret-") {
            std::fs::remove_dir_all(there.path(&tree).join(name)).unwrap();
        }
    }
    let lease = cgroups.take(64 << 20).unwrap().unwrap();
    lease.enter(1).unwrap();
}

#[test]
fn leftovers_of_hosts_that_ended_are_removed_and_nobody_elses() {
    let there = Imitation::new("cpu memory pids");
    let surroundings = there.group("/", "1\n");
    let own = Owner::here(Path::new("/proc")).unwrap().next();
    let parts: Vec<&str> = own.split('-').collect();
    let [_, namespace, pid, start, _] = parts.try_into().unwrap();
    let dead = format!(
        "lazaret-{namespace}-{pid}-{}-3",
        start.parse::<u64>().unwrap() - 1
    );
    let elsewhere = format!(
        "lazaret-{}-{pid}-1-3",
        namespace.parse::<u64>().unwrap() + 1
    );
    let mine = format!("lazaret-{namespace}-{pid}-{start}-999999");
    for name in [&dead, &elsewhere, &mine, &"other".to_owned()] {
        (surroundings.make)(&there.path(name)).unwrap();
    }
    (surroundings.make)(&there.path(&dead).join("launcher")).unwrap();
    let cgroups = open(auto(), surroundings).unwrap();
    let left = there.groups("");
    assert!(!left.contains(&dead), "{left:?}");
    for name in [&elsewhere, &mine, &"other".to_owned()] {
        assert!(left.contains(name), "{name}: {left:?}");
    }
    drop(cgroups);
    assert_eq!(there.groups("").len(), 3);
}

#[test]
fn what_is_missing_is_said_with_a_remedy() {
    // The root hands nothing down.
    let there = Imitation::new("");
    let cgroups = open(auto(), there.group("/", "1\n")).unwrap();
    assert!(!cgroups.is_used());
    assert!(cgroups.take(1 << 30).unwrap().is_none());
    let (words, remedy) = cgroups.degraded().unwrap();
    assert!(words.contains("hands no controllers down"), "{words}");
    assert!(remedy.contains("cgroup.subtree_control"), "{remedy}");
    assert_eq!(there.groups(""), [""; 0], "nothing was made");

    // It hands only some down.
    let there = Imitation::new("memory pids");
    let cgroups = open(auto(), there.group("/", "1\n")).unwrap();
    assert!(cgroups.is_used());
    let (words, _) = cgroups.degraded().unwrap();
    assert!(
        words.starts_with("no cpu: ") && words.contains("doesn't hand cpu down"),
        "{words}"
    );
    let lease = cgroups.take(64 << 20).unwrap();
    assert!(lease.is_some(), "memory and tasks are limited all the same");

    // Others in the group, and the group above hands nothing down.
    let there = Imitation::new("");
    let surroundings = there.group("/a", "1\n2\n");
    std::fs::write(there.path("a/cgroup.controllers"), "memory cpu pids").unwrap();
    let cgroups = open(auto(), surroundings).unwrap();
    let (words, remedy) = cgroups.degraded().unwrap();
    assert!(words.contains("hands no controllers down"), "{words}");
    assert!(
        remedy.contains("Delegate=yes") && remedy.contains("--cgroupns=private"),
        "{remedy}"
    );

    // A container's root, with others in it: nothing above is to be seen.
    let there = Imitation::new("");
    let mut surroundings = there.group("/a", "1\n2\n");
    std::fs::write(there.path("a/cgroup.controllers"), "memory cpu pids").unwrap();
    surroundings.mountinfo = format!(
        "25 30 0:23 / {} rw - cgroup2 cgroup2 rw\n",
        there.path("a").display()
    );
    surroundings.cgroup = "0::/\n".into();
    let cgroups = open(auto(), surroundings).unwrap();
    let (words, _) = cgroups.degraded().unwrap();
    assert!(words.contains("has other processes"), "{words}");

    // Nothing mounted, or read-only.
    let there = Imitation::new("cpu memory pids");
    let mut surroundings = there.group("/", "1\n");
    surroundings.mountinfo = surroundings.mountinfo.replace(" rw ", " ro ");
    let cgroups = open(auto(), surroundings.clone()).unwrap();
    assert!(cgroups.degraded().unwrap().0.contains("read-only"));
    surroundings.mountinfo = String::new();
    let cgroups = open(auto(), surroundings).unwrap();
    let (words, remedy) = cgroups.degraded().unwrap();
    assert!(words.contains("no hierarchy with it is mounted"), "{words}");
    assert!(remedy.contains("mount cgroup version 2"), "{remedy}");
}

#[test]
fn what_is_required_or_asked_for_must_be_there() {
    let there = Imitation::new("memory pids");
    let error = open(required(), there.group("/", "1\n")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("control groups are required (--cgroup require), but no cpu:")
            && text.contains("+cpu"),
        "{text}"
    );
    assert_eq!(there.groups(""), [""; 0], "it is taken back");
    let options = CgroupOptions {
        cpu_limit: Some(500),
        ..auto()
    };
    let text = open(options, there.group("/", "1\n"))
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("--cpu-limit needs the cpu controller, but"),
        "{text}"
    );
    let options = CgroupOptions {
        memory: Some(64 << 20),
        ..auto()
    };
    assert!(open(options, there.group("/", "1\n")).is_ok());
    let options = CgroupOptions {
        io_weight: Some(50),
        ..auto()
    };
    let there = Imitation::new("cpu io memory pids");
    let cgroups = open(options, there.group("/", "1\n"));
    let text = cgroups.unwrap_err().to_string();
    assert!(text.contains("groups have no io.weight"), "{text}");
}

#[test]
fn off_is_off() {
    let options = CgroupOptions {
        mode: Mode::Off,
        ..auto()
    };
    let cgroups = Cgroups::open(options).unwrap();
    assert!(!cgroups.is_used() && cgroups.degraded().is_none());
    assert_eq!(missing(&cgroups).len(), 4);
    assert!(cgroups.take(1 << 30).unwrap().is_none());
}

/// On the kernel's own hierarchies, of whichever version they are: where a group
/// can be made, a process that enters it is seen there with its limits, and
/// nothing is left.
#[test]
fn a_process_in_a_real_group_is_verified() {
    let mut options = auto();
    // With version 1 a group for processors is made only for this.
    options.cpu_limit = Cgroups::open(options)
        .unwrap()
        .probe()
        .iter()
        .any(|probed| probed.controller == Controller::Cpu && probed.missing().is_none())
        .then_some(500);
    let cgroups = Cgroups::open(options).unwrap();
    let Some(lease) = cgroups.take(64 << 20).unwrap() else {
        // Nothing may be written: that is said, for everything that is missing.
        assert!(cgroups.degraded().is_some());
        return;
    };
    let mut child = std::process::Command::new("/bin/sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let error = lease.verify(pid).unwrap_err().to_string();
    assert!(
        error.contains("not in") && error.contains("lazaret-"),
        "{error}"
    );
    lease.enter(pid).unwrap();
    let evidence = lease.verify(pid).unwrap();
    assert!(!evidence.groups.is_empty());
    for probed in cgroups.probe() {
        let limited = evidence
            .limits
            .iter()
            .any(|limit| limit.controller == probed.controller);
        assert_eq!(limited, probed.missing().is_none(), "{probed:?}");
    }
    let works = |controller| {
        let mut found = cgroups.probe().iter();
        found.any(|probed| probed.controller == controller && probed.missing().is_none())
    };
    if works(Controller::Memory) {
        assert!(lease.usage().memory_bytes.is_some());
        assert_eq!(lease.memory_kill(), MemoryKill::No);
    }
    let directories: Vec<_> = cgroups
        .branches()
        .map(|branch| branch.directory.clone())
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lease);
    drop(cgroups);
    let own = Owner::here(Path::new("/proc"));
    for directory in directories {
        let left = std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten();
        let mut names = left.filter_map(|entry| entry.file_name().into_string().ok());
        assert!(!names.any(|name| Owner::of(&name) == own), "{directory:?}");
    }
}
