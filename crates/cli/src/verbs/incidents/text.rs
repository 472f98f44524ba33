//! Incidents for people.

use std::fmt::Write;

use lazaret::incident::{Incident, Severity, What};

use crate::columns::columns;
use crate::output::{BAD, TITLE, harmless};

/// A table of them.
pub(super) fn list(incidents: &[Incident]) -> String {
    if incidents.is_empty() {
        return "no incidents\n".to_owned();
    }
    let rows: Vec<[String; 5]> = incidents.iter().map(row).collect();
    let titles = ["ID", "SEVERITY", "TENANT", "LAYER", "WHAT"];
    columns(titles, &rows).join("\n") + "\n"
}

fn row(incident: &Incident) -> [String; 5] {
    [
        incident.id.clone(),
        incident.severity.to_string(),
        whose(incident),
        incident.layer.clone(),
        harmless(&what(&incident.what), false).into_owned(),
    ]
}

/// One in a line.
pub(super) fn line(incident: &Incident) -> String {
    row(incident).join("  ")
}

fn whose(incident: &Incident) -> String {
    match &incident.subject.tenant {
        Some(name) => name.clone(),
        None => format!("({})", incident.subject.worker),
    }
}

pub(super) fn what(what: &What) -> String {
    match what {
        What::ForbiddenCall { call: Some(call) } => format!("forbidden {call}"),
        What::ForbiddenCall { call: None } => "forbidden system call".to_owned(),
        What::MalformedWire { problem } => format!("malformed wire data: {problem}"),
        What::UnaskedExit { code } => format!("unasked exit with code {code}"),
        What::Crash { signal, said } => match said {
            Some(said) => format!("crash: {said}"),
            None => format!("crash by signal {signal}"),
        },
        What::CanaryTouched { said } => format!("canary page touched: {said}"),
        What::Killed { signal } => format!("killed by signal {signal}"),
        What::Aborted { reason, said } => format!("ended itself: {reason}: {said}"),
        What::PostureChanged { differences } => {
            format!("no longer as verified: {}", differences.join("; "))
        }
        What::Limit { limit, detail } => format!("limit of {limit}: {detail}"),
        _ => "something else; see --json".to_owned(),
    }
}

/// All of one.
pub(super) fn whole(incident: &Incident) -> String {
    let mut text = String::new();
    let style = if incident.severity >= Severity::High {
        BAD
    } else {
        TITLE
    };
    let seen = &incident.evidence;
    let mut put = |line: &str| {
        // Whatever a worker said or did is for reading only.
        let _ = writeln!(text, "{}", harmless(line, false));
    };
    put(&format!("at {}, process {}", incident.at, seen.pid));
    put(&incident.explanation);
    put(&incident.advice);
    let mut part = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            put("");
            put(title);
            for line in lines {
                put(&format!("  {line}"));
            }
        }
    };
    if let What::ForbiddenCall { call: Some(call) } = &incident.what {
        let mut lines = vec![format!("{call}, at {:#x}", call.instruction_pointer)];
        for (number, argument) in call.arguments.iter().enumerate() {
            lines.push(format!("arg{number} = {argument:#x}"));
        }
        part("The call", lines);
    }
    if let Some(module) = &incident.subject.module {
        part("The module", vec![format!("blake3 {module}")]);
    }
    if let Some(registers) = &seen.registers {
        let named = registers
            .0
            .iter()
            .map(|one| format!("{:9} {:#018x}", one.name, one.value));
        part("Registers", named.collect());
    }
    let frames = seen.stack.iter().map(|frame| {
        let place = [&frame.function, &frame.source, &frame.mapping]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>();
        format!("{:#018x} {}", frame.address, place.join(", "))
    });
    part("Stack, innermost first", frames.collect());
    let requests = seen.requests.iter().map(|request| {
        format!(
            "{}: {} ({} bytes)",
            request.number,
            request.what.as_deref().unwrap_or("a long request"),
            request.length
        )
    });
    part("The last requests, newest last", requests.collect());
    part("Mappings", seen.mappings.clone());
    part("What could not be seen", seen.remarks.clone());
    let id = &incident.id;
    let severity = incident.severity;
    format!(
        "{style}{severity}{style:#} incident {id} of {}: {}\n{text}",
        whose(incident),
        harmless(&what(&incident.what), false)
    )
}
