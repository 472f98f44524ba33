//! All drills, a file for each kind.
//!
//! What a drill needs to know of its decoys stands in its argument as
//! `name=value` ([`Inside::word`](crate::inside::Inside::word)); the names are
//! those of [`decoys`](crate::decoys).

pub mod code;
pub mod exhaustion;
pub mod files;
pub mod granted;
pub mod kernel;
pub mod network;
pub mod privileges;
pub mod processes;
pub mod programs;
pub mod queues;

use crate::drill::Drill;

/// Every drill, by kind.
pub const KINDS: &[(&str, &[Drill])] = &[
    ("files", files::DRILLS),
    ("granted directories", granted::DRILLS),
    ("processes", processes::DRILLS),
    ("programs", programs::DRILLS),
    ("network", network::DRILLS),
    ("queues", queues::DRILLS),
    ("privileges", privileges::DRILLS),
    ("kernel interfaces", kernel::DRILLS),
    ("code", code::DRILLS),
    ("exhaustion", exhaustion::DRILLS),
];

/// The drill of this name.
pub fn find(name: &str) -> Option<&'static Drill> {
    KINDS
        .iter()
        .flat_map(|(_, drills)| drills.iter())
        .find(|drill| drill.name == name)
}

#[cfg(test)]
mod tests {
    use super::KINDS;

    #[test]
    fn every_drill_has_a_name_a_sentence_and_no_more_than_it_can_hold() {
        for drill in KINDS.iter().flat_map(|(_, drills)| drills.iter()) {
            assert!(!drill.tries.is_empty() && !drill.tries.ends_with('.'));
            assert!(!drill.barriers.is_empty(), "{}", drill.name);
            assert!(
                (1..=drill.barriers.len()).contains(&drill.at_least),
                "{}",
                drill.name
            );
            let mut barriers = drill.barriers.to_vec();
            barriers.sort_unstable();
            barriers.dedup();
            assert_eq!(barriers.len(), drill.barriers.len(), "{}", drill.name);
        }
    }
}
