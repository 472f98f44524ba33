//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::logging::Logging;
use crate::verbs::{
    audit, bench, call, checkpoint, completions, doctor, export, fork, fsck, import, incidents,
    install, learn, logs, man, ps, quarantine, redteam, remove, run, snapshot, state_hash, upgrade,
};

/// Runs WebAssembly that you don't trust, each program and each tenant in a
/// locked process of its own.
#[derive(Debug, Parser)]
#[command(name = "lazaret", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub logging: Logging,
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// The same of one verb, which is called far more often than all others: to learn what
/// those take is a good part of a short run.
#[derive(Debug, Parser)]
#[command(name = "lazaret")]
struct OfRun {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    verb: OnlyRun,
}

#[derive(Debug, Subcommand)]
enum OnlyRun {
    Run(Box<run::Run>),
}

impl Arguments {
    /// Reads this process's command line, or ends it with help or what is wrong.
    pub(crate) fn read() -> Self {
        match OfRun::try_parse() {
            Ok(OfRun {
                logging,
                verb: OnlyRun::Run(run),
            }) => Self {
                logging,
                verb: Some(Verb::Run(run)),
            },
            // It may be all right for another verb.
            Err(_) => Self::parse(),
        }
    }

    /// Whether the command is there to bring incidents about.
    pub(crate) fn expects_incidents(&self) -> bool {
        matches!(self.verb, Some(Verb::Redteam(_)))
    }
}

const EXAMPLES: &str = "\
Examples:
  lazaret run --dir ./data:ro --time 10s python.wasm script.py
  lazaret install counter counter.wasm && lazaret call counter inc
  lazaret doctor

Exit codes: 0 success; 1 the host failed; 2 bad usage, or a module, name, method or argument that
can't be used; 3 a tenant rejected or trapped. `lazaret run` has its own: see `lazaret run --help`.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(Box<run::Run>),
    Learn(Box<learn::Learn>),
    Install(install::Install),
    Upgrade(upgrade::Upgrade),
    Remove(remove::Remove),
    Ps(ps::Ps),
    Logs(logs::Logs),
    Incidents(incidents::Incidents),
    Quarantine(quarantine::Quarantine),
    Release(quarantine::Release),
    Call(call::Call),
    Checkpoint(checkpoint::Checkpoint),
    Snapshot(snapshot::Snapshot),
    Fork(fork::Fork),
    Export(export::Export),
    Import(import::Import),
    Fsck(fsck::Fsck),
    StateHash(state_hash::StateHash),
    Audit(audit::Audit),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
    Redteam(redteam::RedTeam),
    Completions(completions::Completions),
    Man(man::Man),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn run_takes_the_same_whichever_way_it_is_read() {
        let lines: [&[&str]; 3] = [
            &["lazaret", "run", "a.wasm", "--help"],
            &[
                "lazaret", "--log", "debug", "run", "--dir", "a::/b:ro", "m", "-x",
            ],
            &[
                "lazaret",
                "run",
                "--fuel",
                "7",
                "--log-format",
                "json",
                "--",
                "m",
                "run",
            ],
        ];
        for line in lines {
            let OfRun {
                logging,
                verb: OnlyRun::Run(run),
            } = OfRun::try_parse_from(line).unwrap();
            let all = Arguments::try_parse_from(line).unwrap();
            assert_eq!(format!("{logging:?}"), format!("{:?}", all.logging));
            let Some(Verb::Run(expected)) = all.verb else {
                panic!("{line:?} is another verb");
            };
            assert_eq!(format!("{run:?}"), format!("{expected:?}"));
        }
        for line in [
            &["lazaret", "ps"][..],
            &["lazaret"],
            &["lazaret", "run", "-V"],
        ] {
            assert!(OfRun::try_parse_from(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn every_verb_has_a_summary_and_an_example() {
        for verb in Arguments::command().get_subcommands_mut() {
            assert!(
                verb.get_about().is_some(),
                "{} has no summary",
                verb.get_name()
            );
            let help = verb.render_long_help().to_string();
            let example = format!("  lazaret {}", verb.get_name());
            assert!(
                help.contains("Example") && help.contains(&example),
                "{} has no example:\n{help}",
                verb.get_name()
            );
        }
    }
}
