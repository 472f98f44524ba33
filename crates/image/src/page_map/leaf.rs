//! Sixty-four pages beside each other.

use super::FAN;
use crate::index::Location;

#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) present: u64,
    /// Pieces that begin here, seen by itself.
    pub(super) pieces: usize,
    pub(super) locations: [Location; FAN],
}

impl Leaf {
    pub(super) const EMPTY: Leaf = Leaf {
        present: 0,
        pieces: 0,
        locations: [Location::ZERO; FAN],
    };

    pub(super) fn run(first: Location) -> Leaf {
        Leaf {
            present: u64::MAX,
            pieces: 1,
            locations: std::array::from_fn(|position| first.advanced(position as u64)),
        }
    }

    pub(super) fn get(&self, position: usize) -> Option<Location> {
        let present = self.present & (1 << (position % FAN)) != 0;
        present.then(|| self.locations[position % FAN])
    }

    /// Whether a piece begins at a position.
    pub(super) fn begins(&self, position: usize) -> bool {
        let before = position.checked_sub(1).and_then(|before| self.get(before));
        match self.get(position).filter(|_| position < FAN) {
            Some(location) => !before.is_some_and(|before| before.precedes(location)),
            None => false,
        }
    }

    pub(super) fn set(&mut self, position: usize, location: Option<Location>) {
        // Only what begins here and behind can change.
        let begin = |leaf: &Leaf| {
            let behind = position + 1 < FAN && leaf.begins(position + 1);
            usize::from(leaf.begins(position)) + usize::from(behind)
        };
        let before = begin(self);
        let bit = 1 << (position % FAN);
        match location {
            Some(location) => {
                self.locations[position % FAN] = location;
                self.present |= bit;
            }
            None => self.present &= !bit,
        }
        self.pieces = self.pieces + begin(self) - before;
    }
}
