//! What an attacker has: the process, the shared memory, the wire.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::SeqCst;

use lazaret_guest::canister::Canister;
use lazaret_guest::exchange::Exchange;
use lazaret_wire::codec::Message;
use lazaret_wire::message::{Call, Done, Effects, FromWorker, Outcome};
use lazaret_wire::{Shared, bell, layout};

use crate::attack::Value;

/// What an attacker has.
#[derive(Debug)]
pub struct Inside<'a> {
    /// The worker's side of the wire.
    pub exchange: &'a mut Exchange,
    /// What the attack was given, after its name.
    pub argument: &'a str,
    /// The call and the canister, in a tenant's worker.
    pub tenant: Option<(&'a Call, &'a Canister)>,
}

impl Inside<'_> {
    /// The shared memory.
    pub fn shared(&self) -> &'static Shared {
        self.exchange.shared()
    }

    /// Where the tenant's heap is.
    pub fn heap(&self) -> *mut u8 {
        self.tenant.map_or(std::ptr::null_mut(), |(_, canister)| {
            canister.memory().heap().base()
        })
    }

    /// The first number of the argument, or 0.
    pub fn number(&self) -> u64 {
        self.argument
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    }

    /// The value of `name=value` in the argument; nothing if it isn't there.
    pub fn word(&self, name: &str) -> &str {
        self.argument
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or("")
    }

    /// The same as a number, 0 if it is none.
    pub fn word_number(&self, name: &str) -> u64 {
        self.word(name).parse().unwrap_or(0)
    }

    /// The truth: the call replied with `reply`, and changed no size.
    pub fn honest(&self, reply: &str) -> Done {
        let (fuel, globals, sizes) = match self.tenant {
            Some((call, canister)) => (call.fuel, call.globals.clone(), canister.memory().sizes()),
            None => Default::default(),
        };
        Done {
            outcome: Outcome::Reply(reply.as_bytes().to_vec()),
            fuel_left: fuel,
            sizes,
            globals,
            effects: Effects::default(),
        }
    }

    /// Puts bytes into the answer area and rings once.
    pub fn answer_raw(&self, bytes: &[u8]) {
        if let Err(error) = self.shared().put_answer(bytes) {
            panic!("{error}");
        }
        self.ring(1);
    }

    /// Sends an answer as the worker's code would. It counts from the bell
    /// itself, so that an attack can ring in between.
    pub fn answer(&self, message: &FromWorker) {
        let mut bytes = Vec::new();
        if let Err(error) = message.to_bytes(&mut bytes) {
            panic!("{error}");
        }
        self.answer_raw(&bytes);
    }

    /// Moves the answer bell on and wakes the host.
    pub fn ring(&self, by: u32) {
        let word = self.shared().u32(layout::ANSWER_BELL);
        word.store(word.load(SeqCst).wrapping_add(by), SeqCst);
        bell::wake(word);
    }

    /// Waits to be killed.
    pub fn wait_for_the_end(&mut self) -> ! {
        loop {
            let _ = self.exchange.next();
        }
    }

    /// A value as the number that goes into a register.
    pub fn resolve(&self, value: Value) -> u64 {
        match value {
            Value::Number(number) => number,
            Value::Memory => own_memory() as u64,
            Value::Shared => self.shared().address() as u64,
            Value::Heap => self.heap() as u64,
            Value::Code => page_of_code() as u64,
        }
    }
}

/// Bytes of [`own_memory`].
pub const OWN_MEMORY: usize = 64 << 10;

/// 64 KiB of zeros, the same ones every time.
pub fn own_memory() -> *mut u8 {
    static MEMORY: OnceLock<usize> = OnceLock::new();
    *MEMORY
        .get_or_init(|| Box::leak(vec![0u8; OWN_MEMORY].into_boxed_slice()).as_mut_ptr() as usize)
        as *mut u8
}

std::arch::global_asm!(
    ".pushsection .text.lazaret_spare_page, \"ax\"",
    ".p2align 12",
    ".globl lazaret_spare_page",
    "lazaret_spare_page:",
    ".zero 4096",
    ".popsection",
);

unsafe extern "C" {
    /// The page above. Nothing calls it: its first bytes are no code to run.
    static lazaret_spare_page: [u8; layout::PAGE];
}

/// A page of this program's code that nothing runs on.
pub fn page_of_code() -> usize {
    (&raw const lazaret_spare_page).addr()
}
