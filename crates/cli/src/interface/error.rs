//! Why Candid text and bytes could not be turned into each other.

use std::io;

use thiserror::Error;

use super::{STACK, TIME, Target};

/// Why text and bytes could not be turned into each other.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum InterfaceError {
    /// The text is no Candid.
    #[error(
        "the argument `{text}` is not Candid: {reason}; write values in parentheses, such as '(42, \"text\", opt true)'"
    )]
    Parse {
        /// The text, shortened.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// The text is not what is asked for.
    #[error("the argument `{text}` does not fit {target}, which takes {expected}: {reason}")]
    Misfit {
        /// The text, shortened.
        text: String,
        /// What it is for.
        target: Target,
        /// The types that it takes.
        expected: String,
        /// What is wrong.
        reason: String,
    },
    /// The reply is no Candid.
    #[error(
        "the reply of {size} bytes is not Candid: {reason}; --output hex or --output raw shows it as it is. The call itself went well"
    )]
    Reply {
        /// Its size.
        size: usize,
        /// What is wrong.
        reason: String,
    },
    /// It takes too long.
    #[error(
        "reading the module's Candid interface took longer than {TIME:?}; give the argument with --arg-hex or --arg-file, and ask for --output hex"
    )]
    Time,
    /// The library panicked.
    #[error(
        "the Candid library failed on this interface or value; give the argument with --arg-hex or --arg-file, and ask for --output hex"
    )]
    Panicked,
    /// No thread.
    #[error("no thread with a stack of {STACK} bytes for Candid: {0}")]
    Thread(#[source] io::Error),
}
