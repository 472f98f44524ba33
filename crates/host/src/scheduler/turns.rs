//! Whose turn it is, and the threads that take turns.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::queue::Answered;
use super::{SchedulerOptions, SchedulerState};
use crate::metrics;
use crate::tenant::{CallError, Incoming, Kind, Reply, Tenant, WeakHandle};

/// The most calls of a turn.
const CALLS: usize = 16;
/// After how long no further call is begun in a turn.
const TURN: Duration = Duration::from_millis(1);
/// After how long a call counts as one that takes long: more than a time slice or two of
/// the kernel, as whoever waits for a processor isn't helped by more threads.
const LONG: Duration = Duration::from_millis(10);
/// After how long without a turn a thread ends.
const REST: Duration = Duration::from_secs(10);
/// The stack of a thread that makes calls, in bytes: what embedders' functions and
/// answers need.
const STACK: usize = 2 << 20;

thread_local! {
    /// Whose thread this is, if it is one of a scheduler's: the address of its turns.
    static OF: Cell<usize> = const { Cell::new(0) };
}

/// A tenant's turn to have calls of this kind made.
#[derive(Debug)]
pub(super) struct Turn {
    pub tenant: Tenant,
    pub kind: Kind,
}

/// A turn that is taken.
#[derive(Debug)]
struct Taken {
    /// Since when its call runs.
    since: Instant,
    /// Whether that is long, and somebody else takes turns in its stead.
    long: bool,
    tenant: WeakHandle,
    kind: Kind,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Turn>,
    /// By the number of the thread.
    taken: HashMap<u64, Taken>,
    threads: usize,
    /// Threads that wait for a turn.
    idle: usize,
    next: u64,
    /// Counts turns.
    turns: u64,
    /// Whether the thread that looks on is there, and whether it looks.
    looks_on: Option<bool>,
    ending: bool,
}

/// Turns, and who takes them.
#[derive(Debug)]
pub(super) struct Turns {
    options: SchedulerOptions,
    state: Mutex<State>,
    /// Whoever takes turns.
    come: Condvar,
    /// Whoever looks on.
    look: Condvar,
    /// Whoever waits for the end of threads.
    gone: Condvar,
}

/// How many threads are to take turns beside those that do, if so many turns wait.
fn wanted(waiting: usize, running: usize, most: usize) -> usize {
    waiting.min(most.saturating_sub(running))
}

impl State {
    /// Threads that make calls, or could: all but the one that looks on.
    fn callers(&self) -> usize {
        self.threads - usize::from(self.looks_on.is_some())
    }

    /// How many make calls that don't take long.
    fn running(&self) -> usize {
        self.taken.values().filter(|taken| !taken.long).count()
    }

    /// Marks calls that take long by now. Who waits behind one gets another turn. The
    /// tenants that were held for that are returned, to be let go of when this is no longer
    /// locked.
    fn mark_long(&mut self, now: Instant) -> Vec<Tenant> {
        let mut held = Vec::new();
        for taken in self.taken.values_mut() {
            if taken.long || now.saturating_duration_since(taken.since) < LONG {
                continue;
            }
            // Whose turn it is has it.
            let Some(tenant) = taken.tenant.upgrade() else {
                continue;
            };
            taken.long = true;
            let kind = taken.kind;
            match tenant.queue().mark_long(kind, tenant.most_queries()) {
                true => self.waiting.push_back(Turn { tenant, kind }),
                false => held.push(tenant),
            }
        }
        held
    }
}

