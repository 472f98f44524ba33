//! All attacks of `lazaret redteam`, and how they are run: as the host is, and with
//! layers taken off.
//!
//! # How layers are counted
//!
//! A drill names the layers that should stop it. It is run
//!
//! 1. as the host is: it must come to nothing;
//! 2. with all of them off: if it then has its effect, the attack is one;
//! 3. for each of them, with all others off: if it comes to nothing again, that
//!    layer stops it alone.
//!
//! The number of layers is the number of those that were shown in step 3. If
//! something else stops it in step 2 (permissions of files, what the kernel allows
//! to ordinary users), that counts as itself, and a layer counts only if it stops
//! the attacker in another way than that does: else nothing would be shown. That
//! something isn't there at all on this host is no layer, and isn't counted.

use std::collections::BTreeMap;

use lazaret::wall::Layer;

use crate::classics::{CLASSICS, Classic};
use crate::decoys::Decoys;
use crate::drill::{Aim, Barrier, Drill};
use crate::drills;
use crate::range::{Options, Ran, Range, RangeError, Stop, has_outer_filter, user};
use crate::report::{Outcome, Report, Shown, Underneath, Verdict};

/// An attack of the suite.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    /// One whose layers can be taken off.
    Drill(&'static str, &'static Drill),
    /// One that is stopped by what can't be.
    Classic(&'static Classic),
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Drill(_, drill) => drill.name,
            Self::Classic(classic) => classic.name,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Drill(kind, _) => kind,
            Self::Classic(classic) => classic.kind,
        }
    }

    /// What it tries.
    pub fn tries(&self) -> &'static str {
        match self {
            Self::Drill(_, drill) => drill.tries,
            Self::Classic(classic) => classic.tries,
        }
    }

    /// How many layers it is marked with.
    pub fn at_least(&self) -> usize {
        match self {
            Self::Drill(_, drill) => drill.at_least,
            Self::Classic(_) => 1,
        }
    }

    /// What should stop it.
    pub fn stopped_by(&self) -> Vec<&'static str> {
        match self {
            Self::Drill(_, drill) => drill.barriers.iter().map(|one| one.name()).collect(),
            Self::Classic(classic) => vec![classic.stopped_by],
        }
    }
}

/// Every attack, in the order in which they are reported.
pub fn all() -> impl Iterator<Item = Entry> {
    let drills = drills::KINDS
        .iter()
        .flat_map(|(kind, drills)| drills.iter().map(|drill| Entry::Drill(kind, drill)));
    drills.chain(CLASSICS.iter().map(Entry::Classic))
}

/// The attacks that a run is for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How hosts are made.
    pub options: Options,
    /// The attacks.
    pub entries: Vec<Entry>,
    /// Layers that are off all the time.
    pub without: Vec<Barrier>,
    /// Whether layers are taken off one by one.
    pub ablate: bool,
}

/// One run of one drill: which, and without what.
type Runs = BTreeMap<Vec<Barrier>, Vec<usize>>;

/// What is told while it runs: what is done now, how much is done and of how much.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// Runs the attacks.
///
/// # Errors
/// If the red team itself can't go on, or a neighbour has come to harm.
pub fn run(plan: &Plan, progress: Progress<'_>) -> Result<Report, RangeError> {
    let user = user()?;
    let mut decoys = Decoys::new(&plan.options.executable, user)?;
    let runs = runs(plan);
    let total = runs.values().map(Vec::len).sum();
    let mut done = 0;
    let mut results: BTreeMap<(usize, Vec<Barrier>), Ran> = BTreeMap::new();
    let mut came = BTreeMap::new();
    let (mut missing, mut grade) = (Vec::new(), lazaret::wall::Grade::D);
    let root = decoys.files.root().to_owned();
    let cache = root.join("cache");
    for (number, (off, drills)) in runs.iter().enumerate() {
        let data = root.join(format!("tenants-{number}"));
        let range = Range::new(&plan.options, off, &data, &cache)?;
        if *off == plan.without {
            grade = range.grade();
            missing = Barrier::all()
                .filter(|barrier| !off.contains(barrier) && !range.has(*barrier))
                .filter(|barrier| !implied(off, *barrier))
                .collect();
        }
        for index in drills {
            let Some(entry) = plan.entries.get(*index) else {
                continue;
            };
            progress(entry.name(), done, total);
            match entry {
                Entry::Drill(_, drill) => {
                    let ran = range.run(drill, &mut decoys)?;
                    range.neighbour_is_right()?;
                    results.insert((*index, off.clone()), ran);
                }
                Entry::Classic(classic) => {
                    came.insert(*index, classic.run(&range)?);
                }
            }
            done += 1;
        }
    }
    let outcomes = plan
        .entries
        .iter()
        .enumerate()
        .map(|(index, entry)| match entry {
            Entry::Drill(kind, drill) => {
                let of = |off: Vec<Barrier>| results.get(&(index, off));
                judge(plan, kind, drill, &missing, &decoys, &of)
            }
            Entry::Classic(classic) => {
                let held = came
                    .get(&index)
                    .map(|came| (came.broke.clone(), came.held, came.evidence.clone()));
                judge_classic(plan, classic, held)
            }
        });
    let mut report = Report {
        user: match rustix::process::geteuid().as_raw() {
            0 => "root".into(),
            number => format!("uid {number}"),
        },
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default(),
        grade,
        without: plan.without.iter().map(|one| one.name()).collect(),
        missing: missing.iter().map(|one| one.name()).collect(),
        ablated: plan.ablate,
        held: 0,
        failed: 0,
        untried: 0,
        attacks: outcomes.collect(),
    };
    report.count();
    Ok(report)
}

