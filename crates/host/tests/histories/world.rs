//! What tenants should be: a model of them in plain memory.

use std::collections::BTreeMap;

use super::numbers::Numbers;
use super::operation::{Answer, Cells, Operation, Seen};

/// Where the global is in [`Cells`].
const GLOBAL: usize = 128;
/// Where the size of the heap is.
const HEAP: usize = 129;
/// Where the module's kind is.
const KIND: usize = 130;

/// The heap's size in the module, in pages of 64 KiB.
const MINIMUM: u64 = 8;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const TAGS: [&str; 2] = ["s", "t"];

fn written(mut cells: Cells, number: u64) -> Cells {
    cells[GLOBAL] = number;
    let mut x = number;
    for _ in 0..12 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        cells[x as usize & 127] = if x & 0x700 == 0 { 0 } else { x };
    }
    cells
}

fn installed(number: u64) -> Cells {
    let mut cells = vec![0; KIND + 1];
    (cells[HEAP], cells[KIND]) = (MINIMUM, 1);
    written(cells, number)
}

fn upgraded(mut cells: Cells, kind: u64) -> Cells {
    cells[..64].fill(0);
    (cells[HEAP], cells[KIND]) = (MINIMUM, kind);
    cells
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tenant {
    cells: Cells,
    /// No version that is seen is less.
    version: u64,
    snapshots: BTreeMap<String, Cells>,
}

impl Tenant {
    fn new(cells: Cells) -> Self {
        Self {
            cells,
            version: 0,
            snapshots: BTreeMap::new(),
        }
    }

    /// Why it isn't the one that was seen.
    fn differs(&self, seen: &Seen) -> Option<String> {
        if self.cells != seen.cells {
            let places = self.cells.iter().zip(&seen.cells).enumerate();
            let other: Vec<usize> = places
                .filter(|(_, (expected, found))| expected != found)
                .map(|(cell, _)| cell)
                .collect();
            return Some(format!("cells {other:?} differ"));
        }
        if seen.version < self.version {
            return Some(format!(
                "canister version {} after {}",
                seen.version, self.version
            ));
        }
        if !self.snapshots.keys().eq(seen.snapshots.keys()) {
            return Some(format!(
                "snapshots {:?}, not {:?}",
                seen.snapshots.keys(),
                self.snapshots.keys()
            ));
        }
        let mut tags = self.snapshots.iter().zip(seen.snapshots.values());
        tags.find(|((_, expected), found)| found.as_ref().is_some_and(|found| found != *expected))
            .map(|((tag, _), _)| format!("snapshot {tag} holds something else"))
    }
}

/// All tenants of a host, and the archives beside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct World {
    tenants: BTreeMap<String, Tenant>,
    archives: BTreeMap<String, Cells>,
}

/// What an operation should come to.
pub enum Expected {
    /// This.
    World(World),
    /// An error with this in it, and nothing changes.
    Refused(&'static str),
}

impl World {
    /// What it should be after an operation that is possible in it.
    pub fn after(&self, operation: &Operation) -> Expected {
        let mut world = self.clone();
        match operation.clone() {
            Operation::Trap { .. } => return Expected::Refused("trapped"),
            Operation::Open { .. }
            | Operation::Read { .. }
            | Operation::Print { .. }
            | Operation::Sleep { .. }
            | Operation::StateHash { .. }
            | Operation::Compact { .. }
            | Operation::Checkpoint { .. }
            | Operation::Look { .. } => {}
            Operation::Install { name, number } => {
                if self.tenants.contains_key(&name) {
                    return Expected::Refused("exists already");
                }
                world.tenants.insert(name, Tenant::new(installed(number)));
            }
            Operation::Write { name, number } => {
                let cells = &mut world.tenant(&name).cells;
                *cells = written(std::mem::take(cells), number);
            }
            Operation::Writes {
                name,
                number,
                times,
            } => {
                let cells = &mut world.tenant(&name).cells;
                for number in number..number + times {
                    *cells = written(std::mem::take(cells), number);
                }
            }
            Operation::Grow { name } => world.tenant(&name).cells[HEAP] += 1,
            Operation::Upgrade { name, kind } => {
                let cells = &mut world.tenant(&name).cells;
                *cells = upgraded(std::mem::take(cells), kind);
            }
            Operation::Snapshot { name, tag } => {
                let tenant = world.tenant(&name);
                if tenant.snapshots.contains_key(&tag) {
                    return Expected::Refused("already");
                }
                tenant.snapshots.insert(tag, tenant.cells.clone());
            }
            Operation::Restore { name, tag } => {
                let tenant = world.tenant(&name);
                match tenant.snapshots.get(&tag) {
                    Some(cells) => tenant.cells = cells.clone(),
                    None => return Expected::Refused("has no snapshot"),
                }
            }
            Operation::Delete { name, tag } => {
                if world.tenant(&name).snapshots.remove(&tag).is_none() {
                    return Expected::Refused("has no snapshot");
                }
            }
            Operation::Fork { name, new, from } => {
                if self.tenants.contains_key(&new) {
                    return Expected::Refused("exists already");
                }
                let tenant = &self.tenants[&name];
                let cells = match from {
                    None => &tenant.cells,
                    Some(tag) => match tenant.snapshots.get(&tag) {
                        Some(cells) => cells,
                        None => return Expected::Refused("has no snapshot"),
                    },
                };
                world.tenants.insert(new, Tenant::new(cells.clone()));
            }
            Operation::Export { name, file } => {
                let cells = self.tenants[&name].cells.clone();
                world.archives.insert(file, cells);
            }
            Operation::Import { name, file } => {
                if self.tenants.contains_key(&name) {
                    return Expected::Refused("exists already");
                }
                let cells = self.archives[&file].clone();
                world.tenants.insert(name, Tenant::new(cells));
            }
            Operation::Remove { name } => drop(world.tenants.remove(&name)),
        }
        Expected::World(world)
    }

