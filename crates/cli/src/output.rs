//! Results on standard output, errors on standard error.
//!
//! Neither panics when the other end is gone, as `println!` does.

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, Write};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::failure::Failure;

/// How good news is shown on a terminal.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// How bad news is shown on a terminal.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// How titles are shown on a terminal.
pub(crate) const TITLE: Style = Style::new().bold();

/// Writes a result as it is. A reader that went away is no error: it has all
/// that it wanted.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    settle(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Writes text whose styles are left out unless standard output is a terminal.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    settle(
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()),
    )
}

/// Writes a value as JSON. `kind` names what it is and its version, such as
/// `lazaret.ps/v1`: it becomes the member `$type`.
pub(crate) fn json<T: Serialize>(kind: &'static str, value: T) -> Result<(), Failure> {
    write(&to_json(kind, value)?)
}

/// The bytes that [`json`] writes.
pub(crate) fn to_json<T: Serialize>(kind: &'static str, value: T) -> Result<Vec<u8>, Failure> {
    #[derive(Serialize)]
    struct Typed<T> {
        #[serde(rename = "$type")]
        kind: &'static str,
        #[serde(flatten)]
        value: T,
    }
    let mut bytes = serde_json::to_vec_pretty(&Typed { kind, value })
        .map_err(|error| Failure::Output(error.into()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes a line, at once; whether anybody is left to read the next.
pub(crate) fn line(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Output(error)),
    }
}

fn settle(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::Output),
    }
}

/// Writes an error in one line, with the backtrace of a trap below it.
pub(crate) fn error(failure: &Failure) {
    note(&format!(
        "{BAD}error:{BAD:#} {}\n{}",
        harmless(&chain(failure), false),
        harmless(&failure.backtrace(), true)
    ));
}

/// Writes something for people that is no result.
pub(crate) fn note(text: &str) {
    // Nobody is left to be told if this fails.
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// The same, but gives up after a while: standard error may be a full pipe that
/// nobody reads. This process ends soon, and the thread with it.
pub(crate) fn note_in_time(text: String) {
    let (done, wait) = sync_channel(1);
    let write = move || {
        note(&text);
        // Whoever waited may have given up.
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(write).is_ok() {
        let _ = wait.recv_timeout(Duration::from_millis(500));
    }
}

/// An error and its causes in one line; a cause that the line holds already is
/// left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// Text of a guest's without control sequences: what it says is shown to a
/// person, and must not move the cursor or recolour the screen. Control
/// characters become their pictures (Unicode block Control Pictures); newlines
/// stay where `lines` says so.
pub(crate) fn harmless(text: &str, lines: bool) -> Cow<'_, str> {
    let keeps = |c: char| !c.is_control() || c == '\t' || lines && c == '\n';
    if text.chars().all(keeps) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .map(|c| match u32::from(c) {
            _ if keeps(c) => c,
            code @ 0..=0x1f => char::from_u32(0x2400 + code).unwrap_or(char::REPLACEMENT_CHARACTER),
            0x7f => '\u{2421}',
            _ => char::REPLACEMENT_CHARACTER,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_shown_not_obeyed() {
        assert_eq!(
            harmless("a\x1b[31mb\nc\td\u{9b}2J\x7f", false),
            "a␛[31mb␊c\td\u{fffd}2J␡"
        );
        assert_eq!(harmless("a\nb\r", true), "a\nb␍");
        assert!(matches!(harmless("déjà vu", false), Cow::Borrowed(_)));
    }

    #[test]
    fn a_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{path}: {source}")]
        struct Embedding {
            path: &'static str,
            source: io::Error,
        }
        #[derive(Debug, thiserror::Error)]
        #[error("reading failed")]
        struct Apart(#[source] Embedding);
        let cause = || Embedding {
            path: "x",
            source: io::Error::other("no such thing"),
        };
        assert_eq!(chain(&cause()), "x: no such thing");
        assert_eq!(chain(&Apart(cause())), "reading failed: x: no such thing");
    }

    #[test]
    fn json_says_what_it_is() {
        #[derive(Serialize)]
        struct Value {
            a: u8,
        }
        let bytes = to_json("lazaret.test/v1", Value { a: 1 }).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            read,
            serde_json::json!({ "$type": "lazaret.test/v1", "a": 1 })
        );
    }
}
