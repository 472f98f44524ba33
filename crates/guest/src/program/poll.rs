//! `poll_oneoff`: waits for clocks and descriptors at once, in one poll(2).
//!
//! The engine's own version starts a thread for a subscription to a regular
//! file, and waits for clocks through timers of an asynchronous runtime. Here
//! the only thread sleeps in the kernel until the first event.

use std::time::Duration;

use rustix::event::PollFlags;
use wasmtime::{Caller, Linker};
use wasmtime_wasi::p1::types::{Errno, Fd, Fdstat, Filetype, Rights};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wiggle::GuestMemory;

use super::imports::{WASI, errno, memory, slice};
use super::state::State;
use super::streams;

/// Bytes of a subscription and of an event (`typenames.witx`).
const SUBSCRIPTION: u32 = 48;
const EVENT: u32 = 32;
/// The most subscriptions in one call: as many descriptors as one could have.
const MOST: u32 = 4096;
/// Flag of a clock subscription: the time is absolute.
const ABSOLUTE: u16 = 1;
/// The longest single wait. A wait for ever is a sequence of these, because
/// poll(2) has no room for the longest time that WASI can name.
const LONGEST: Duration = Duration::from_secs(1 << 20);

/// What a subscription waits for.
enum Source {
    /// So much time has gone since the program was loaded.
    Monotonic(Duration),
    /// Real time reaches this.
    Real(Duration),
    /// A standard stream.
    Stream(usize, PollFlags),
    /// Nothing: files and directories are always ready, as in poll(2).
    Ready,
    /// It can't be waited for.
    Error(u16),
}

impl State {
    /// After so much time from now.
    fn after(&self, time: Duration) -> Source {
        Source::Monotonic(self.clocks.elapsed().saturating_add(time))
    }
}

struct Subscription {
    user: u64,
    /// The type of its event: 0 clock, 1 read, 2 write.
    kind: u8,
    source: Source,
}

/// Replaces the engine's `poll_oneoff`.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        WASI,
        "poll_oneoff",
        |caller: Caller<'_, State>, parameters: (i32, i32, i32, i32)| {
            Box::new(async move {
                let (subscriptions, events, count, stored) = parameters;
                let [subscriptions, events, count, stored] =
                    [subscriptions, events, count, stored].map(i32::cast_unsigned);
                let result = poll_oneoff(caller, subscriptions, events, count, stored).await?;
                wasmtime::Result::<i32>::Ok(result.err().unwrap_or(errno::SUCCESS).into())
            })
        },
    )?;
    Ok(())
}

async fn poll_oneoff(
    mut caller: Caller<'_, State>,
    subscriptions: u32,
    events: u32,
    count: u32,
    stored: u32,
) -> wasmtime::Result<Result<(), u16>> {
    if count == 0 || count > MOST {
        return Ok(Err(errno::INVAL));
    }
    let memory = memory(&mut caller)?;
    // Both products are at most 4096 * 48.
    let (Some(raw), true, true) = (
        slice(
            memory.data_mut(&mut caller),
            subscriptions,
            count * SUBSCRIPTION,
        )
        .map(|bytes| bytes.to_vec()),
        slice(memory.data_mut(&mut caller), events, count * EVENT).is_some(),
        slice(memory.data_mut(&mut caller), stored, 4).is_some(),
    ) else {
        return Ok(Err(errno::FAULT));
    };
    let mut parsed = Vec::with_capacity(raw.len() / SUBSCRIPTION as usize);
    for raw in raw.chunks_exact(SUBSCRIPTION as usize) {
        parsed.push(match subscription(raw, caller.data_mut()).await? {
            Ok(subscription) => subscription,
            Err(error) => return Ok(Err(error)),
        });
    }
    let happened = match wait(&parsed, caller.data()) {
        Ok(happened) => happened,
        Err(error) => return Ok(Err(error)),
    };
    let data = memory.data_mut(&mut caller);
    if let Some(to) = slice(data, events, count * EVENT) {
        for (to, event) in to.chunks_exact_mut(EVENT as usize).zip(&happened) {
            to.copy_from_slice(event);
        }
    }
    if let Some(to) = slice(data, stored, 4) {
        // No more events than subscriptions.
        to.copy_from_slice(&(happened.len() as u32).to_le_bytes());
    }
    Ok(Ok(()))
}