impl Turns {
    pub(super) fn new(options: SchedulerOptions) -> Self {
        Self {
            options,
            state: Mutex::default(),
            come: Condvar::new(),
            look: Condvar::new(),
            gone: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(super) fn state(&self) -> SchedulerState {
        let state = self.lock();
        SchedulerState {
            threads: state.callers(),
            running: state.taken.len(),
            long: state.taken.len() - state.running(),
            waiting: state.waiting.len(),
        }
    }

    /// Has a turn wait for a thread.
    ///
    /// # Errors
    /// The turn, and why, if there is no thread and none can be had.
    pub(super) fn wait_for(self: &Arc<Self>, turn: Turn) -> Result<(), (Turn, io::Error)> {
        let mut state = self.lock();
        state.waiting.push_back(turn);
        match self.staff(&mut state) {
            Err(error) if state.callers() == 0 => match state.waiting.pop_back() {
                Some(turn) => Err((turn, error)),
                None => Ok(()),
            },
            Err(error) => {
                tracing::debug!(%error, "no thread for another turn");
                // Those that are there come round to it, and whoever looks on tries again.
                self.have_looked_on(&mut state);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Has as many threads come as there should be.
    fn staff(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let most = self.options.running.get();
        let wanted = wanted(state.waiting.len(), state.running(), most);
        for _ in 0..wanted.min(state.idle) {
            self.come.notify_one();
        }
        let room = self.options.threads.get().saturating_sub(state.callers());
        for _ in 0..wanted.saturating_sub(state.idle).min(room) {
            state.next += 1;
            let number = state.next;
            start("lazaret-calls", {
                let turns = self.clone();
                move || turns.take_turns(number)
            })?;
            state.threads += 1;
        }
        Ok(())
    }

    /// Has somebody look on, as a turn is taken.
    fn have_looked_on(self: &Arc<Self>, state: &mut State) {
        match state.looks_on {
            Some(true) => {}
            Some(false) => {
                state.looks_on = Some(true);
                self.look.notify_one();
            }
            None => {
                let turns = self.clone();
                match start("lazaret-calls-on", move || turns.look_on()) {
                    Ok(()) => {
                        state.looks_on = Some(true);
                        state.threads += 1;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "nobody looks whether calls take long");
                    }
                }
            }
        }
    }

    fn take_turns(self: Arc<Self>, number: u64) {
        OF.set(self.address());
        let mut state = self.lock();
        loop {
            let may = state.running() < self.options.running.get();
            if may && let Some(turn) = state.waiting.pop_front() {
                let taken = Taken {
                    since: Instant::now(),
                    long: false,
                    tenant: turn.tenant.downgrade(),
                    kind: turn.kind,
                };
                state.taken.insert(number, taken);
                state.turns += 1;
                self.have_looked_on(&mut state);
                drop(state);
                self.take(number, &turn);
                let taken = self.lock().taken.remove(&number);
                let long = taken.is_some_and(|taken| taken.long);
                let goes_on = turn.tenant.queue().end_turn(turn.kind, long);
                state = self.lock();
                if goes_on {
                    state.waiting.push_back(turn);
                } else {
                    // Who lets go of a tenant may let go of the host, and of this.
                    drop(state);
                    drop(turn);
                    state = self.lock();
                }
                continue;
            }
            if state.ending {
                break;
            }
            state.idle += 1;
            let (now, waited) = self
                .come
                .wait_timeout(state, REST)
                .unwrap_or_else(PoisonError::into_inner);
            state = now;
            state.idle -= 1;
            if waited.timed_out() && state.waiting.is_empty() {
                break;
            }
        }
        self.leave(state);
    }

    fn leave(&self, mut state: MutexGuard<'_, State>) {
        state.threads -= 1;
        self.gone.notify_all();
    }

    /// Makes calls of the tenant whose turn it is.
    fn take(&self, number: u64, turn: &Turn) {
        let queue = turn.tenant.queue();
        let begin = Instant::now();
        for call in 0..CALLS {
            if call > 0 && (begin.elapsed() >= TURN || !self.goes_on(number)) {
                break;
            }
            let Some((queued, more)) = queue.pop(turn.kind) else {
                break;
            };
            let incoming = Incoming {
                method: &queued.call.method,
                argument: &queued.call.argument,
                options: &queued.call.options,
                // One that is the last of its turn is followed by those of others.
                more: more && call + 1 < CALLS,
            };
            let call = AssertUnwindSafe(|| turn.tenant.call(turn.kind, &incoming));
            // This thread is others' too.
            let result = catch_unwind(call).unwrap_or_else(|_| {
                Err(CallError::Aborted(
                    "the host panicked in the call".to_owned(),
                ))
            });
            tell(queued.answered, result);
        }
    }

    /// Another call of the same turn begins, unless the last one took so long that
    /// somebody else is in its stead.
    fn goes_on(&self, number: u64) -> bool {
        match self.lock().taken.get_mut(&number) {
            Some(taken) if !taken.long => {
                taken.since = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Looks whether calls take long, as long as any are made.
    fn look_on(self: Arc<Self>) {
        OF.set(self.address());
        let mut state = self.lock();
        let mut turns = state.turns;
        while !state.ending {
            if state.looks_on == Some(false) {
                state = self
                    .look
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state = self
                .look
                .wait_timeout(state, LONG)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            // Who lets go of a tenant may let go of the host, and of this: not while it is
            // locked.
            let held = state.mark_long(Instant::now());
            if !held.is_empty() {
                drop(state);
                drop(held);
                state = self.lock();
            }
            if let Err(error) = self.staff(&mut state) {
                tracing::debug!(%error, "no thread for calls that wait behind long ones");
            }
            let nothing_new = state.turns == turns && state.running() == 0;
            turns = state.turns;
            if nothing_new && state.waiting.is_empty() {
                state.looks_on = Some(false);
            }
        }
        self.leave(state);
    }

    /// Nobody has a turn any more: ends all threads, and waits for their ends.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        self.come.notify_all();
        self.look.notify_all();
        // One of its own threads may have let go of the host.
        let own = usize::from(OF.get() == self.address());
        while state.threads > own {
            state = self
                .gone
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells what came of a call.
pub(super) fn tell(answered: Answered, result: Result<Reply, CallError>) {
    let tell = AssertUnwindSafe(|| {
        metrics::call_answered();
        answered(result);
    });
    if catch_unwind(tell).is_err() {
        tracing::error!("whoever was told of a call's end panicked");
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(run)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn threads_come_for_turns_up_to_as_many_as_may_run() {
        for (waiting, running, most, come) in [
            (0, 0, 2, 0),
            (1, 0, 2, 1),
            (5, 0, 2, 2),
            (5, 1, 2, 1),
            (5, 2, 2, 0),
            (5, 3, 2, 0),
        ] {
            assert_eq!(wanted(waiting, running, most), come, "{waiting} {running}");
        }
    }
}