/// Whether a layer is off because another is.
fn implied(off: &[Barrier], barrier: Barrier) -> bool {
    let layers: Vec<Layer> = off
        .iter()
        .filter_map(|barrier| match barrier {
            Barrier::Wall(layer) => Some(*layer),
            Barrier::ControlGroup => None,
        })
        .collect();
    match (barrier, lazaret::wall::Off::new(&layers)) {
        (Barrier::Wall(layer), Ok(off)) => off.has(layer),
        _ => false,
    }
}

/// What is off in the run that shows one of a drill's layers, or with `None` that
/// none is left.
fn off(plan: &Plan, drill: &Drill, but: Option<Barrier>) -> Vec<Barrier> {
    let mut off: Vec<Barrier> = drill
        .barriers
        .iter()
        .copied()
        .filter(|barrier| Some(*barrier) != but)
        .chain(plan.without.iter().copied())
        .collect();
    off.sort_unstable();
    off.dedup();
    off
}

/// All runs, those without the same layers together: each such set is a host.
fn runs(plan: &Plan) -> Runs {
    let mut runs = Runs::new();
    for (index, entry) in plan.entries.iter().enumerate() {
        runs.entry(plan.without.clone()).or_default().push(index);
        if let (Entry::Drill(_, drill), true) = (entry, plan.ablate) {
            runs.entry(off(plan, drill, None)).or_default().push(index);
            for barrier in drill.barriers {
                let off = off(plan, drill, Some(*barrier));
                if !off.contains(barrier) && !implied(&off, *barrier) {
                    runs.entry(off).or_default().push(index);
                }
            }
        }
    }
    for indices in runs.values_mut() {
        indices.sort_unstable();
        indices.dedup();
    }
    runs
}

/// Why a drill can't be tried here, if it can't.
fn lacks(drill: &Drill, decoys: &Decoys) -> Option<&'static str> {
    match drill.aim {
        Aim::ProgramAsRoot if decoys.files.setuid().is_none() => {
            Some("only root can make a file that runs as root")
        }
        Aim::Arrived(arrival) if decoys.listeners.lacks(arrival) => {
            Some("this kernel has no such queue")
        }
        Aim::SegmentChanged if !decoys.listeners.has_segment() => {
            Some("this kernel has no such memory")
        }
        Aim::Interface if crate::range::interfaces().is_empty() => {
            Some("the host has no interface but the loopback one")
        }
        _ => match drill.name {
            "key_ring" if !decoys.has_key() => Some("this kernel has no keys, or refuses them"),
            "release_agent" if !decoys.has_release_agent() => {
                Some("there are no control groups of version 1 here")
            }
            _ => None,
        },
    }
}

