//! The launchers that a host's workers come from, and their control groups.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};

use lazaret_wall::cgroup::{CgroupError, Cgroups};
use lazaret_wall::executable::{self, Executable, Executables, is_kept};
use lazaret_wall::launcher::{Launcher, LauncherError, LauncherOptions, Starting};

use crate::builder::Options;
use crate::cache_dir::{self, CacheDir, Use};

/// The launchers of a host. Each is started when its turn first comes, and again
/// after it has ended.
#[derive(Debug)]
pub(crate) struct Launchers {
    options: Arc<Options>,
    slots: Vec<Mutex<Slot>>,
    turn: AtomicUsize,
    /// Whether the executable that is carried along can't be used here.
    image_refused: AtomicBool,
    cgroups: OnceLock<Arc<Cgroups>>,
    /// Where the executable that is carried along is kept as a file.
    cache: Option<Arc<CacheDir>>,
}

/// A launcher's place.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Begun(Box<Begun>),
    Started(Arc<Launcher>),
}

impl Slot {
    /// Its launcher, if there is one that lives as far as is known.
    fn alive(&self) -> Option<&Arc<Launcher>> {
        match self {
            Self::Started(launcher) if launcher.is_alive() => Some(launcher),
            _ => None,
        }
    }
}

/// A launcher that gets ready.
#[derive(Debug)]
pub(crate) struct Begun {
    starting: Starting,
    options: LauncherOptions,
}

/// Executables in a cache directory, by the hash of their contents.
const KIND: cache_dir::Kind = cache_dir::Kind {
    name: "executable",
    max_bytes: 1 << 30,
    used: Use::Program,
};

impl Launchers {
    pub(crate) fn new(
        options: Arc<Options>,
        cgroups: OnceLock<Arc<Cgroups>>,
        cache: Option<Arc<CacheDir>>,
    ) -> Self {
        Self {
            slots: (0..options.pool.launchers.get())
                .map(|_| Mutex::default())
                .collect(),
            options,
            turn: AtomicUsize::new(0),
            image_refused: AtomicBool::new(false),
            cgroups,
            cache,
        }
    }

