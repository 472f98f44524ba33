//! `lazaret doctor`: what this host offers.

use std::path::Path;

use clap::Args;
use lazaret::wall::advice::{self, Advice, Facts};
use lazaret::wall::capacity::{self, Bound};
use lazaret::wall::probe::{self, Finding};
use lazaret::wall::{Grade, Off, Probe, Profile};
use serde::Serialize;

use super::audit::pages::Pages;
use crate::failure::Failure;
use crate::output::{self, BAD, GOOD, TITLE};

/// Tell what this host offers, what is missing, what that costs, and how to fix it
///
/// Everything is tried for real, in a process of its own where trying can't be
/// undone.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret doctor --json

Exit codes: 1 if anything that is required is missing.")]
pub(crate) struct Doctor {
    /// For which wall: `full`, or `container`, which does without namespaces
    #[arg(long, value_name = "PROFILE", env = "LAZARET_PROFILE", default_value_t)]
    profile: Profile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    /// Linux's own words for itself.
    kernel: String,
    architecture: &'static str,
    /// Whether this process is root's.
    root: bool,
    /// Whether everything that is required works.
    complete: bool,
    /// The grade of the walls here.
    grade: Grade,
    /// What that means.
    grade_means: &'static str,
    findings: Vec<Finding>,
    /// Why something is missing on this very host, and what to do.
    advice: Vec<Advice>,
    /// What `--tracker auto` and `--page-copy auto` stand for.
    auto: Auto,
    /// How many workers a host can hold here by each limit, the tightest first.
    capacity: Vec<Bound>,
}

/// How the pages of tenants are followed here if nobody says otherwise.
#[derive(Debug, Serialize)]
struct Auto {
    tracker: &'static str,
    page_copy: &'static str,
}

impl Doctor {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        let mut findings = probe::all();
        for finding in &mut findings {
            leave_out(finding, self.profile);
        }
        let diagnosis = Diagnosis {
            kernel: kernel(),
            architecture: std::env::consts::ARCH,
            root: rustix::process::geteuid().is_root(),
            complete: findings
                .iter()
                .all(|finding| finding.probe.works() || !finding.required),
            grade: probe::grade(&findings),
            grade_means: probe::grade(&findings).meaning(),
            advice: advice::advice(&Facts::read(Path::new("/")))
                .into_iter()
                .filter(|advice| concerns(advice, &findings))
                .collect(),
            findings,
            auto: {
                let (tracker, page_copy) = Pages::here().chosen();
                Auto { tracker, page_copy }
            },
            capacity: capacity::bounds(),
        };
        let code = u8::from(!diagnosis.complete);
        match self.json {
            true => output::json("lazaret.doctor/v1", diagnosis)?,
            false => output::print(&text(&diagnosis))?,
        }
        Ok(code)
    }
}

/// What a profile does without isn't required, and isn't there.
fn leave_out(finding: &mut Finding, profile: Profile) {
    let off = Off::new(profile.without()).unwrap_or(Off::NONE);
    if off.layers().any(|layer| layer.name() == finding.name) {
        finding.required = false;
        finding.probe = Probe::Missing(format!("the profile `{profile}` does without it"));
    }
}

/// Whether something is missing that a piece of advice is about. What is said of an
/// early Landlock is said of one that works.
fn concerns(advice: &Advice, findings: &[Finding]) -> bool {
    let missing = |name: &str| {
        findings
            .iter()
            .any(|finding| finding.name == name && !finding.probe.works())
    };
    match advice.about {
        "landlock" => true,
        // Whatever refuses one namespace, refuses or needs the others.
        "user-namespace" => {
            missing("empty-root") || probe::namespace_layers().any(|layer| missing(layer.name()))
        }
        about => missing(about),
    }
}

/// The kernel's version (proc_sys_kernel(5)).
fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
        |_| "of unknown version".into(),
        |text| text.trim().to_owned(),
    )
}