fn judge<'a>(
    plan: &Plan,
    kind: &'static str,
    drill: &Drill,
    missing: &[Barrier],
    decoys: &Decoys,
    of: &dyn Fn(Vec<Barrier>) -> Option<&'a Ran>,
) -> Outcome {
    let mut outcome = Outcome {
        name: drill.name,
        kind,
        tries: drill.tries,
        verdict: Verdict::Untried,
        stopped_by: None,
        evidence: String::new(),
        layers: None,
        underneath: None,
        with_none: None,
        independent: None,
        at_least: drill.at_least,
    };
    if let Some(why) = lacks(drill, decoys) {
        outcome.evidence = why.to_owned();
        return outcome;
    }
    match of(plan.without.clone()) {
        None => {
            outcome.evidence = "it was not run".into();
            return outcome;
        }
        Some(Ran::Effect(effect)) => {
            outcome.verdict = Verdict::Succeeded;
            outcome.evidence = effect.clone();
        }
        Some(Ran::Stopped(stop)) => {
            outcome.verdict = Verdict::Held;
            outcome.evidence = stop.how.clone();
            if stop.forbidden {
                outcome.stopped_by = Some(Layer::Seccomp.name().to_owned());
            }
        }
    }
    if !plan.ablate {
        if outcome.verdict == Verdict::Held && outcome.stopped_by.is_none() {
            let names: Vec<&str> = drill.barriers.iter().map(|one| one.name()).collect();
            outcome.stopped_by = Some(names.join(" or "));
        }
        return outcome;
    }
    let none = of(off(plan, drill, None));
    let mut shown = Vec::new();
    for barrier in drill.barriers {
        if plan.without.contains(barrier) || missing.contains(barrier) {
            continue;
        }
        let alone = of(off(plan, drill, Some(*barrier)));
        let (Some(Ran::Stopped(stop)), Some(none)) = (alone, none) else {
            continue;
        };
        let differs = match none {
            Ran::Effect(_) => true,
            Ran::Stopped(underneath) => underneath != stop,
        };
        if differs {
            shown.push(Shown {
                layer: barrier.name(),
                evidence: stop.how.clone(),
            });
        }
    }
    match none {
        Some(Ran::Effect(effect)) => outcome.with_none = Some(effect.clone()),
        Some(Ran::Stopped(stop)) => {
            outcome.underneath = Some(Underneath {
                what: underneath(stop),
                evidence: stop.how.clone(),
            });
        }
        None => {}
    }
    if outcome.verdict == Verdict::Held && outcome.stopped_by.is_none() {
        // What sticks in the same place alone is what it stuck in.
        let same = shown
            .iter()
            .find(|shown| shown.evidence == outcome.evidence);
        outcome.stopped_by = same
            .into_iter()
            .chain(shown.iter())
            .map(|shown| shown.layer)
            .chain(outcome.underneath.iter().map(|underneath| underneath.what))
            .next()
            .map(str::to_owned);
    }
    let counted = outcome
        .underneath
        .as_ref()
        .is_some_and(|underneath| underneath.what != NOT_THERE);
    let count = shown.len() + usize::from(counted);
    outcome.layers = Some(shown);
    outcome.independent = Some(count);
    // What isn't there can't be shown.
    let gone = drill
        .barriers
        .iter()
        .filter(|barrier| {
            missing.contains(barrier)
                || plan.without.contains(barrier)
                || implied(&plan.without, **barrier)
        })
        .count();
    // Where a filter around all of this refuses the same, ours can't be told from it.
    let least = match outcome.underneath.is_some() && has_outer_filter() {
        true => 1,
        false => drill.at_least.saturating_sub(gone).max(1),
    };
    if outcome.verdict == Verdict::Held && count < least {
        outcome.verdict = Verdict::TooFewLayers;
    }
    outcome
}

/// What an attacker is after that isn't there: no layer, and not counted as one.
const NOT_THERE: &str = "not there on this host";

/// What it is that stops an attacker with no layer left, by the kernel's answer.
fn underneath(stop: &Stop) -> &'static str {
    match stop.errno {
        Some(libc::ENOSYS | libc::ENOENT | libc::ENODEV | libc::ENXIO) => NOT_THERE,
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP) => NOT_THERE,
        Some(libc::EPERM | libc::EACCES) => "permissions of an ordinary user",
        Some(libc::ETXTBSY) => "a file that runs can't be written",
        Some(libc::EROFS) => "a read-only file system",
        Some(_) => "the kernel",
        None => "the host",
    }
}

fn judge_classic(
    plan: &Plan,
    classic: &Classic,
    came: Option<(Option<String>, usize, String)>,
) -> Outcome {
    let (verdict, evidence) = match came {
        None => (Verdict::Untried, "it was not run".to_owned()),
        Some((Some(broke), ..)) => (Verdict::Succeeded, broke),
        Some((None, 1, evidence)) => (Verdict::Held, evidence),
        Some((None, held, evidence)) => (
            Verdict::Held,
            format!("{held} variants; the last: {evidence}"),
        ),
    };
    Outcome {
        name: classic.name,
        kind: classic.kind,
        tries: classic.tries,
        verdict,
        stopped_by: Some(classic.stopped_by.to_owned()),
        evidence,
        layers: None,
        underneath: None,
        with_none: None,
        independent: plan.ablate.then_some(1),
        at_least: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_at_least_sixty_and_each_has_a_name_of_its_own() {
        let mut names: Vec<&str> = all().map(|entry| entry.name()).collect();
        let count = names.len();
        assert!(count >= 60, "{count}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for entry in all() {
            assert!(!entry.tries().is_empty() && entry.at_least() >= 1);
            assert!(!entry.stopped_by().is_empty());
        }
    }

    #[test]
    fn runs_without_the_same_layers_share_a_host() {
        let plan = Plan {
            options: Options {
                executable: "/proc/self/exe".into(),
                accept_missing: Vec::new(),
            },
            entries: all().collect(),
            without: Vec::new(),
            ablate: true,
        };
        let runs = runs(&plan);
        let total: usize = runs.values().map(Vec::len).sum();
        assert!(runs.len() < total / 4, "{} hosts, {total} runs", runs.len());
        for (off, drills) in &runs {
            for index in drills {
                if let Some(Entry::Drill(_, drill)) = plan.entries.get(*index) {
                    assert!(
                        off.is_empty() || off.iter().all(|one| drill.barriers.contains(one)),
                        "{}",
                        drill.name
                    );
                }
            }
        }
    }
}
