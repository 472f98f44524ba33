//! The worker's side of the wire: next request, answer.

use std::sync::atomic::Ordering::Relaxed;

use lazaret_wire::codec::Message;
use lazaret_wire::message::{Call, FromWorker, HostCall, HostReturn, ToWorker};
use lazaret_wire::{Rung, Shared, Spin, bell, layout};

use crate::abort::{self, Reason};

/// The worker's side of the wire. There is one in a process.
#[derive(Debug)]
pub struct Exchange {
    shared: &'static Shared,
    requests: u32,
    answers: u32,
    buffer: Vec<u8>,
    /// A call that is over: the next is decoded into it.
    spare: Option<Box<Call>>,
    spin: Spin,
    /// Whether the host had another request ready, when it last sent one.
    more: bool,
}

/// A spare call doesn't keep a larger argument's memory.
const SPARE_ARGUMENT: usize = 64 << 10;

impl Exchange {
    /// The exchange of a worker that has seen no request yet.
    pub fn new(shared: &'static Shared) -> Self {
        Self {
            shared,
            requests: 0,
            answers: 0,
            buffer: Vec::new(),
            spare: None,
            spin: Spin::NONE,
            more: false,
        }
    }

    /// The shared memory.
    pub fn shared(&self) -> &'static Shared {
        self.shared
    }

    /// How long to spin for the next request before sleeping.
    pub fn set_spin(&mut self, spin: Spin) {
        self.spin = spin;
    }

    /// Waits for the next request. What the host sends can't be wrong unless
    /// this process is confused: it then ends itself, with the reason.
    #[expect(
        clippy::should_implement_trait,
        reason = "requests are no sequence to iterate over: each is answered before the next"
    )]
    pub fn next(&mut self) -> ToWorker {
        let bell = self.shared.u32(layout::REQUEST_BELL);
        let sleeps = self.shared.u32(layout::WORKER_SLEEPS);
        let more = self.shared.u32(layout::MORE).load(Relaxed) != 0;
        if more && !self.more {
            self.spin.forget();
        }
        self.more = more;
        match bell::wait_forever(bell, sleeps, self.requests, &mut self.spin) {
            Rung::Next => self.requests = self.requests.wrapping_add(1),
            other => abort::now(Reason::Wire, &format!("request bell: {other:?}")),
        }
        if let Err(error) = self.shared.take_request(&mut self.buffer) {
            abort::now(Reason::Wire, &error.to_string());
        }
        let mut request = self.spare.take().map_or(ToWorker::Start, ToWorker::Call);
        if let Err(error) = request.replace_from_bytes(&self.buffer) {
            abort::now(Reason::Wire, &error.to_string());
        }
        request
    }

    /// Takes a call that is over, to save the next its allocations.
    pub fn reuse(&mut self, mut call: Box<Call>) {
        if call.argument.capacity() > SPARE_ARGUMENT {
            call.argument = Vec::new();
        }
        self.spare = Some(call);
    }

    /// Sends an answer.
    pub fn answer(&mut self, message: &FromWorker) {
        if let Err(error) = message.to_bytes(&mut self.buffer) {
            abort::now(Reason::Wire, &error.to_string());
        }
        if let Err(error) = self.shared.put_answer(&self.buffer) {
            abort::now(Reason::Wire, &error.to_string());
        }
        self.answers = self.answers.wrapping_add(1);
        bell::ring(
            self.shared.u32(layout::ANSWER_BELL),
            self.shared.u32(layout::HOST_SLEEPS),
            self.answers,
        );
    }

    /// Calls a function of the embedder and waits for what it returns.
    pub fn host_call(&mut self, call: HostCall) -> HostReturn {
        self.answer(&FromWorker::HostCall(call));
        match self.next() {
            ToWorker::HostReturn(result) => result,
            other => abort::now(
                Reason::Wire,
                &format!("expected HostReturn, got {}", name(&other)),
            ),
        }
    }

    /// Asks for `bytes` by which the present call may grow its memories, and
    /// gives those that were granted: at least as many, or 0.
    pub fn grow(&mut self, bytes: u64) -> u64 {
        self.answer(&FromWorker::Grow(bytes));
        match self.next() {
            ToWorker::Grown(granted) => granted,
            other => abort::now(
                Reason::Wire,
                &format!("expected Grown, got {}", name(&other)),
            ),
        }
    }

    /// Adds a line to the log, which outlives a trap and a crash.
    pub fn log(&self, line: &[u8]) {
        self.shared.log(line);
    }

    /// Says how many chunks are entered.
    pub fn set_entered(&self, chunks: u32) {
        self.shared.u32(layout::ENTERED).store(chunks, Relaxed);
    }
}

/// The name of a request, for an error.
pub fn name(request: &ToWorker) -> &'static str {
    match request {
        ToWorker::Assign(_) => "Assign",
        ToWorker::Start => "Start",
        ToWorker::Call(_) => "Call",
        ToWorker::Prepare(_) => "Prepare",
        ToWorker::HostReturn(_) => "HostReturn",
        ToWorker::Compile(_) => "Compile",
        ToWorker::Grown(_) => "Grown",
        ToWorker::Transfer(_) => "Transfer",
    }
}
