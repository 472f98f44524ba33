//! The verbs, a file each.

pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod call;
pub(crate) mod checkpoint;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod fork;
pub(crate) mod fsck;
pub(crate) mod import;
pub(crate) mod incidents;
pub(crate) mod install;
pub(crate) mod learn;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod ps;
pub(crate) mod quarantine;
pub(crate) mod redteam;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod snapshot;
pub(crate) mod state_hash;
pub(crate) mod upgrade;

use crate::arguments::Verb;
use crate::failure::Failure;

/// Does what the command line says; the exit code.
pub(crate) fn execute(verb: Option<Verb>) -> Result<u8, Failure> {
    match verb.ok_or(Failure::NoVerb)? {
        Verb::Run(verb) => verb.execute(),
        Verb::Learn(verb) => verb.execute(),
        Verb::Install(verb) => verb.execute(),
        Verb::Upgrade(verb) => verb.execute(),
        Verb::Remove(verb) => verb.execute(),
        Verb::Ps(verb) => verb.execute(),
        Verb::Logs(verb) => verb.execute(),
        Verb::Incidents(verb) => verb.execute(),
        Verb::Quarantine(verb) => verb.execute(),
        Verb::Release(verb) => verb.execute(),
        Verb::Call(verb) => verb.execute(),
        Verb::Checkpoint(verb) => verb.execute(),
        Verb::Snapshot(verb) => verb.execute(),
        Verb::Fork(verb) => verb.execute(),
        Verb::Export(verb) => verb.execute(),
        Verb::Import(verb) => verb.execute(),
        Verb::Fsck(verb) => verb.execute(),
        Verb::StateHash(verb) => verb.execute(),
        Verb::Audit(verb) => verb.execute(),
        Verb::Doctor(verb) => verb.execute(),
        Verb::Bench(verb) => verb.execute(),
        Verb::Redteam(verb) => verb.execute(),
        Verb::Completions(verb) => verb.execute(),
        Verb::Man(verb) => verb.execute(),
    }
}
