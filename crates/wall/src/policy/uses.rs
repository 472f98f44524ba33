//! What a program's imports need system calls for.
//!
//! A module can only call what it imports. So the imports of WASI preview 1
//! that it doesn't have are powers that it doesn't need, and its worker doesn't
//! get the system calls under them.

use serde::{Serialize, Serializer};

/// A set of things that a program does through system calls.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Uses(u32);

/// One of them: its bit, its name, and the imports that need it.
struct Use {
    bit: Uses,
    name: &'static str,
    imports: &'static [&'static str],
}

macro_rules! uses {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal: $($import:literal)*;)*) => {
        impl Uses {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
        }
        const TABLE: &[Use] = &[$(Use { bit: Uses::$name, name: $text, imports: &[$($import),*] },)*];
    };
}

uses! {
    /// Read standard input and files.
    READ = 0, "read": "fd_read" "fd_pread";
    /// Write standard output, standard error and files.
    WRITE = 1, "write": "fd_write" "fd_pwrite";
    /// Read clocks.
    CLOCKS = 2, "clocks": "clock_time_get" "clock_res_get" "poll_oneoff";
    /// Random numbers.
    RANDOM = 3, "random": "random_get";
    /// Wait for input and clocks.
    WAIT = 4, "wait": "poll_oneoff";
    /// Open files.
    OPEN = 5, "open": "path_open";
    /// Find what a path below a directory leads to.
    PATHS = 6, "paths": "path_open" "path_filestat_get" "path_readlink" "path_filestat_set_times"
        "path_create_directory" "path_remove_directory" "path_unlink_file" "path_rename"
        "path_symlink" "path_link" "fd_readdir";
    /// List directories.
    LIST = 7, "list": "fd_readdir";
    /// Ask what a file or directory is.
    STATUS = 8, "status": "fd_filestat_get" "fd_fdstat_get" "path_filestat_get" "path_open" "fd_readdir";
    /// Put files on disk.
    SYNC = 9, "sync": "fd_sync" "fd_datasync";
    /// Say how a file will be read.
    ADVISE = 10, "advise": "fd_advise";
    /// Set sizes of files.
    RESIZE = 11, "resize": "fd_filestat_set_size" "fd_allocate";
    /// Set times of files.
    TIMES = 12, "times": "fd_filestat_set_times" "path_filestat_set_times";
    /// Make directories.
    MAKE_DIRECTORY = 13, "make-directory": "path_create_directory";
    /// Remove files and directories.
    REMOVE = 14, "remove": "path_unlink_file" "path_remove_directory";
    /// Rename files and directories.
    RENAME = 15, "rename": "path_rename";
    /// Make symbolic links.
    SYMLINK = 16, "symlink": "path_symlink";
    /// Make hard links.
    LINK = 17, "link": "path_link";
    /// Read exact clocks, which is granted and doesn't follow from imports.
    EXACT_CLOCKS = 18, "exact-clocks":;
}

/// The module name of WASI preview 1.
const WASI: &str = "wasi_snapshot_preview1";

impl Uses {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self((1 << TABLE.len()) - 1);

    /// What a module with these imports (module and name) can need.
    pub fn of_imports<'a>(imports: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        imports
            .into_iter()
            .filter(|(module, _)| *module == WASI)
            .flat_map(|(_, name)| TABLE.iter().filter(move |of| of.imports.contains(&name)))
            .fold(Self::NONE, |all, of| all.with(of.bit))
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether at least one of `other` is among these.
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// As a number, to cross the wire.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set with this number; bits that mean nothing are dropped, which can
    /// only narrow it.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        TABLE
            .iter()
            .filter(move |of| self.any(of.bit))
            .map(|of| of.name)
    }
}

impl std::fmt::Display for Uses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::NONE {
            return f.write_str("nothing");
        }
        for (number, name) in self.names().enumerate() {
            write!(f, "{}{name}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Uses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Uses({self})")
    }
}

impl Serialize for Uses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Uses {
        Uses::of_imports(names.iter().map(|name| (WASI, *name)))
    }

    #[test]
    fn imports_decide() {
        assert_eq!(of(&[]), Uses::NONE);
        assert_eq!(of(&["proc_exit", "args_get", "sched_yield"]), Uses::NONE);
        assert_eq!(of(&["fd_write"]), Uses::WRITE);
        assert_eq!(of(&["poll_oneoff"]), Uses::CLOCKS.with(Uses::WAIT));
        assert_eq!(
            of(&["path_open"]),
            Uses::OPEN.with(Uses::PATHS).with(Uses::STATUS)
        );
        // The same name of another module is another function.
        assert_eq!(Uses::of_imports([("env", "random_get")]), Uses::NONE);
    }

    #[test]
    fn they_cross_as_numbers() {
        for bit in 0..32 {
            let one = Uses::from_bits(1 << bit);
            assert_eq!(one.names().count(), usize::from(bit < TABLE.len()));
            assert_eq!(Uses::from_bits(one.bits()), one);
        }
        assert_eq!(Uses::from_bits(u32::MAX), Uses::ALL);
        assert_eq!(Uses::ALL.without(Uses::ALL).to_string(), "nothing");
        assert_eq!(
            serde_json::to_value(Uses::READ.with(Uses::LINK)).unwrap(),
            serde_json::json!(["read", "link"])
        );
    }
}
