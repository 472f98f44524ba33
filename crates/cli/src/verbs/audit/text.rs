//! An audit for people.

use std::fmt::Write as _;

use super::pages::Pages;
use super::worker::{SystemCall, Worker};
use super::{Account, GroupEntry};
use crate::output::{TITLE, harmless};
use crate::values::size::human;

/// The whole account.
pub(super) fn text(account: &Account) -> String {
    let mut to = String::new();
    // Writing to a string can't fail.
    let _ = write(&mut to, account);
    to
}

fn write(to: &mut String, account: &Account) -> std::fmt::Result {
    if let Some(module) = &account.module {
        writeln!(to, "{TITLE}{}{TITLE:#}", harmless(&module.path, false))?;
        writeln!(
            to,
            "  wants {} of memory at least, and imports:",
            human(module.memory_minimum_bytes)
        )?;
        for import in &module.imports {
            writeln!(to, "    {}", harmless(import, false))?;
        }
        writeln!(to)?;
    }
    for worker in &account.workers {
        write_worker(to, worker)?;
    }
    write_pages(to, &account.pages)?;
    write_groups(to, &account.cgroups)?;
    if !account.unfiltered.is_empty() {
        writeln!(
            to,
            "{TITLE}What no filter can refuse{TITLE:#}\n  The kernel answers these before it asks any filter, and does nothing:"
        )?;
    }
    for call in account.unfiltered {
        writeln!(
            to,
            "    {:<22} {:>4}  {}",
            call.name, call.number, call.effect
        )?;
    }
    writeln!(to, "{TITLE}Layers of the wall{TITLE:#}")?;
    for layer in &account.layers {
        writeln!(to, "  {:<18} {}", layer.name, layer.purpose)?;
        if let Some(here) = &layer.here {
            writeln!(to, "  {:<18} here: {here}", "")?;
        }
    }
    writeln!(to, "\n{TITLE}Measures against side channels{TITLE:#}")?;
    for measure in &account.measures {
        let state = if measure.works { "works" } else { "missing" };
        writeln!(to, "  {:<20} {state:<8} {}", measure.name, measure.purpose)?;
        writeln!(to, "  {:<20} here: {}", "", harmless(&measure.here, false))?;
    }
    writeln!(
        to,
        "\n{TITLE}Functions of the embedder{TITLE:#}\n  (a program that embeds Lazaret lists its own by Host::offered)"
    )?;
    for declaration in &account.host_functions {
        writeln!(to, "  {}", harmless(&declaration.to_string(), false))?;
    }
    if account.host_functions.is_empty() {
        writeln!(to, "  none: this command offers none")?;
    }
    writeln!(
        to,
        "\n{TITLE}Namespaces{TITLE:#}\n  A worker's are not the host's: {}",
        account.namespaces.join(", ")
    )
}

fn write_pages(to: &mut String, pages: &Pages) -> std::fmt::Result {
    writeln!(to, "{TITLE}A tenant's pages{TITLE:#}")?;
    for (option, ways) in [
        ("--tracker", &pages.trackers),
        ("--page-copy", &pages.page_copy),
    ] {
        for way in ways {
            let state = match (way.chosen, way.works) {
                (true, _) => "auto",
                (false, true) => "works",
                (false, false) => "missing",
            };
            let name = format!("{option} {}", way.name);
            writeln!(to, "  {name:<18} {state:<8} {}", way.what)?;
            writeln!(to, "  {:<18} here: {}", "", harmless(&way.here, false))?;
        }
    }
    writeln!(to)
}

fn write_groups(to: &mut String, groups: &[GroupEntry]) -> std::fmt::Result {
    writeln!(to, "{TITLE}A worker's control group{TITLE:#}")?;
    for group in groups {
        let state = if group.works { "works" } else { "missing" };
        let GroupEntry {
            name,
            purpose,
            default,
            ..
        } = group;
        writeln!(to, "  {name:<18} {state:<8} {purpose}: {default}")?;
        writeln!(to, "  {:<18} here: {}", "", harmless(&group.here, false))?;
    }
    writeln!(to)
}

fn write_worker(to: &mut String, worker: &Worker) -> std::fmt::Result {
    writeln!(to, "{TITLE}{}{TITLE:#}: {}", worker.name, worker.what)?;
    writeln!(
        to,
        "  system calls ({}; any other kills the worker):",
        worker.system_calls.len()
    )?;
    for call in &worker.system_calls {
        writeln!(to, "    {:<22} {:>4}  {}", call.name, call.number, call.why)?;
        write_arguments(to, call)?;
    }
    if !worker.crossings.is_empty() {
        writeln!(to, "  what crosses:")?;
    }
    for crossing in &worker.crossings {
        let bound = match crossing.bound {
            Some(bound) => format!("at most {bound} {}", crossing.unit),
            None => format!("{} without bound", crossing.unit),
        };
        writeln!(
            to,
            "    {:<30} {:<14} {:<14} {bound}; when wrong: {}",
            crossing.name, crossing.carrier, crossing.direction, crossing.when_wrong
        )?;
    }
    if !worker.crossings.is_empty() {
        let open = if worker.descriptors.is_empty() {
            "none".to_owned()
        } else {
            worker.descriptors.join("; ")
        };
        writeln!(to, "  descriptors that are open in it: {open}")?;
    }
    writeln!(to)
}

fn write_arguments(to: &mut String, call: &SystemCall) -> std::fmt::Result {
    for (index, checks) in call.arguments.iter().enumerate() {
        writeln!(
            to,
            "    {:<28} {} {}",
            "",
            if index == 0 { "only if" } else { "or if" },
            checks.join(" and ")
        )?;
    }
    Ok(())
}
