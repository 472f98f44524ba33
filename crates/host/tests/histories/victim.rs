//! A host in a process of its own, which does what it is told and can be killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use lazaret::{Host, Tenant};

use super::operation::{Answer, Operation, Seen};
use super::tracer::Tracer;
use crate::harness;

/// The variable that makes a test's executable a host to be killed. It holds the directory.
const VARIABLE: &str = "LAZARET_TEST_VICTIM";

/// What a host answered; nothing if it ended before.
pub type Answered = Option<Result<Answer, String>>;

/// To be called at the beginning of `main`: does not return in a process that is a victim.
pub fn serve_if_victim() {
    if let Some(directory) = std::env::var_os(VARIABLE) {
        serve(Path::new(&directory));
        std::process::exit(0);
    }
}

/// Where the data directory is in a test's directory.
pub fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// The module, as one of two.
pub fn module(kind: u64) -> Vec<u8> {
    let text = String::from_utf8(harness::wat("cells")).unwrap();
    let constant = "i64.const 1 (; kind ;)";
    assert!(text.contains(constant));
    text.replace(constant, &format!("i64.const {kind}"))
        .into_bytes()
}

/// A host, and the tenants that it has open.
struct Serving<'a> {
    directory: &'a Path,
    host: Option<Host>,
    open: BTreeMap<String, Tenant>,
}

fn serve(directory: &Path) {
    let mut serving = Serving {
        directory,
        host: None,
        open: BTreeMap::new(),
    };
    for line in std::io::stdin().lines() {
        let operation: Operation = serde_json::from_str(&line.unwrap()).unwrap();
        let answer: Result<Answer, String> = serving.run(operation);
        // In one write, so that it is there whole or not at all, if it is short.
        let line = serde_json::to_string(&answer).unwrap() + "\n";
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
    }
}

