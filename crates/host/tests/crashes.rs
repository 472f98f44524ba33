//! `kill -9` of the host at every change that any operation makes to a file: whatever was acknowledged is there, what
//! was under way is done or not done, whole, and nothing is left over.
//!
//! The host is another process, traced with ptrace(2) from here, so nothing in it knows of the test, and every system
//! call counts, whoever makes it. Power cuts are simulated below the image, in `crates/image/tests/crash_consistency.rs`.

mod harness;
mod histories;

use std::path::Path;
use std::time::Duration;

use histories::numbers::Numbers;
use histories::operation::{Answer, Operation};
use histories::processes::{argv0, descendants};
use histories::victim::{Victim, data, serve_if_victim};
use histories::world::{Expected, World};
use lazaret::{Depth, FsckEvent, FsckFinding, Severity};

/// What a deep check finds, but for modules that nobody has: they stay for the next tenant.
fn findings(directory: &Path) -> Vec<FsckFinding> {
    let mut found = Vec::new();
    lazaret::fsck(&data(directory), &[], Depth::Pages, &mut |event| {
        if let FsckEvent::Finding(finding) = event {
            found.push(finding);
        }
    })
    .unwrap();
    found.retain(|finding| finding.problem != "no tenant and no snapshot has this module");
    found
}

/// A data directory that is worked on and killed, and what should be in it.
struct Campaign {
    directory: tempfile::TempDir,
    world: World,
    /// What it may be instead, as something was under way.
    next: Vec<World>,
    context: String,
}