    /// The launcher whose turn it is, started if there is none or it has ended.
    pub(crate) fn next(&self) -> Result<Arc<Launcher>, LauncherError> {
        let turn = match self.slots.len() {
            1 => 0,
            several => self.turn.fetch_add(1, Relaxed) % several,
        };
        let mut slot = lock(&self.slots[turn]);
        if let Some(launcher) = slot.alive() {
            return Ok(launcher.clone());
        }
        let (ready, dead) = match std::mem::take(&mut *slot) {
            Slot::Empty => (None, None),
            Slot::Started(dead) => (None, Some(dead)),
            // It may have waited for long. Whatever became of it meanwhile, what counts is
            // what can be had now.
            Slot::Begun(begun) => match self.finish(*begun) {
                Ok(ready) if ready.is_alive() => (Some(ready), None),
                Ok(ready) => (None, Some(Arc::new(ready))),
                Err(error @ LauncherError::Silent) => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "a launcher that was to be ready is started anew");
                    (None, None)
                }
            },
        };
        let started = match ready {
            Some(ready) => Ok(ready),
            None => self.begin_one_of_all().and_then(|begun| self.finish(begun)),
        };
        match (started, dead) {
            (Ok(started), dead) => {
                let started = Arc::new(started);
                *slot = Slot::Started(started.clone());
                if dead.is_some() {
                    crate::metrics::launcher_replaced();
                }
                Ok(started)
            }
            (Err(error), dead) => {
                // It is still to be replaced.
                *slot = dead.map_or(Slot::Empty, Slot::Started);
                Err(error)
            }
        }
    }

    /// Has the first launcher get ready, if there is none, while the caller does something
    /// else. Whatever is in the way is told to whoever needs it.
    pub(crate) fn prepare(&self) {
        // Somebody else needs it just now.
        let Ok(mut slot) = self.slots[0].try_lock() else {
            return;
        };
        if !matches!(*slot, Slot::Empty) {
            return;
        }
        match self.begin_one_of_all() {
            Ok(begun) => *slot = Slot::Begun(Box::new(begun)),
            Err(error) => tracing::debug!(%error, "no launcher can be started yet"),
        }
    }

    /// One of those that the host's workers come from.
    fn begin_one_of_all(&self) -> Result<Begun, LauncherError> {
        let mut options = self.launcher_options()?;
        // Where workers are no other executable, one launcher does for all.
        options.compiles = !self.have_own_executable();
        self.begin(options)
    }

    /// A launcher for workers that compile.
    pub(crate) fn compiling(&self) -> Result<Arc<Launcher>, LauncherError> {
        let mut options = self.launcher_options()?;
        if !self.have_own_executable() {
            let launcher = self.next()?;
            // One that was started before that was known doesn't.
            if launcher.compiles() {
                return Ok(launcher);
            }
        }
        options.executables.worker = options.executables.compiler.clone();
        options.compiles = true;
        self.start(options).map(Arc::new)
    }

    /// Whether workers that don't compile are made of an executable of their own.
    fn have_own_executable(&self) -> bool {
        matches!(self.options.executables.worker, Executable::Image(_))
            && !self.image_refused.load(Relaxed)
    }

    /// The numbers of the launchers' processes.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let slots = self.slots.iter();
        slots
            .filter_map(|slot| match &*lock(slot) {
                Slot::Started(launcher) => launcher.pid(),
                Slot::Begun(begun) => Some(begun.starting.pid()),
                Slot::Empty => None,
            })
            .collect()
    }

    /// Starts a launcher and waits until it is ready.
    pub(crate) fn start(&self, options: LauncherOptions) -> Result<Launcher, LauncherError> {
        self.finish(self.begin(options)?)
    }

    /// Has a launcher get ready: with this program itself, from now on, where the executable
    /// that is carried along may not be executed.
    pub(crate) fn begin(&self, options: LauncherOptions) -> Result<Begun, LauncherError> {
        match Starting::begin(&options) {
            Ok(starting) => Ok(Begun { starting, options }),
            Err(error) => {
                let options = self.without_image(options, error)?;
                Starting::begin(&options).map(|starting| Begun { starting, options })
            }
        }
    }

    /// Waits until a launcher is ready.
    pub(crate) fn finish(&self, begun: Begun) -> Result<Launcher, LauncherError> {
        let error = match begun.starting.finish() {
            Err(error) => error,
            ready => return ready,
        };
        Launcher::start(&self.without_image(begun.options, error)?)
    }

    /// The options for this program itself, if a launcher could not be started because the
    /// executable that is carried along may not be executed.
    fn without_image(
        &self,
        mut options: LauncherOptions,
        error: LauncherError,
    ) -> Result<LauncherOptions, LauncherError> {
        let image = matches!(options.executables.worker, Executable::Image(_));
        if !image || !matches!(error, LauncherError::NotExecuted) {
            return Err(error);
        }
        self.refuse_image(&error);
        options.executables.worker = Executable::Own;
        options.compiles = true;
        Ok(options)
    }

    fn refuse_image(&self, error: &dyn std::fmt::Display) {
        if !self.image_refused.swap(true, Relaxed) {
            tracing::warn!(%error, "workers are this program itself, as their own executable can't be executed from memory");
        }
    }

    pub(crate) fn launcher_options(&self) -> Result<LauncherOptions, LauncherError> {
        Ok(LauncherOptions {
            executables: self.executables()?,
            compiles: false,
            accept_missing: self.options.accept_missing.clone(),
            off: self.options.off,
            red_team: self.options.red_team,
            as_user: self.options.worker_user,
            directories: Vec::new(),
            cgroups: Some(self.cgroups()?.clone()),
        })
    }

    /// The executables of launcher and workers: where no executable may be made in
    /// memory, workers are this program, started again.
    fn executables(&self) -> Result<Executables, LauncherError> {
        let mut executables = self.options.executables.clone();
        if let image @ Executable::Image(bytes) = &executables.worker {
            if !is_kept(bytes) && !self.image_refused.load(Relaxed) {
                self.keep(bytes);
            }
            match image.open() {
                Ok(_) => {}
                // That has nothing to do with executables, and may pass.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOSPC)
                    ) =>
                {
                    return Err(LauncherError::Executable(error));
                }
                Err(error) => self.refuse_image(&error),
            }
            if self.image_refused.load(Relaxed) {
                executables.worker = Executable::Own;
            }
        }
        Ok(executables)
    }

    /// Keeps the executable that is carried along as a file: to copy it into memory takes
    /// longer than the rest of a launcher's start.
    fn keep(&self, bytes: &'static [u8]) {
        let (Some(cache), Some(image)) = (&self.cache, lazaret_worker_executable::IMAGE) else {
            return;
        };
        // Not its bytes, all of which would be read from disk for that.
        if !std::ptr::eq(bytes, image.loaded) {
            return;
        }
        let located = cache.locate(KIND, &image.hash).or_else(|error| {
            if error.kind() == io::ErrorKind::Unsupported {
                return Err(error);
            }
            cache.store(KIND, &image.hash, &[], Some(&mut { bytes }))?;
            cache.locate(KIND, &image.hash)
        });
        if let Err(error) = located.and_then(|path| executable::keep(bytes, &path)) {
            tracing::debug!(%error, "the worker's executable is copied into memory");
        }
    }

    /// The control groups of this host's workers, looked for when they are first
    /// needed: a host that runs nothing makes no group.
    pub(crate) fn cgroups(&self) -> Result<&Arc<Cgroups>, CgroupError> {
        if let Some(cgroups) = self.cgroups.get() {
            return Ok(cgroups);
        }
        let opened = Cgroups::open(self.options.cgroup)?;
        let cgroups = self.cgroups.get_or_init(|| opened);
        if let Some((missing, remedy)) = cgroups.degraded() {
            degraded(self.options.cgroup.quiet, &missing, remedy);
        }
        Ok(cgroups)
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says once for this process that limits are only those underneath.
fn degraded(quiet: bool, missing: &str, remedy: &str) {
    static SAID: Once = Once::new();
    let words = "workers have no control groups, or not for all limits";
    SAID.call_once(|| match quiet {
        false => tracing::warn!(missing, remedy, "{words}"),
        true => tracing::info!(missing, remedy, "{words}"),
    });
}
