//! The compiled modules that a host knows: those in use, some that were lately, and all
//! in its cache directory.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use lazaret_wire::message::{CompileSettings, Refused};

use super::artefact::{Artefact, key, knows, load, store};
use super::{CompileError, Compiler, Compiling, Observer, compile};
use crate::cache_dir::{CacheDir, Key};

/// Modules that stay open though nothing uses them: each has a descriptor, and its code
/// if that is in memory only.
const RECENT: usize = 16;
/// Places of modules that are no longer open are cleared away beyond so many.
const PLACES: usize = 1024;

/// A module's place: whoever compiles it holds it, and others who want the same wait.
type Place = Arc<Mutex<Weak<Artefact>>>;

/// The compile cache of a host.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: Option<Arc<CacheDir>>,
    observer: Option<Observer>,
    places: Mutex<HashMap<Key, Place>>,
    recent: Mutex<VecDeque<Arc<Artefact>>>,
}

impl Cache {
    /// A cache in `directory`, or in memory only.
    pub(crate) fn new(directory: Option<Arc<CacheDir>>, observer: Option<Observer>) -> Self {
        Self {
            directory,
            observer,
            places: Mutex::default(),
            recent: Mutex::default(),
        }
    }

    /// The artefact of a module with this hash, and how long it took to compile if it
    /// was not there yet.
    pub(crate) fn get(
        &self,
        compiler: &Compiler<'_>,
        wasm: &[u8],
        module: [u8; 32],
        settings: CompileSettings,
    ) -> Result<(Arc<Artefact>, Option<Duration>), CompileError> {
        let key = key(&module, &settings);
        let place = self.place(key);
        let mut place = lock(&place);
        if let Some(found) = place.upgrade() {
            return Ok((found, None));
        }
        let found = self.find((key, module), settings).transpose()?;
        let (artefact, time) = match found {
            Some(found) => (Arc::new(found), None),
            None => {
                let begin = Instant::now();
                self.tell(Compiling::Begun {
                    module_bytes: wasm.len(),
                });
                let made = compile(compiler, wasm, (key, module), settings);
                self.tell(Compiling::Ended);
                let kept = self.keep((key, module), settings, made)?;
                (Arc::new(kept), Some(begin.elapsed()))
            }
        };
        *place = Arc::downgrade(&artefact);
        let mut recent = lock(&self.recent);
        recent.truncate(RECENT - 1);
        recent.push_front(artefact.clone());
        Ok((artefact, time))
    }

    /// Whether a module need not be compiled, as far as can be told at a glance.
    pub(crate) fn may_have(&self, module: &[u8; 32], settings: CompileSettings) -> bool {
        let key = key(module, &settings);
        // Whoever has locked it compiles it.
        let held = lock(&self.places).get(&key).is_some_and(|place| {
            place
                .try_lock()
                .is_ok_and(|artefact| artefact.strong_count() > 0)
        });
        held || self
            .directory
            .as_ref()
            .is_some_and(|directory| knows(directory, &key))
    }

    fn place(&self, key: Key) -> Place {
        let mut places = lock(&self.places);
        if places.len() >= PLACES && places.len().is_power_of_two() {
            // Nobody can begin to use one meanwhile.
            places
                .retain(|_, place| Arc::strong_count(place) > 1 || lock(place).strong_count() > 0);
        }
        places.entry(key).or_default().clone()
    }

    /// What is in the directory of this module.
    fn find(
        &self,
        of: (Key, [u8; 32]),
        settings: CompileSettings,
    ) -> Option<Result<Artefact, Refused>> {
        let directory = self.directory.as_ref()?;
        match load(directory, of, settings) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = directory.path().display();
                tracing::warn!(%path, %error, "a compiled module that can't be used is compiled again");
                None
            }
        }
    }

    /// Keeps what came of compiling in the directory. What is kept is used from there,
    /// so that all hosts have the same pages.
    fn keep(
        &self,
        of: (Key, [u8; 32]),
        settings: CompileSettings,
        made: Result<Artefact, CompileError>,
    ) -> Result<Artefact, CompileError> {
        let refused = match &made {
            Ok(_) => None,
            // It would be the same at any time.
            Err(CompileError::Invalid(reason)) => Some(Refused {
                reason: reason.clone(),
                of_module: true,
            }),
            Err(_) => return made,
        };
        let Some(directory) = &self.directory else {
            return made;
        };
        let result = match (&made, &refused) {
            (Ok(artefact), _) => Ok(artefact),
            (Err(_), Some(refused)) => Err(refused),
            (Err(_), None) => return made,
        };
        let kept = store(directory, &of.0, result).and_then(|()| load(directory, of, settings));
        match kept {
            Ok(kept) => Ok(kept?),
            // A cache that can't be written (a full or read-only disk) costs
            // the next one time, not this one its result.
            Err(error) => {
                let path = directory.path().display();
                tracing::warn!(%path, %error, "the compiled module could not be cached");
                made
            }
        }
    }

    fn tell(&self, what: Compiling) {
        if let Some(Observer(observer)) = &self.observer {
            observer(what);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
