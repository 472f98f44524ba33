//! All attacks, a file for each kind.

pub mod answers;
pub mod cards;
pub mod channels;
pub mod compat;
pub mod endings;
pub mod executable_memory;
pub mod exhaustion;
pub mod files;
pub mod futex;
pub mod granted;
pub mod host_calls;
pub mod impossible;
pub mod leftovers;
pub mod log;
pub mod network;
pub mod own_memory;
pub mod posture;
pub mod privileges;
pub mod processes;
pub mod scribble;
pub mod shared_file;
pub mod signals;
pub mod silence;
pub mod system_calls;

use crate::attack::Attack;

/// Every attack, by kind.
pub const KINDS: &[&[Attack]] = &[
    answers::ATTACKS,
    cards::ATTACKS,
    channels::ATTACKS,
    compat::ATTACKS,
    endings::ATTACKS,
    executable_memory::ATTACKS,
    exhaustion::ATTACKS,
    files::ATTACKS,
    futex::ATTACKS,
    granted::ATTACKS,
    host_calls::ATTACKS,
    impossible::ATTACKS,
    leftovers::ATTACKS,
    log::ATTACKS,
    network::ATTACKS,
    own_memory::ATTACKS,
    posture::ATTACKS,
    privileges::ATTACKS,
    processes::ATTACKS,
    scribble::ATTACKS,
    shared_file::ATTACKS,
    signals::ATTACKS,
    silence::ATTACKS,
    system_calls::ATTACKS,
];

/// The attack of this name.
pub fn find(name: &str) -> Option<&'static Attack> {
    KINDS
        .iter()
        .copied()
        .flatten()
        .find(|attack| attack.name == name)
}

#[cfg(test)]
mod tests {
    use super::KINDS;

    #[test]
    fn every_attack_has_a_name_of_its_own() {
        let mut names: Vec<&str> = KINDS
            .iter()
            .copied()
            .flatten()
            .map(|attack| attack.name)
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|name| !name.contains(' ')));
    }
}