/// The text of any error.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Serving<'_> {
    fn host(&self) -> Host {
        self.host.clone().expect("Open comes first")
    }

    fn tenant(&mut self, name: &str) -> Result<Tenant, String> {
        if let Some(tenant) = self.open.get(name) {
            return Ok(tenant.clone());
        }
        let tenant = self.host().tenant(name).map_err(text)?;
        self.open.insert(name.to_owned(), tenant.clone());
        Ok(tenant)
    }

    fn update(&mut self, name: &str, method: &str, argument: &[u8]) -> Result<Answer, String> {
        let done = self.tenant(name)?.update(method, argument);
        done.map(|_| Answer::Done).map_err(text)
    }

    fn numbers(tenant: &Tenant, method: &str) -> Result<Vec<u64>, String> {
        let bytes = tenant.query(method, b"").map_err(text)?.bytes;
        let numbers = bytes.chunks_exact(8);
        Ok(numbers
            .map(|number| u64::from_le_bytes(number.try_into().unwrap()))
            .collect())
    }

    fn keep(&mut self, name: String, tenant: Tenant) -> Result<Answer, String> {
        self.open.insert(name, tenant);
        Ok(Answer::Done)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn run(&mut self, operation: Operation) -> Result<Answer, String> {
        match operation {
            Operation::Open { own_cache, relaxed } => {
                self.open.clear();
                self.host = None;
                let data = data(self.directory);
                let builder = match own_cache {
                    true => harness::older_kernels::builder(),
                    false => harness::builder(),
                };
                let builder = match relaxed {
                    true => builder.relaxed_durability(),
                    false => builder,
                };
                self.host = Some(builder.data_dir(data).build().map_err(text)?);
            }
            Operation::Install { name, number } => {
                let argument = number.to_le_bytes();
                let tenant = self.host().install(&name, module(1), &argument);
                return self.keep(name, tenant.map_err(text)?);
            }
            Operation::Write { name, number } => {
                return self.update(&name, "write", &number.to_le_bytes());
            }
            Operation::Writes {
                name,
                number,
                times,
            } => {
                for number in number..number + times {
                    self.update(&name, "write", &number.to_le_bytes())?;
                }
            }
            Operation::Trap { name, number } => {
                return self.update(&name, "trap", &number.to_le_bytes());
            }
            Operation::Grow { name } => return self.update(&name, "grow", b""),
            Operation::Print { name, line } => {
                return self.update(&name, "print", line.as_bytes());
            }
            Operation::Read { name } => {
                let tenant = self.tenant(&name)?;
                return Self::numbers(&tenant, "read").map(Answer::Cells);
            }
            Operation::Sleep { name } => self.tenant(&name)?.sleep(),
            Operation::StateHash { name } => {
                self.tenant(&name)?.state_hash().map_err(text)?;
            }
            Operation::Compact { name } => self.tenant(&name)?.compact().map_err(text)?,
            Operation::Checkpoint { name } => {
                self.tenant(&name)?.checkpoint().map_err(text)?;
            }
            Operation::Snapshot { name, tag } => {
                self.host().snapshot(&name, &tag).map_err(text)?;
            }
            Operation::Restore { name, tag } => {
                self.host().restore(&name, &tag).map_err(text)?;
            }
            Operation::Delete { name, tag } => {
                self.host().delete_snapshot(&name, &tag).map_err(text)?;
            }
            Operation::Fork { name, new, from } => {
                let fork = self.host().fork(&name, &new, from.as_deref());
                return self.keep(new, fork.map_err(text)?);
            }
            Operation::Upgrade { name, kind } => {
                self.host()
                    .upgrade(&name, module(kind), b"")
                    .map_err(text)?;
            }
            Operation::Export { name, file } => {
                let mut to = File::create(self.file(&file)).map_err(text)?;
                let exported = self.host().export(&name, None, &mut to, &mut |_| ());
                exported.map_err(text)?;
            }
            Operation::Import { name, file } => {
                let mut from = File::open(self.file(&file)).map_err(text)?;
                let tenant = self.host().import(&name, &mut from, &mut |_| ());
                return self.keep(name, tenant.map_err(text)?);
            }
            Operation::Remove { name } => {
                let removed = self.host().remove(&name);
                self.open.remove(&name);
                removed.map_err(text)?;
            }
            Operation::Look { snapshots } => return self.look(snapshots).map(Answer::World),
        }
        Ok(Answer::Done)
    }

    fn look(&mut self, inside: bool) -> Result<BTreeMap<String, Seen>, String> {
        let host = self.host();
        let mut world = BTreeMap::new();
        for name in host.tenants().map_err(text)? {
            let tenant = self.tenant(&name)?;
            let mut snapshots = BTreeMap::new();
            for found in host.snapshots(&name).map_err(text)? {
                let tag = found
                    .map_err(|damaged| format!("{name}@{}: {}", damaged.tag, damaged.error))?
                    .tag;
                let cells = match inside {
                    true => {
                        let probe = host.fork(&name, "probe", Some(&tag)).map_err(text)?;
                        let cells = Self::numbers(&probe, "read")?;
                        host.remove("probe").map_err(text)?;
                        Some(cells)
                    }
                    false => None,
                };
                snapshots.insert(tag, cells);
            }
            let seen = Seen {
                cells: Self::numbers(&tenant, "read")?,
                version: Self::numbers(&tenant, "version")?[0],
                snapshots,
            };
            world.insert(name, seen);
        }
        Ok(world)
    }
}

/// A test's side of a victim. Dropping it kills it.
pub struct Victim {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    tracer: Option<Tracer>,
    directory: PathBuf,
}

impl Victim {
    /// Starts one, which has no host yet.
    pub fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(VARIABLE, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            to: child.stdin.take(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
            tracer: None,
            directory: directory.to_owned(),
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Has it do something.
    pub fn ask(&mut self, operation: &Operation) -> Answered {
        let line = serde_json::to_string(operation).unwrap() + "\n";
        // If it has ended, there is no answer either.
        let _ = self.to.as_mut().unwrap().write_all(line.as_bytes());
        let mut line = String::new();
        // Torn if it is killed in the middle of a long one.
        match self.from.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => Some(serde_json::from_str(&line).unwrap()),
            _ => None,
        }
    }

    /// From now on the changes that it makes to files in its directory are counted; at the `kill_at`th, counted from
    /// 1, it is killed, and does not make it.
    pub fn trace(&mut self, kill_at: Option<u64>) {
        let root = fs::canonicalize(&self.directory).unwrap();
        self.tracer = Some(Tracer::attach(self.pid(), root, kill_at));
    }

    /// What it has changed since it is traced, each change in words.
    pub fn changes(&self) -> Vec<String> {
        self.tracer
            .as_ref()
            .map(Tracer::changes)
            .unwrap_or_default()
    }

    /// Ends it in good order.
    pub fn end(mut self) {
        drop(self.to.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        match self.tracer.take() {
            Some(tracer) => tracer.kill(),
            None => {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}
