//! Why a program can't be loaded.

use lazaret_wire::message::Failed;
use lazaret_wire::message::setup::MAX_TEXT;

/// Why a program can't be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The artefact is not one of this engine's.
    #[error("the compiled module can't be loaded: {0}")]
    Artefact(String),
    /// Imports that are not provided, `module.name` each.
    #[error("the module imports what Lazaret does not provide: {}{}", .0.join(", "), preview0(.0))]
    Imports(Vec<String>),
    /// Imports of the right name but the wrong type.
    #[error("the module's imports don't fit: {0}")]
    ImportTypes(String),
    /// A library.
    #[error("the module is no command: it exports no function `_start` without parameters and results{}", reactor_note(.reactor))]
    NoStart {
        /// Whether it says that it is one.
        reactor: bool,
    },
    /// It starts with more memory than it may have.
    #[error(
        "the module wants at least {wanted} bytes of memory, the limit is {limit}: raise it with --memory"
    )]
    Memory {
        /// What it would have with the first memory or table that is too large.
        wanted: u64,
        /// What it may have.
        limit: u64,
    },
    /// Fuel for a module that doesn't count it.
    #[error("fuel was given, but the module was compiled without metering")]
    NotMetered,
    /// An initialiser that is none.
    #[error("the initialiser `{name}` {problem}: it must be an exported function without parameters and results; {}", candidates(.others))]
    Initialiser {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
        /// Exports that could be one, in quotes.
        others: Vec<String>,
    },
    /// A snapshot that isn't one of this module.
    #[error("the snapshot can't be used: {0}")]
    Snapshot(String),
    /// The host could not give what the module starts with.
    #[error("the module can't be instantiated: {0}")]
    Instantiate(String),
    /// An argument or variable that no program can be given.
    #[error("{kind} {value:?} {problem}")]
    Text {
        /// What it is.
        kind: &'static str,
        /// The text.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Descriptors and the set-up don't agree.
    #[error("{given} directories were handed over for {named} names")]
    Preopens {
        /// Descriptors.
        given: usize,
        /// Names in the set-up.
        named: usize,
    },
    /// A directory can't be opened.
    #[error("the directory for {guest:?} can't be opened: {error}")]
    Preopen {
        /// Its path in the guest.
        guest: String,
        /// Why.
        error: String,
    },
    /// The engine refused something that does not depend on the module.
    #[error("the engine can't be set up: {0}")]
    Engine(String),
}

fn preview0(imports: &[String]) -> &'static str {
    if imports
        .iter()
        .any(|import| import.starts_with("wasi_unstable."))
    {
        " (wasi_unstable is WASI preview 0: rebuild the module for preview 1, target wasm32-wasip1)"
    } else {
        ""
    }
}

fn reactor_note(reactor: &bool) -> &'static str {
    if *reactor {
        "; it exports `_initialize`, so it is a reactor: build it as a command"
    } else {
        ""
    }
}

fn candidates(others: &[String]) -> String {
    match others {
        [] => "the module exports none but `_start`".to_owned(),
        others => format!("this module exports {}", others.join(", ")),
    }
}

impl From<LoadError> for Failed {
    fn from(error: LoadError) -> Self {
        let mut message = error.to_string();
        if message.len() > MAX_TEXT {
            message.truncate(message.floor_char_boundary(MAX_TEXT));
        }
        Self {
            layer: None,
            message,
        }
    }
}
