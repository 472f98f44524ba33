//! What is shown on a terminal while something takes long: a spinner while a module is
//! compiled, a bar where it is known how much there is.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lazaret::Compiling;

use crate::values::size::human;

/// Nothing is shown for what takes less.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a host tells of its compilations.
pub(crate) fn observer() -> impl Fn(Compiling) + Send + Sync + 'static {
    let shown: Mutex<Option<Spinner>> = Mutex::new(None);
    move |what| {
        let next = match what {
            Compiling::Begun { module_bytes } if io::stderr().is_terminal() => {
                Spinner::start(module_bytes)
            }
            _ => None,
        };
        // The one before is cleared here, before this returns.
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

/// A spinner that comes up after a while and goes when it is dropped.
struct Spinner {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Spinner {
    /// Nothing if there is no thread to be had: a spinner is no need.
    fn start(module_bytes: usize) -> Option<Self> {
        let (stop, stopped) = channel::<()>();
        let draw = move || {
            if stopped.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.set_message(format!(
                "compiling a module of {}",
                human(module_bytes as u64)
            ));
            bar.enable_steady_tick(Duration::from_millis(100));
            let _ = stopped.recv();
            bar.finish_and_clear();
        };
        let thread = std::thread::Builder::new()
            .name("lazaret-progress".into())
            .spawn(draw)
            .ok()?;
        Some(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes.
    Bytes,
    /// Pages of a tenant's memory; they are shown in bytes too.
    Pages,
}

/// A bar that goes when it is dropped. Without a terminal nothing is shown.
pub(crate) struct Bar {
    bar: ProgressBar,
    scale: u64,
}

impl Bar {
    /// Nothing.
    pub(crate) fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            scale: 1,
        }
    }

    /// A bar with nothing done yet.
    pub(crate) fn new(what: &'static str, total: u64, unit: Unit) -> Self {
        let scale = match unit {
            Unit::Bytes => 1,
            Unit::Pages => 4096,
        };
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(Some(total.saturating_mul(scale)), target);
        let template = "{msg} {bar:30} {binary_bytes} of {binary_total_bytes}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("## "));
        }
        bar.set_message(what);
        Self { bar, scale }
    }

    /// So much is done.
    pub(crate) fn set(&self, done: u64) {
        self.bar.set_position(done.saturating_mul(self.scale));
    }

    /// So much more is done.
    pub(crate) fn advance(&self, more: u64) {
        self.bar.inc(more.saturating_mul(self.scale));
    }

    /// Does what would write over it.
    pub(crate) fn aside<T>(&self, what: impl FnOnce() -> T) -> T {
        self.bar.suspend(what)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