fn number<const N: usize>(raw: &[u8], at: usize) -> [u8; N] {
    raw.get(at..)
        .and_then(|raw| raw.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// Reads one subscription; an error is one of the whole call.
async fn subscription(
    raw: &[u8],
    state: &mut State,
) -> wasmtime::Result<Result<Subscription, u16>> {
    let user = u64::from_le_bytes(number(raw, 0));
    let [kind] = number(raw, 8);
    let source = match kind {
        0 => {
            let clock = u32::from_le_bytes(number(raw, 16));
            let time = Duration::from_nanos(u64::from_le_bytes(number(raw, 24)));
            let absolute = u16::from_le_bytes(number(raw, 40)) & ABSOLUTE != 0;
            match (clock, absolute) {
                (0, true) if state.clocks.real_moves() => Source::Real(time),
                (0, true) => state.after(time.saturating_sub(state.clocks.real())),
                (1, true) => state.after(time.saturating_sub(state.clocks.monotonic())),
                (0 | 1, false) => state.after(time),
                _ => return Ok(Err(errno::INVAL)),
            }
        }
        1 | 2 => descriptor(u32::from_le_bytes(number(raw, 16)), kind == 1, state).await?,
        _ => return Ok(Err(errno::INVAL)),
    };
    Ok(Ok(Subscription { user, kind, source }))
}

/// What stands behind a descriptor. The engine keeps its table to itself, but
/// only standard streams have an unknown type (they are never terminals), and
/// only standard input may be read but not written.
async fn descriptor(number: u32, read: bool, state: &mut State) -> wasmtime::Result<Source> {
    let stat: Fdstat = match state
        .wasi
        .fd_fdstat_get(&mut GuestMemory::Unshared(&mut []), Fd::from(number))
        .await
    {
        Ok(stat) => stat,
        Err(error) => {
            return error
                .downcast()
                .map(|error: Errno| Source::Error(error as u16));
        }
    };
    Ok(
        match (
            stat.fs_filetype,
            stat.fs_rights_base.contains(Rights::FD_READ),
            read,
        ) {
            (Filetype::Unknown, true, true) => Source::Stream(0, PollFlags::IN),
            // A renumbered standard error is taken for standard output. Both only
            // say whether a write would have to wait.
            (Filetype::Unknown, false, false) => {
                Source::Stream(if number == 2 { 2 } else { 1 }, PollFlags::OUT)
            }
            (Filetype::Unknown, _, _) => Source::Error(errno::BADF),
            _ => Source::Ready,
        },
    )
}

/// Waits for the first events and encodes them.
fn wait(subscriptions: &[Subscription], state: &State) -> Result<Vec<[u8; EVENT as usize]>, u16> {
    let streams: Vec<_> = subscriptions
        .iter()
        .filter_map(|subscription| match subscription.source {
            Source::Stream(number, events) => {
                state.streams.get(number).map(|stream| (stream, events))
            }
            _ => None,
        })
        .collect();
    loop {
        let left = subscriptions
            .iter()
            .filter_map(|subscription| remaining(&subscription.source, state))
            .min();
        let found = streams::ready(&streams, Some(left.unwrap_or(LONGEST).min(LONGEST)))
            .map_err(|_| errno::IO)?;
        let mut found = found.into_iter();
        let mut happened = Vec::new();
        for subscription in subscriptions {
            let error = match subscription.source {
                Source::Stream(..) if found.next().is_some_and(|events| !events.is_empty()) => {
                    errno::SUCCESS
                }
                Source::Stream(..) => continue,
                Source::Error(error) => error,
                ref source if remaining(source, state) == Some(Duration::ZERO) => errno::SUCCESS,
                _ => continue,
            };
            happened.push(event(subscription, error));
        }
        if !happened.is_empty() {
            return Ok(happened);
        }
    }
}

/// How long to wait at most for this source alone; `None` if the kernel says.
fn remaining(source: &Source, state: &State) -> Option<Duration> {
    match source {
        Source::Monotonic(time) => Some(time.saturating_sub(state.clocks.elapsed())),
        Source::Real(time) => Some(time.saturating_sub(state.clocks.real())),
        Source::Stream(..) => None,
        Source::Ready | Source::Error(_) => Some(Duration::ZERO),
    }
}

/// An event as it lies in the guest's memory.
fn event(subscription: &Subscription, error: u16) -> [u8; EVENT as usize] {
    let mut event = [0; EVENT as usize];
    event[0..8].copy_from_slice(&subscription.user.to_le_bytes());
    event[8..10].copy_from_slice(&error.to_le_bytes());
    event[10] = subscription.kind;
    if subscription.kind != 0 && error == errno::SUCCESS {
        // At least a byte; how many more, nobody asks the kernel.
        event[16..24].copy_from_slice(&1_u64.to_le_bytes());
    }
    event
}