impl Campaign {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            world: World::default(),
            next: Vec::new(),
            context: String::new(),
        }
    }

    /// The same on a copy of the directory.
    fn copy(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_directory(self.directory.path(), directory.path());
        Self {
            directory,
            world: self.world.clone(),
            next: Vec::new(),
            context: self.context.clone(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Has a victim do it. False if it was killed.
    fn run(&mut self, victim: &mut Victim, operation: &Operation) -> bool {
        let context = || format!("{}, {operation:?}", self.context);
        let expected = self.world.after(operation);
        let answer = victim.ask(operation);
        match (answer, expected) {
            (Some(Ok(answer)), Expected::World(world)) => {
                self.world = world;
                if let Err(reason) = self.world.check(operation, &answer) {
                    panic!("{}: {reason}", context());
                }
                true
            }
            (Some(Err(error)), Expected::Refused(reason)) => {
                assert!(error.contains(reason), "{}: {error}", context());
                true
            }
            (Some(Err(error)), Expected::World(_)) => panic!("{}: {error}", context()),
            (Some(Ok(answer)), Expected::Refused(reason)) => {
                panic!("{}: {answer:?}, but `{reason}` was expected", context())
            }
            (None, _) => {
                self.next = self.world.stages(operation);
                false
            }
        }
    }

    /// After a kill, before anybody opens the directory: nothing is damaged.
    fn check_untouched(&self) {
        // Killed before there was one.
        if !data(self.path()).join("tenants").exists() {
            return;
        }
        let found = findings(self.path());
        let damage = |finding: &&FsckFinding| finding.severity == Severity::Damage;
        let first = found.iter().find(damage);
        assert!(first.is_none(), "{}: {first:#?}", self.context);
    }

    /// Opens the directory: everything is as it was acknowledged, or one operation further.
    fn recover(&mut self, victim: &mut Victim, snapshots: bool) {
        self.open(victim, false);
        let answer = victim.ask(&Operation::Look { snapshots });
        let Some(Ok(Answer::World(seen))) = answer else {
            panic!("{}: {answer:?}", self.context);
        };
        let mut candidates = vec![self.world.clone()];
        candidates.append(&mut self.next);
        let mut differences = Vec::new();
        for mut world in candidates {
            match world.see(&seen) {
                Ok(()) => {
                    self.world = world;
                    return;
                }
                Err(difference) => differences.push(difference),
            }
        }
        panic!(
            "{}: it is neither what it was nor what it should become: {differences:#?}",
            self.context
        );
    }

    fn open(&self, victim: &mut Victim, own_cache: bool) {
        let answer = victim.ask(&Operation::Open {
            own_cache,
            relaxed: false,
        });
        assert_eq!(answer, Some(Ok(Answer::Done)), "{}", self.context);
    }

    /// Ends the victim in good order: nothing is left over.
    fn end(&self, victim: Victim) {
        victim.end();
        let found = findings(self.path());
        assert!(found.is_empty(), "{}: {found:#?}", self.context);
    }
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn name(name: &str) -> String {
    name.to_owned()
}

/// How many histories end in a kill, where a history is drawn; `LAZARET_HOST_CRASH_POINTS` if it is set.
fn points(default: u64) -> u64 {
    match std::env::var("LAZARET_HOST_CRASH_POINTS") {
        Ok(points) => points
            .parse()
            .expect("LAZARET_HOST_CRASH_POINTS is a number"),
        Err(_) => default,
    }
}

/// A directory with two tenants, of which one has two snapshots, and an archive.
fn prepared() -> Campaign {
    let mut campaign = Campaign::new();
    campaign.context = name("prepared");
    let mut victim = Victim::start(campaign.path());
    campaign.open(&mut victim, false);
    let write = |number| Operation::Write {
        name: name("a"),
        number,
    };
    let snapshot = |tag| Operation::Snapshot {
        name: name("a"),
        tag: name(tag),
    };
    let operations = [
        Operation::Install {
            name: name("a"),
            number: 11,
        },
        write(12),
        snapshot("s"),
        Operation::Upgrade {
            name: name("a"),
            kind: 2,
        },
        write(13),
        Operation::Compact { name: name("a") },
        write(14),
        snapshot("t"),
        write(15),
        Operation::Export {
            name: name("a"),
            file: name("archive"),
        },
        Operation::Install {
            name: name("b"),
            number: 16,
        },
        Operation::Write {
            name: name("b"),
            number: 17,
        },
    ];
    for operation in operations {
        assert!(campaign.run(&mut victim, &operation));
    }
    campaign.end(victim);
    campaign
}

/// Kills a host at every change of a file that `operation` makes, one after the other, and lastly when it has answered.
/// How many times.
fn kill_at_every_change(prepared: &Campaign, operation: &Operation, own_cache: bool) -> u64 {
    for at in 1.. {
        let mut campaign = prepared.copy();
        campaign.context = format!("killed at change {at} of {operation:?}");
        let mut victim = Victim::start(campaign.path());
        let opening = matches!(operation, Operation::Open { .. });
        if !opening {
            campaign.open(&mut victim, own_cache);
            campaign.run(&mut victim, &Operation::Look { snapshots: false });
        }
        victim.trace(Some(at));
        let done = campaign.run(&mut victim, operation);
        campaign.context = format!("{} ({:?})", campaign.context, victim.changes().last());
        drop(victim);
        campaign.check_untouched();
        let mut victim = Victim::start(campaign.path());
        campaign.recover(&mut victim, true);
        goes_on(&mut campaign, &mut victim, operation);
        campaign.end(victim);
        if done {
            return at;
        }
    }
    unreachable!("an operation makes fewer changes than that")
}

/// What was broken off can be done, or done again, and all else too.
fn goes_on(campaign: &mut Campaign, victim: &mut Victim, operation: &Operation) {
    let possible = match operation {
        Operation::Remove { name } => campaign.world.has(name),
        _ => true,
    };
    if possible {
        assert!(campaign.run(victim, operation), "{}", campaign.context);
    }
    // Whose name a tenant has that was removed: nothing of that one is left.
    for (name, number) in [("a", 51), ("new", 52)] {
        let name = name.to_owned();
        if !campaign.world.has(&name) {
            let install = Operation::Install { name, number };
            assert!(campaign.run(victim, &install), "{}", campaign.context);
        } else {
            let write = Operation::Write { name, number };
            assert!(campaign.run(victim, &write), "{}", campaign.context);
        }
    }
    assert!(campaign.run(victim, &Operation::Look { snapshots: false }));
}

fn heavy_a_host_may_be_killed_at_every_change_of_every_operation() {
    let a = || name("a");
    let fork = |from: Option<&str>| Operation::Fork {
        name: a(),
        new: name("new"),
        from: from.map(str::to_owned),
    };
    let operations = [
        Operation::Install {
            name: name("new"),
            number: 21,
        },
        Operation::Write {
            name: a(),
            number: 22,
        },
        Operation::Trap {
            name: a(),
            number: 23,
        },
        Operation::Grow { name: a() },
        Operation::Print {
            name: a(),
            line: name("hello"),
        },
        Operation::Read { name: a() },
        Operation::StateHash { name: a() },
        Operation::Compact { name: a() },
        Operation::Checkpoint { name: a() },
        Operation::Snapshot {
            name: a(),
            tag: name("new"),
        },
        Operation::Snapshot {
            name: name("b"),
            tag: name("first"),
        },
        Operation::Restore {
            name: a(),
            tag: name("s"),
        },
        Operation::Restore {
            name: a(),
            tag: name("t"),
        },
        Operation::Delete {
            name: a(),
            tag: name("s"),
        },
        fork(None),
        fork(Some("s")),
        Operation::Upgrade { name: a(), kind: 3 },
        Operation::Export {
            name: a(),
            file: name("again"),
        },
        Operation::Import {
            name: name("new"),
            file: name("archive"),
        },
        Operation::Remove { name: a() },
        Operation::Remove { name: name("b") },
        Operation::Open {
            own_cache: false,
            relaxed: true,
        },
    ];
    let prepared = prepared();
    let mut points = 0;
    for operation in &operations {
        points += kill_at_every_change(&prepared, operation, false);
    }
    assert!(points > 200, "only {points} kills");
}

/// From nothing to a tenant: the directory itself is made, and the module compiled into it.
fn heavy_a_host_may_be_killed_while_it_makes_its_directory() {
    let empty = Campaign::new();
    let opening = Operation::Open {
        own_cache: true,
        relaxed: false,
    };
    let kills = kill_at_every_change(&empty, &opening, true);
    let install = Operation::Install {
        name: name("new"),
        number: 31,
    };
    let kills = kills + kill_at_every_change(&empty, &install, true);
    assert!(kills > 20, "only {kills} kills");
}

/// Histories of all operations, killed at a change that is drawn, also of recovery itself; each goes on where the one
/// before was killed.
fn heavy_a_host_may_be_killed_at_any_change_of_any_history() {
    let points = points(300);
    let mut numbers = Numbers(1);
    let mut campaign = Campaign::new();
    let mut kills = 0;
    for point in 0..points {
        // Another directory now and then.
        if point % 64 == 0 {
            campaign = Campaign::new();
        }
        let most = *numbers.pick(&[4, 40, 160]);
        let at = 1 + numbers.below(most) as u64;
        campaign.context = format!("point {point}, killed at change {at}");
        let mut victim = Victim::start(campaign.path());
        let opening = numbers.below(4) == 0;
        if opening {
            victim.trace(Some(at));
        }
        let open = Operation::Open {
            own_cache: false,
            relaxed: false,
        };
        let look = Operation::Look { snapshots: false };
        if opening {
            // What is under way may be at either of two states yet.
            if victim.ask(&open).is_none() || victim.ask(&look).is_none() {
                kills += 1;
                continue;
            }
            drop(victim);
            continue;
        }
        campaign.recover(&mut victim, numbers.below(4) == 0);
        if numbers.below(8) == 0 {
            campaign.end(victim);
            victim = Victim::start(campaign.path());
            campaign.recover(&mut victim, false);
        }
        victim.trace(Some(at));
        loop {
            let operation = campaign.world.draw(&mut numbers);
            if !campaign.run(&mut victim, &operation) {
                kills += 1;
                campaign.context = format!(
                    "{} of {operation:?} ({:?})",
                    campaign.context,
                    victim.changes().last()
                );
                break;
            }
        }
        drop(victim);
        campaign.check_untouched();
    }
    assert!(kills > points / 2, "only {kills} kills");
}

/// A compaction that goes on beside the updates, in a thread of its own, is killed at changes that are drawn from all
/// those that it and the updates make.
fn heavy_a_host_may_be_killed_at_any_change_of_a_compaction_beside_updates() {
    let mut prepared = Campaign::new();
    prepared.context = name("prepared");
    let mut victim = Victim::start(prepared.path());
    prepared.open(&mut victim, false);
    let (tenant, tag) = (name("a"), name("s"));
    let install = Operation::Install {
        name: tenant.clone(),
        number: 61,
    };
    assert!(prepared.run(&mut victim, &install));
    // Each restore makes the log that the snapshot had one more sealed log, and a tenant with many is compacted.
    for number in 62..74 {
        let (name, tag) = (tenant.clone(), tag.clone());
        let steps = [
            Operation::Write {
                name: name.clone(),
                number,
            },
            Operation::Snapshot {
                name: name.clone(),
                tag: tag.clone(),
            },
            Operation::Restore {
                name: name.clone(),
                tag: tag.clone(),
            },
            Operation::Delete { name, tag },
        ];
        for step in steps {
            assert!(prepared.run(&mut victim, &step));
        }
    }
    prepared.end(victim);
    let writes = Operation::Writes {
        name: tenant.clone(),
        number: 100,
        times: 120,
    };
    // The changes between the first and the last of a compaction that isn't killed.
    let run = |at: Option<u64>| {
        let mut campaign = prepared.copy();
        campaign.context = format!("killed at change {at:?} beside a compaction");
        let mut victim = Victim::start(campaign.path());
        campaign.open(&mut victim, false);
        campaign.run(&mut victim, &Operation::Look { snapshots: false });
        victim.trace(at);
        campaign.run(&mut victim, &writes);
        let changes = victim.changes();
        campaign.context = format!("{} ({:?})", campaign.context, changes.last());
        drop(victim);
        campaign.check_untouched();
        let mut victim = Victim::start(campaign.path());
        campaign.recover(&mut victim, true);
        let write = Operation::Write {
            name: tenant.clone(),
            number: 300,
        };
        assert!(campaign.run(&mut victim, &write));
        campaign.end(victim);
        changes
    };
    let changes = run(None);
    let mut compacting = changes
        .iter()
        .enumerate()
        .filter(|(_, change)| change.contains(".shard") || change.contains("manifest"))
        .map(|(at, _)| at as u64 + 1);
    let first = compacting.next().expect("a compaction began");
    let last = compacting.next_back().expect("and ended");
    let mut numbers = Numbers(2);
    for _ in 0..points(300) / 8 {
        run(Some(
            first + numbers.below((last - first + 8) as usize) as u64,
        ));
    }
}

/// Workers and launchers that are killed at any moment cost the operation that is under way, at most, and nothing else.
fn heavy_workers_and_launchers_may_be_killed_at_any_moment() {
    let mut numbers = Numbers(3);
    let mut campaign = Campaign::new();
    campaign.context = name("with workers killed");
    let mut victim = Victim::start(campaign.path());
    campaign.open(&mut victim, false);
    let (mut failed, mut done, mut killed) = (0, 0, 0);
    while done < points(300) * 2 {
        let operation = campaign.world.draw(&mut numbers);
        let kill_after = Duration::from_micros(numbers.below(6000) as u64);
        let launcher = numbers.below(4) == 0;
        let pid = victim.pid();
        let (answer, hit) = std::thread::scope(|scope| {
            let killer = scope.spawn(move || {
                std::thread::sleep(kill_after);
                let role = match launcher {
                    true => "lazaret:launcher",
                    false => "lazaret:worker",
                };
                let mut below = descendants(pid).into_iter();
                let hit = below.find(|pid| argv0(*pid) == role);
                if let Some(pid) = hit {
                    // It may be gone by now.
                    let pid = rustix::process::Pid::from_raw(pid).unwrap();
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                hit.is_some()
            });
            (victim.ask(&operation), killer.join().unwrap())
        });
        killed += u64::from(hit);
        match (
            answer.expect("the host lives"),
            campaign.world.after(&operation),
        ) {
            (Ok(answer), Expected::World(world)) => {
                campaign.world = world;
                campaign.world.check(&operation, &answer).unwrap();
                done += 1;
            }
            (Ok(answer), Expected::Refused(reason)) => {
                panic!("{operation:?}: {answer:?}, but `{reason}` was expected")
            }
            // Whatever went wrong, nothing has changed.
            (Err(error), expected) => {
                let known = match expected {
                    Expected::Refused(reason) => error.contains(reason),
                    Expected::World(_) => false,
                };
                assert!(known || killed > 0, "{operation:?}: {error}");
                failed += u64::from(!known);
                look_when_calm(&mut campaign, &mut victim);
            }
        }
    }
    look_when_calm(&mut campaign, &mut victim);
    campaign.end(victim);
    assert!(
        failed > 10 && killed > 100,
        "{failed} failed, {killed} killed"
    );
}

/// Nobody kills any more, but that a worker is gone may be noticed by the next call to it, once for each of a tenant's.
fn look_when_calm(campaign: &mut Campaign, victim: &mut Victim) {
    let look = Operation::Look { snapshots: false };
    let mut errors = Vec::new();
    let answer = loop {
        match victim.ask(&look).expect("the host lives") {
            Ok(answer) => break answer,
            Err(error) => {
                let gone = error.contains("ended") || error.contains("nothing was changed");
                assert!(gone, "{error}");
                errors.push(error);
                assert!(errors.len() < 20, "it doesn't end: {errors:#?}");
            }
        }
    };
    campaign.world.check(&look, &answer).unwrap();
}

fn main() {
    lazaret::init();
    serve_if_victim();
    harness::main(&[
        (
            "heavy_a_host_may_be_killed_at_every_change_of_every_operation",
            heavy_a_host_may_be_killed_at_every_change_of_every_operation,
            &[],
        ),
        (
            "heavy_a_host_may_be_killed_while_it_makes_its_directory",
            heavy_a_host_may_be_killed_while_it_makes_its_directory,
            &[],
        ),
        (
            "heavy_a_host_may_be_killed_at_any_change_of_any_history",
            heavy_a_host_may_be_killed_at_any_change_of_any_history,
            &[],
        ),
        (
            "heavy_a_host_may_be_killed_at_any_change_of_a_compaction_beside_updates",
            heavy_a_host_may_be_killed_at_any_change_of_a_compaction_beside_updates,
            &[],
        ),
        (
            "heavy_workers_and_launchers_may_be_killed_at_any_moment",
            heavy_workers_and_launchers_may_be_killed_at_any_moment,
            &[],
        ),
    ]);
}
