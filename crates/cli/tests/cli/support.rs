//! Starting the command, and what it is started on.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The command, with compiled modules kept apart from the user's own.
pub fn lazaret() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lazaret"));
    command
        .env_remove("LAZARET_DATA")
        .env_remove("NO_COLOR")
        .env("XDG_CACHE_HOME", cache())
        .env("COLUMNS", "100")
        .stdin(Stdio::null());
    command
}

/// Where compiled modules are kept: with what was built, where all tests find
/// them, or if this user may not write there, in a directory of this process's
/// own. (A cache that can't be written is a warning on standard error.)
pub fn cache() -> &'static Path {
    static SHARED: OnceLock<Option<PathBuf>> = OnceLock::new();
    static OWN: OnceLock<TempDir> = OnceLock::new();
    extern "C" fn remove() {
        if let Some(own) = OWN.get() {
            let _ = std::fs::remove_dir_all(own.path());
        }
    }
    let shared = SHARED.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
        let modules = path.join("lazaret");
        std::fs::create_dir_all(&modules).ok()?;
        tempfile::tempfile_in(&modules).ok()?;
        Some(path)
    });
    if let Some(path) = shared {
        return path;
    }
    let own = OWN.get_or_init(|| {
        // SAFETY: a function that doesn't unwind; nothing drops a static.
        unsafe { libc::atexit(remove) };
        tempfile::tempdir().unwrap()
    });
    own.path()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A program or canister in text.
pub fn wat(name: &str) -> PathBuf {
    repository()
        .join("tests/fixtures/wat")
        .join(format!("{name}.wat"))
}

/// A canister compiled from Motoko.
pub fn canister(name: &str) -> PathBuf {
    fetched(&format!("canisters/{name}.wasm"))
}

/// Something that is fetched or compiled before the tests run.
pub fn fetched(name: &str) -> PathBuf {
    let path = repository().join(".fixtures").join(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/fixtures.sh",
        path.display()
    );
    path
}

/// A module in text, written to a file of its own.
pub fn module(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs to the end.
pub fn done(command: &mut Command) -> Done {
    command.output().unwrap().into()
}

/// Runs to the end with `input` on standard input.
pub fn done_with(command: &mut Command, input: &[u8]) -> Done {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || {
        // The command may end without reading all.
        let _ = stdin.write_all(&input);
    });
    let done = child.wait_with_output().unwrap().into();
    feed.join().unwrap();
    done
}

impl Done {
    /// Fails unless the command exited with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Fails unless standard output is `text`.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert_eq!(self.stdout, text, "{self:#?}");
        self
    }

    /// Fails unless standard error has every one of `words`.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {self:#?}");
        }
        self
    }

    /// Fails unless the command failed with `code`, no result, and one line
    /// that has every one of `words`.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        let done = self.exits(code).prints("").says(words);
        assert_eq!(done.stderr.lines().count(), 1, "not one line: {done:#?}");
        done
    }
}

/// A data directory of its own, and commands on it.
pub struct Data {
    pub directory: TempDir,
}

impl Data {
    /// With nothing in it.
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// With these canisters installed under their names.
    pub fn with(canisters: &[&str]) -> Self {
        let data = Self::new();
        for name in canisters {
            data.verb("install")
                .arg(name)
                .arg(canister(name))
                .run()
                .exits(0);
        }
        data
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// `lazaret VERB`, on this data.
    pub fn verb(&self, verb: &str) -> Command {
        let mut command = lazaret();
        // Durability is the host's promise; here it would only wait for disks.
        if matches!(verb, "install" | "upgrade" | "call") {
            command.args([verb, "--durability", "relaxed"]);
        } else {
            command.arg(verb);
        }
        command.env("LAZARET_DATA", self.path());
        command
    }

    /// `lazaret call TENANT METHOD ARGUMENTS...`
    pub fn call(&self, arguments: &[&str]) -> Done {
        done(self.verb("call").args(arguments))
    }

    /// Everything that is kept: paths and contents. Without the cache, and the
    /// lock, which says who held it last.
    pub fn kept(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.path()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                match path.file_name().unwrap().to_str().unwrap() {
                    "cache" | "lock" => {}
                    _ if path.is_dir() => open.push(path),
                    _ => drop(found.insert(path.clone(), std::fs::read(&path).unwrap())),
                }
            }
        }
        found
    }
}

/// `Command::run`, to write a test as a sentence.
pub trait Run {
    fn run(&mut self) -> Done;
}

impl Run for Command {
    fn run(&mut self) -> Done {
        done(self)
    }
}
