//! Names: what is there, and what a power cut may leave.

use std::collections::BTreeMap;

use super::Numbers;

#[derive(Clone)]
pub enum NameChange {
    Set(String, usize),
    Remove(String),
    Rename(String, String),
}

impl NameChange {
    /// Whether one of `later` has to do with the same name, or this is a rename (which the tests are about).
    pub fn is_needed_by(&self, later: &[NameChange]) -> bool {
        let (NameChange::Set(name, _) | NameChange::Remove(name)) = self else {
            return true;
        };
        later.iter().any(|change| match change {
            NameChange::Set(other, _) | NameChange::Remove(other) => other == name,
            NameChange::Rename(from, to) => from == name || to == name,
        })
    }

    pub fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Set(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
            NameChange::Rename(from, to) => {
                let inode = names.remove(from).expect("renamed what isn't there");
                names.insert(to.clone(), inode);
            }
        }
    }
}

/// Names of files in a directory, or of directories.
#[derive(Clone, Default)]
pub struct Names {
    pub now: BTreeMap<String, usize>,
    pub durable: BTreeMap<String, usize>,
    pub pending: Vec<NameChange>,
}

impl Names {
    pub fn change(&mut self, change: NameChange) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    pub fn sync(&mut self) {
        self.durable = self.now.clone();
        self.pending.clear();
    }

    /// A journaling file system keeps the order of changes to names; POSIX promises nothing before the fsync. So
    /// the first few are kept, and any of those that no other builds upon may be missing.
    pub fn power_cut(&mut self, numbers: &mut Numbers) {
        let kept = numbers.below(self.pending.len() + 1);
        let changes: Vec<NameChange> = self.pending.drain(..).take(kept).collect();
        let mut names = self.durable.clone();
        for (position, change) in changes.iter().enumerate() {
            let later = &changes[position + 1..];
            if change.is_needed_by(later) || numbers.below(4) > 0 {
                change.apply(&mut names);
            }
        }
        (self.now, self.durable) = (names.clone(), names);
    }
}
