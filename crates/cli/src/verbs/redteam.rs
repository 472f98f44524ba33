//! `lazaret redteam`: attacks on this very host.

#[cfg(target_arch = "x86_64")]
mod text;

use clap::Args;
use lazaret::wall::{Layer, Profile};

#[cfg(not(target_arch = "x86_64"))]
use crate::failure::Failure;

/// Attack this host's walls from inside, and tell what stopped each attack
///
/// Workers of this same executable run hostile native code in place of a guest's,
/// after set-up, lock and verification by the very code that serves tenants. They
/// are aimed at decoys: files, a process, sockets and memory made for this, in a
/// directory for temporary files; nothing else on the host is touched, whatever
/// succeeds.
///
/// With --ablate each attack is run again with the layers off that should stop it,
/// all of them and all but one: the report tells how many layers stop it, each
/// shown to do so alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret redteam
  lazaret redteam --ablate --markdown > layers.md
  lazaret redteam --filter core_pattern --without seccomp --json

Exit codes: 0 if every attack came to nothing, by as many layers as it is marked with; 1 if not,
or if the host failed; 2 bad usage.")]
pub(crate) struct RedTeam {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print a table in Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print the attacks, what each tries and what should stop it, and run none
    #[arg(long)]
    list: bool,
    /// Only attacks whose name or kind has this in it; can be given several times
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Run with this layer off; can be given several times. For showing what a layer
    /// carries: no other verb has it
    #[arg(long, value_name = "LAYER")]
    without: Vec<String>,
    /// Which wall is attacked: `full`, every layer, or `container`, for where no
    /// namespaces can be made
    #[arg(long, value_name = "PROFILE", env = "LAZARET_PROFILE", default_value_t)]
    profile: Profile,
    /// Take layers off one by one, and count those that stop each attack alone
    #[arg(long, conflicts_with = "list")]
    ablate: bool,
    /// Run even if this layer of the wall is missing on this host; can be given
    /// several times
    #[arg(long, value_name = "LAYER")]
    accept_missing: Vec<Layer>,
}

#[cfg(target_arch = "x86_64")]
mod run {
    use std::io::{self, IsTerminal};

    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
    use lazaret_redteam::drill::Barrier;
    use lazaret_redteam::range::Options;
    use lazaret_redteam::suite::{self, Entry, Plan};
    use serde::Serialize;

    use super::{RedTeam, text};
    use crate::failure::Failure;
    use crate::output;

    /// What `--list --json` prints of an attack.
    #[derive(Debug, Serialize)]
    struct Listed {
        name: &'static str,
        kind: &'static str,
        tries: &'static str,
        should_be_stopped_by: Vec<&'static str>,
        at_least: usize,
    }

    #[derive(Debug, Serialize)]
    struct List {
        attacks: Vec<Listed>,
    }

    impl RedTeam {
        pub(crate) fn execute(self) -> Result<u8, Failure> {
            let entries = self.entries()?;
            if self.list {
                return list(&entries, self.json, self.markdown);
            }
            let without = self
                .without
                .iter()
                .map(|name| name.parse::<Barrier>())
                .collect::<Result<Vec<_>, _>>()?;
            let mut plan = Plan {
                options: Options {
                    executable: "/proc/self/exe".into(),
                    accept_missing: self.accept_missing,
                },
                entries,
                without,
                ablate: self.ablate,
            };
            let profile = self.profile.without().iter().copied();
            plan.without.extend(profile.map(Barrier::Wall));
            plan.without.sort_unstable();
            plan.without.dedup();
            let bar = bar();
            let report = suite::run(&plan, &mut |name, done, total| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message(name.to_owned());
            });
            bar.finish_and_clear();
            let report = report.map_err(Box::new)?;
            let code = u8::from(!report.all_held());
            match (self.json, self.markdown) {
                (true, _) => output::json("lazaret.redteam/v1", report)?,
                (_, true) => output::print(&text::markdown(&report))?,
                _ => output::print(&text::text(&report))?,
            }
            Ok(code)
        }

        /// The attacks that are asked for.
        fn entries(&self) -> Result<Vec<Entry>, Failure> {
            for filter in &self.filter {
                if !suite::all().any(|entry| fits(&entry, filter)) {
                    return Err(Failure::NoAttack {
                        filter: filter.clone(),
                    });
                }
            }
            Ok(suite::all()
                .filter(|entry| {
                    self.filter.is_empty() || self.filter.iter().any(|filter| fits(entry, filter))
                })
                .collect())
        }
    }

    fn fits(entry: &Entry, filter: &str) -> bool {
        entry.name().contains(filter) || entry.kind().contains(filter)
    }

    fn list(entries: &[Entry], json: bool, markdown: bool) -> Result<u8, Failure> {
        let attacks: Vec<Listed> = entries
            .iter()
            .map(|entry| Listed {
                name: entry.name(),
                kind: entry.kind(),
                tries: entry.tries(),
                should_be_stopped_by: entry.stopped_by(),
                at_least: entry.at_least(),
            })
            .collect();
        if json {
            output::json("lazaret.redteam-list/v1", List { attacks })?;
            return Ok(0);
        }
        let rows = attacks.iter().map(|one| {
            (
                one.name,
                one.kind,
                one.tries,
                one.should_be_stopped_by.join(", "),
            )
        });
        let text: String =
            match markdown {
                true => std::iter::once(
                    "| attack | kind | tries | stopped by |\n|---|---|---|---|\n".to_owned(),
                )
                .chain(rows.map(|(name, kind, tries, by)| {
                    format!("| `{name}` | {kind} | {tries} | {by} |\n")
                }))
                .collect(),
                false => rows
                    .map(|(name, _, tries, by)| format!("{name:<26} {tries} [{by}]\n"))
                    .chain([format!("\n{} attacks\n", attacks.len())])
                    .collect(),
            };
        output::print(&text)?;
        Ok(0)
    }

    /// A bar on a terminal; nothing elsewhere.
    fn bar() -> ProgressBar {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl RedTeam {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        Err(Failure::NoRedTeam)
    }
}
