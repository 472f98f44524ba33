//! The report of `lazaret redteam` as text, and as a table in Markdown.

use std::fmt::Write;

use lazaret_redteam::report::{Outcome, Report, Verdict};

use crate::output::{BAD, GOOD, TITLE, harmless};

/// One line for each attack; with layers counted, one below it for each layer.
pub(crate) fn text(report: &Report) -> String {
    let mut text = String::new();
    for attack in &report.attacks {
        line(&mut text, attack);
    }
    let _ = write!(text, "\n{}", summary(report));
    text
}

fn line(text: &mut String, attack: &Outcome) {
    let style = match attack.verdict {
        Verdict::Held => GOOD,
        Verdict::Untried => TITLE,
        Verdict::Succeeded | Verdict::TooFewLayers => BAD,
    };
    let count = attack
        .independent
        .map_or_else(String::new, |count| format!(" {count}×"));
    let by = attack
        .stopped_by
        .as_ref()
        .map_or_else(String::new, |by| format!(" {by}:"));
    let _ = writeln!(
        text,
        "{style}{}{style:#}{count} {}: {}.{by} {}",
        attack.verdict.word(),
        attack.name,
        attack.tries,
        harmless(&attack.evidence, false)
    );
    for shown in attack.layers.iter().flatten() {
        let _ = writeln!(
            text,
            "       {} alone: {}",
            shown.layer,
            harmless(&shown.evidence, false)
        );
    }
    if let Some(underneath) = &attack.underneath {
        let _ = writeln!(
            text,
            "       with none of them: {}, {}",
            underneath.what,
            harmless(&underneath.evidence, false)
        );
    }
    if let Some(effect) = &attack.with_none {
        let _ = writeln!(
            text,
            "       with none of them: {}",
            harmless(effect, false)
        );
    }
}

fn summary(report: &Report) -> String {
    let list = |words: &str, names: &[&str]| match names {
        [] => String::new(),
        names => format!(" {words} {}.", names.join(", ")),
    };
    format!(
        "{} attacks as {} on Linux {}, behind walls of grade {}: {} came to nothing, {} did not, {} could not be tried.{}{}\n",
        report.attacks.len(),
        report.user,
        report.kernel,
        report.grade,
        report.held,
        report.failed,
        report.untried,
        list("Off on purpose:", &report.without),
        list("Missing here:", &report.missing),
    )
}

/// A table: the attack, how many layers stop it, which in their order, and what
/// comes of it without them.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = format!(
        "{}\n| attack | tries | layers | which stop it, each alone | without them |\n|---|---|---|---|---|\n",
        summary(report)
    );
    for attack in &report.attacks {
        let mut which: Vec<String> = match &attack.layers {
            Some(layers) => layers.iter().map(|shown| shown.layer.to_owned()).collect(),
            None => attack.stopped_by.iter().cloned().collect(),
        };
        if let Some(underneath) = &attack.underneath {
            which.push(format!("*{}*", underneath.what));
        }
        let count = match (attack.verdict, attack.independent) {
            (Verdict::Held, Some(count)) => count.to_string(),
            (Verdict::Held, None) => "held".into(),
            (verdict, _) => format!("**{}**", verdict.word()),
        };
        let without = match (&attack.with_none, &attack.underneath, attack.verdict) {
            (Some(effect), ..) => effect.clone(),
            (_, Some(underneath), _) => underneath.evidence.clone(),
            (.., Verdict::Untried) => attack.evidence.clone(),
            _ => "can't be taken off".into(),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {count} | {} | {} |",
            attack.name,
            cell(attack.tries),
            cell(&which.join(", ")),
            cell(&plain(&without)),
        );
    }
    text
}

fn cell(text: &str) -> String {
    harmless(text, false).replace('|', "\\|")
}

/// Without what is another each time: long numbers, and names of directories.
fn plain(text: &str) -> String {
    text.split(' ')
        .map(|word| match word.contains("lazaret-redteam-") {
            true => "…".to_owned(),
            false => without_long_numbers(word),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn without_long_numbers(word: &str) -> String {
    let mut plain = String::new();
    let mut number = String::new();
    let end = |plain: &mut String, number: &mut String| {
        match number.len() {
            0..4 => plain.push_str(number),
            _ => plain.push('…'),
        }
        number.clear();
    };
    for c in word.chars() {
        match c.is_ascii_digit() {
            true => number.push(c),
            false => {
                end(&mut plain, &mut number);
                plain.push(c);
            }
        }
    }
    end(&mut plain, &mut number);
    plain
}

#[cfg(test)]
mod tests {
    use lazaret::wall::Grade;
    use lazaret_redteam::report::{Shown, Underneath};

    use super::*;

    fn outcome(verdict: Verdict) -> Outcome {
        Outcome {
            name: "read_file",
            kind: "files",
            tries: "reads a | file",
            verdict,
            stopped_by: Some("seccomp".into()),
            evidence: "openat\u{1b}[31m".into(),
            layers: Some(vec![Shown {
                layer: "seccomp",
                evidence: "openat: stopped".into(),
            }]),
            underneath: Some(Underneath {
                what: "permissions of an ordinary user",
                evidence: "openat: EACCES".into(),
            }),
            with_none: None,
            independent: Some(2),
            at_least: 1,
        }
    }

    fn report() -> Report {
        Report {
            user: "root".into(),
            kernel: "6.18".into(),
            grade: Grade::A,
            without: vec!["mdwe"],
            missing: Vec::new(),
            ablated: true,
            held: 1,
            failed: 1,
            untried: 0,
            attacks: vec![outcome(Verdict::Held), outcome(Verdict::Succeeded)],
        }
    }

    #[test]
    fn a_line_has_the_name_the_count_the_layer_and_the_evidence() {
        let text = anstream::adapter::strip_str(&text(&report())).to_string();
        for words in [
            "held 2× read_file: reads a | file. seccomp: openat",
            "SUCCEEDED",
            "seccomp alone: openat: stopped",
            "permissions of an ordinary user, openat: EACCES",
            "1 came to nothing, 1 did not",
            "Off on purpose: mdwe.",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn what_is_another_each_time_is_left_out_of_tables() {
        assert_eq!(
            plain(
                "descriptor 0 is socket:[15854290], /tmp/lazaret-redteam-x/y of 127.0.0.1:42048, mode 777"
            ),
            "descriptor 0 is socket:[…], … of 127.0.0.1:…, mode 777"
        );
    }

    #[test]
    fn a_table_s_cells_stay_cells() {
        let table = markdown(&report());
        let row = table
            .lines()
            .find(|line| line.starts_with("| `read_file`"))
            .unwrap();
        assert_eq!(row.replace("\\|", "").matches('|').count(), 6, "{row}");
    }
}
