//! A spinner while a module is compiled, on a terminal, if it takes long.

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
