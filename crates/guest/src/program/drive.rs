//! The loop under a program: it runs as one future, on this thread alone.
//!
//! No runtime of tasks, timers or descriptors is needed. Everything that a
//! program waits for blocks in a system call of its own; the future is pending
//! only at the gate, for a host function, or when the engine yields.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use lazaret_wire::message::HostReturn;
use wasmtime::{CallHook, CallHookHandler, StoreContextMut};
use wasmtime_wasi::async_trait;

use super::host_function::Line;
use super::state::State;
use crate::exchange::Exchange;

/// Where the future stops before the guest's first instruction, be that of its
/// start function or of `_start`.
#[derive(Debug, Default)]
pub(super) struct Gate {
    reached: AtomicBool,
    open: AtomicBool,
}

impl Gate {
    /// Whether anything has come to the gate: guest code runs only after that.
    pub(super) fn reached(&self) -> bool {
        self.reached.load(Relaxed)
    }

    /// Lets it pass.
    pub(super) fn open(&self) {
        self.open.store(true, Relaxed);
    }

    /// Is pending until the gate is open.
    pub(super) async fn pass(&self) {
        self.reached.store(true, Relaxed);
        poll_fn(|_| {
            if self.open.load(Relaxed) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// Stops at the gate when the engine is about to enter the guest's code.
pub(super) struct Hook(pub(super) Arc<Gate>);

#[async_trait]
impl CallHookHandler<State> for Hook {
    async fn handle_call_event(
        &self,
        _: StoreContextMut<'_, State>,
        event: CallHook,
    ) -> wasmtime::Result<()> {
        if matches!(event, CallHook::CallingWasm) {
            self.0.pass().await;
        }
        Ok(())
    }
}

/// What [`drive`] ended for.
pub(super) enum Stop<T> {
    /// The future is done.
    Done(T),
    /// It stands at the closed gate.
    Gate,
    /// It waits for nothing that exists.
    Stuck,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Drives `future` until it is done or stands at the gate, and serves its host
/// calls through `exchange`.
pub(super) fn drive<T>(
    mut future: Pin<&mut (dyn Future<Output = T> + Send)>,
    gate: &Gate,
    line: &Line,
    mut exchange: Option<&mut Exchange>,
) -> Stop<T> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Stop::Done(value);
        }
        if let Some(call) = line.take_call() {
            line.put_answer(match &mut exchange {
                Some(exchange) => exchange.host_call(call),
                None => HostReturn {
                    result: Err(
                        "no host function can be called before the program is started".to_owned(),
                    ),
                },
            });
        } else if !woken.0.swap(false, Relaxed) {
            return if gate.reached() && !gate.open.load(Relaxed) {
                Stop::Gate
            } else {
                Stop::Stuck
            };
        }
    }
}