    /// What it may be if an operation that goes well is broken off somewhere, besides what it was.
    pub fn stages(&self, operation: &Operation) -> Vec<World> {
        let Operation::Writes {
            name,
            number,
            times,
        } = operation
        else {
            return match self.after(operation) {
                Expected::World(world) => vec![world],
                Expected::Refused(_) => Vec::new(),
            };
        };
        let mut world = self.clone();
        let mut stages = Vec::new();
        for number in *number..number + times {
            let cells = &mut world.tenant(name).cells;
            *cells = written(std::mem::take(cells), number);
            stages.push(world.clone());
        }
        stages
    }

    fn tenant(&mut self, name: &str) -> &mut Tenant {
        self.tenants.get_mut(name).unwrap()
    }

    /// An operation that is possible, or is refused for a reason that is known.
    pub fn draw(&self, numbers: &mut Numbers) -> Operation {
        let number = numbers.next() | 1;
        let name = (*numbers.pick(&NAMES)).to_owned();
        let tag = (*numbers.pick(&TAGS)).to_owned();
        let there: Vec<&String> = self.tenants.keys().collect();
        if !self.tenants.contains_key(&name) {
            let file = self.archives.keys().next_back().cloned();
            let from = numbers.below(2) == 0;
            return match (numbers.below(3), there.is_empty(), file) {
                (0, false, _) => {
                    let origin = (*numbers.pick(&there)).clone();
                    let from = from.then(|| self.tenants[&origin].snapshots.keys().next().cloned());
                    Operation::Fork {
                        name: origin,
                        new: name,
                        from: from.flatten(),
                    }
                }
                (1, _, Some(file)) => Operation::Import { name, file },
                _ => Operation::Install { name, number },
            };
        }
        match numbers.below(40) {
            0 | 1 => Operation::Trap { name, number },
            2 | 3 => Operation::Compact { name },
            4..=7 => Operation::Snapshot { name, tag },
            8..=10 => Operation::Restore { name, tag },
            11 | 12 => Operation::Delete { name, tag },
            13 | 14 => Operation::Remove { name },
            15 | 16 => Operation::Upgrade {
                kind: 3 - self.tenants[&name].cells[KIND],
                name,
            },
            17 | 18 => Operation::Export {
                file: format!("{number:x}"),
                name,
            },
            19 => Operation::Grow { name },
            20 => Operation::Print {
                name,
                line: format!("line {number}"),
            },
            21 => Operation::StateHash { name },
            22 => Operation::Sleep { name },
            23 => Operation::Open {
                own_cache: false,
                relaxed: numbers.below(2) == 0,
            },
            24 => Operation::Checkpoint { name },
            25 | 26 => Operation::Read { name },
            27 => Operation::Install { name, number },
            _ => Operation::Write { name, number },
        }
    }

    /// Compares an answer with what should be, and takes note of what is new in it.
    pub fn check(&mut self, operation: &Operation, answer: &Answer) -> Result<(), String> {
        match (operation, answer) {
            (Operation::Read { name }, Answer::Cells(cells)) => {
                match self.tenants[name].cells == *cells {
                    true => Ok(()),
                    false => Err(format!("{name} answers another state")),
                }
            }
            (Operation::Look { .. }, Answer::World(seen)) => self.see(seen),
            (Operation::Read { .. } | Operation::Look { .. }, _) | (_, Answer::World(_)) => {
                Err(format!("{answer:?} to {operation:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Compares it with what is seen.
    pub fn see(&mut self, seen: &BTreeMap<String, Seen>) -> Result<(), String> {
        if !self.tenants.keys().eq(seen.keys()) {
            return Err(format!(
                "tenants {:?}, not {:?}",
                seen.keys(),
                self.tenants.keys()
            ));
        }
        for ((name, tenant), seen) in self.tenants.iter_mut().zip(seen.values()) {
            if let Some(reason) = tenant.differs(seen) {
                return Err(format!("{name}: {reason}"));
            }
            tenant.version = seen.version;
        }
        Ok(())
    }

    /// Whether a name is a tenant's.
    pub fn has(&self, name: &str) -> bool {
        self.tenants.contains_key(name)
    }
}