fn text(diagnosis: &Diagnosis) -> String {
    let who = if diagnosis.root {
        "root"
    } else {
        "an ordinary user"
    };
    let mut text = format!(
        "{TITLE}Linux {} on {}, as {who}{TITLE:#}\n\n",
        diagnosis.kernel, diagnosis.architecture
    );
    for finding in &diagnosis.findings {
        match &finding.probe {
            Probe::Works(detail) => text.push_str(&format!(
                "{GOOD}works{GOOD:#}    {:<18} {}\n",
                finding.name,
                output::harmless(detail, false)
            )),
            Probe::Missing(why) => {
                text.push_str(&format!(
                    "{BAD}missing{BAD:#}  {:<18} {}\n",
                    finding.name,
                    output::harmless(why, false)
                ));
                for (label, words) in [
                    ("for", finding.purpose),
                    ("cost", finding.cost),
                    ("remedy", finding.remedy),
                ] {
                    text.push_str(&format!("         {:<18} {label}: {words}\n", ""));
                }
            }
        }
    }
    for advice in &diagnosis.advice {
        text.push_str(&format!(
            "\n{TITLE}{}{TITLE:#}: {}\n",
            advice.about,
            output::harmless(&advice.because, false)
        ));
        for remedy in &advice.remedies {
            text.push_str(&format!("  {}\n", output::harmless(remedy, false)));
        }
    }
    text.push_str(&format!(
        "\nGrade {}: {}.\nTenants' pages: noted by {} (--tracker auto), copied by the {} (--page-copy auto).\n",
        diagnosis.grade,
        diagnosis.grade_means,
        diagnosis.auto.tracker,
        diagnosis.auto.page_copy
    ));
    text.push_str(&room(&diagnosis.capacity));
    let missing = |required: bool| {
        diagnosis
            .findings
            .iter()
            .filter(|finding| finding.required == required && !finding.probe.works())
            .count()
    };
    text.push_str(&match (missing(true), missing(false)) {
        (0, 0) => "\nEverything works.\n".to_owned(),
        (0, optional) => format!(
            "\nEverything that is required works; {optional} of what is optional is missing.\n"
        ),
        (required, _) => format!("\n{required} of what is required is missing.\n"),
    });
    text
}

/// How many workers there is room for, and why there isn't for more.
fn room(capacity: &[Bound]) -> String {
    let Some(tightest) = capacity.first() else {
        return String::new();
    };
    let mut text = format!(
        "\n{TITLE}Room for {} idle workers{TITLE:#} at once, besides what their tenants write:\n",
        tightest.workers
    );
    for bound in capacity {
        text.push_str(&format!(
            "  {:>9}  by {} ({})\n",
            bound.workers,
            bound.what,
            output::harmless(&bound.source, false)
        ));
    }
    text.push_str(&format!("  For more: {}.\n", tightest.raise));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &'static str, required: bool, probe: Probe) -> Finding {
        Finding {
            name,
            purpose: "a purpose",
            required,
            probe,
            cost: "a cost",
            remedy: "a remedy",
        }
    }

    #[test]
    fn advice_is_given_for_what_is_missing_only() {
        let about = |about: &'static str| Advice {
            about,
            because: String::new(),
            remedies: Vec::new(),
        };
        let works = |name| finding(name, true, Probe::Works(String::new()));
        let missing = |name| finding(name, true, Probe::Missing(String::new()));
        let concerns = |name, findings: &[Finding]| concerns(&about(name), findings);
        assert!(concerns("mdwe", &[missing("mdwe")]) && !concerns("mdwe", &[works("mdwe")]));
        // Docker refuses a mount, and lets the rest be made.
        let docker = [works("user-namespace"), missing("mount-namespace")];
        assert!(concerns("user-namespace", &docker));
        assert!(!concerns("user-namespace", &[works("user-namespace")]));
        assert!(concerns("landlock", &[works("landlock")]));
    }

    #[test]
    fn what_is_missing_comes_with_its_cost_and_remedy() {
        let diagnosis = |findings: Vec<Finding>| Diagnosis {
            kernel: "6.18".into(),
            architecture: "x86_64",
            root: false,
            complete: true,
            grade: Grade::A,
            grade_means: Grade::A.meaning(),
            findings,
            advice: vec![Advice {
                about: "mdwe",
                because: "the kernel is old".into(),
                remedies: vec!["take a new one".into()],
            }],
            auto: Auto {
                tracker: "cards",
                page_copy: "worker",
            },
            capacity: capacity::bounds(),
        };
        let plain =
            |diagnosis: &Diagnosis| anstream::adapter::strip_str(&text(diagnosis)).to_string();
        let good = plain(&diagnosis(vec![finding(
            "seccomp",
            true,
            Probe::Works("kills".into()),
        )]));
        assert!(
            good.contains("works    seccomp            kills\n")
                && good.contains("Room for ")
                && good.contains(" by descriptors (RLIMIT_NOFILE ")
                && good.contains("  For more: ")
                && good.contains("noted by cards (--tracker auto), copied by the worker")
                && good.ends_with("Everything works.\n"),
            "{good}"
        );
        let bad = plain(&diagnosis(vec![finding(
            "mdwe",
            true,
            Probe::Missing("EINVAL".into()),
        )]));
        assert!(
            bad.contains("EINVAL")
                && bad.contains("cost: a cost")
                && bad.contains("remedy: a remedy")
                && bad.contains("\nmdwe: the kernel is old\n  take a new one\n")
                && bad.contains("1 of what is required"),
            "{bad}"
        );
    }
}
