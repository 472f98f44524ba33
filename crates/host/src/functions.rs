//! Functions that an embedder offers to guests.
//!
//! Each is declared once, by a [`Declaration`]: what it is for, how much goes in
//! and out, what it costs, how often it may be called. There is no other way to
//! offer one ([`Builder::offer`](crate::Builder::offer)), what is offered is what
//! [`Host::offered`](crate::Host::offered) lists, and only what is listed has a
//! number on the wire. The decoder in front of them is the wire's, which the fuzz
//! target `wire` feeds; what an argument's bytes mean is the function's to check.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lazaret_wire::message::host_call::MAX_HOST_BYTES;
use lazaret_wire::message::{HostCall, ProvidedFunction};
use serde::Serialize;

use crate::worker::Deadline;

/// A function that an embedder offers: bytes in, bytes out, or a message with
/// which the guest traps.
pub type HostFunction = dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync;

/// How often one guest, a tenant or a run of a program, may call a function.
///
/// A query or a program that calls more often traps. In what can change a tenant's
/// state the call waits instead, within the update's time limit: how fast a host
/// is must not decide what a state becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// Calls a second, in the long run; at least 1.
    pub per_second: u32,
    /// Calls that may come at once after a pause; at least 1.
    pub burst: u32,
}

/// What is declared of a function that is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Declaration {
    /// Its name: the guest imports `host.<name>`.
    pub name: String,
    /// What it is for, in a sentence.
    pub purpose: String,
    /// The longest argument, in bytes.
    pub max_argument: usize,
    /// The longest result, in bytes.
    pub max_result: usize,
    /// What a call costs in fuel, besides what every call of a host function
    /// costs a tenant. It is taken before the call.
    pub fuel: u64,
    /// How often it may be called, if not as often as the fuel lasts.
    pub rate: Option<Rate>,
}

impl Declaration {
    /// A function of these bounds in bytes that costs nothing more, with no rate.
    pub fn new(name: impl Into<String>, max_argument: usize, max_result: usize) -> Self {
        Self {
            name: name.into(),
            purpose: String::new(),
            max_argument,
            max_result,
            fuel: 0,
            rate: None,
        }
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(mut self, purpose: impl Into<String>) -> Self {
        self.purpose = purpose.into();
        self
    }

    /// What a call costs in fuel.
    #[must_use]
    pub fn fuel(mut self, fuel: u64) -> Self {
        self.fuel = fuel;
        self
    }

    /// How often it may be called.
    #[must_use]
    pub fn rate(mut self, per_second: u32, burst: u32) -> Self {
        self.rate = Some(Rate { per_second, burst });
        self
    }

    /// What is wrong with it.
    pub(crate) fn wrong(&self) -> Option<String> {
        if self.name.is_empty() || self.name.len() > 200 {
            return Some("a name has 1 to 200 bytes".into());
        }
        if self.max_argument > MAX_HOST_BYTES || self.max_result > MAX_HOST_BYTES {
            return Some(format!("bounds may be at most {MAX_HOST_BYTES} bytes"));
        }
        if i64::try_from(self.fuel).is_err() {
            return Some(format!("it may cost at most {} fuel", i64::MAX));
        }
        match self.rate {
            Some(Rate { per_second: 0, .. } | Rate { burst: 0, .. }) => {
                Some("a rate of 0 would never let it be called: don't offer it".into())
            }
            _ => None,
        }
    }
}

impl fmt::Display for Declaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            purpose,
            max_argument,
            max_result,
            fuel,
            rate,
        } = self;
        write!(
            f,
            "host.{name}: at most {max_argument} bytes in, {max_result} out; {fuel} fuel; "
        )?;
        match rate {
            Some(Rate { per_second, burst }) => {
                write!(f, "{per_second} calls a second, {burst} at once")?;
            }
            None => f.write_str("any number of calls")?,
        }
        match purpose.as_str() {
            "" => Ok(()),
            purpose => write!(f, "; {purpose}"),
        }
    }
}

/// One offered function.
pub struct Offered {
    /// What is declared of it.
    pub declaration: Declaration,
    function: Box<HostFunction>,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered")
            .field("declaration", &self.declaration)
            .finish_non_exhaustive()
    }
}

impl Offered {
    pub(crate) fn new(declaration: Declaration, function: Box<HostFunction>) -> Self {
        Self {
            declaration,
            function,
        }
    }
}

/// Why a host function was not called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Throttled {
    /// So long until it may be.
    Wait(Duration),
    /// For the guest: a trap.
    Refused(String),
}

/// All functions of a host, in the order of their numbers on the wire.
#[derive(Debug, Default)]
pub(crate) struct Functions(pub(crate) Vec<Offered>);

impl Functions {
    pub(crate) fn names(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|offered| offered.declaration.name.clone())
            .collect()
    }

    /// What a worker is told of them.
    pub(crate) fn provided(&self) -> Vec<ProvidedFunction> {
        self.0
            .iter()
            .map(|Offered { declaration, .. }| ProvidedFunction {
                name: declaration.name.clone(),
                fuel: declaration.fuel,
            })
            .collect()
    }

    /// What a call of this function costs; 0 if there is none.
    pub(crate) fn fuel(&self, number: u16) -> u64 {
        self.0
            .get(usize::from(number))
            .map_or(0, |offered| offered.declaration.fuel)
    }

    /// A guest's count of its calls, from now on.
    pub(crate) fn throttle(&self) -> Throttle {
        Throttle {
            origin: Instant::now(),
            buckets: self
                .0
                .iter()
                .map(|offered| offered.declaration.rate.map(Bucket::new).map(Mutex::new))
                .collect(),
        }
    }

    /// Counts a call, unless there have been too many. `waits` where a refusal
    /// could change what a state becomes.
    pub(crate) fn admit(
        &self,
        throttle: &Throttle,
        number: u16,
        waits: bool,
    ) -> Result<(), Throttled> {
        match (throttle.take(number), waits) {
            (Ok(()), _) => Ok(()),
            (Err(left), true) => Err(Throttled::Wait(left)),
            (Err(_), false) => {
                let declared = self.0.get(usize::from(number)).map(|of| &of.declaration);
                let (name, rate) = declared.map_or(("", None), |of| (of.name.as_str(), of.rate));
                let Rate { per_second, burst } = rate.unwrap_or(Rate {
                    per_second: 0,
                    burst: 0,
                });
                Err(Throttled::Refused(format!(
                    "host.{name}: called more often than {per_second} times a second and {burst} at once"
                )))
            }
        }
    }

    /// Answers a host call of a tenant's, once it may be made, and says what it
    /// costs. `waits` as for [`admit`](Self::admit): nothing where the call's time
    /// ends first.
    pub(crate) fn answer(
        &self,
        throttle: &Throttle,
        call: &HostCall,
        waits: bool,
        deadline: &mut Deadline,
    ) -> Option<(Result<Vec<u8>, String>, u64)> {
        let fuel = self.fuel(call.function);
        loop {
            let left = deadline.left();
            match self.admit(throttle, call.function, waits) {
                Ok(()) => return Some((self.call(call.function, &call.argument), fuel)),
                Err(Throttled::Refused(words)) => return Some((Err(words), fuel)),
                Err(Throttled::Wait(time)) if time < left => std::thread::sleep(time),
                Err(Throttled::Wait(_)) => return None,
            }
        }
    }

    /// Answers a host call. The number and the argument come from a worker:
    /// whatever they are, the answer is bytes or a message.
    pub(crate) fn call(&self, number: u16, argument: &[u8]) -> Result<Vec<u8>, String> {
        let Some(Offered {
            declaration,
            function,
        }) = self.0.get(usize::from(number))
        else {
            return Err(format!("there is no host function number {number}"));
        };
        let name = &declaration.name;
        if argument.len() > declaration.max_argument {
            return Err(format!(
                "host.{name}: the argument has {} bytes; the limit is {}",
                argument.len(),
                declaration.max_argument
            ));
        }
        // A panic in the embedder's function is the guest's trap, not the
        // host's end.
        let result = catch_unwind(AssertUnwindSafe(|| function(argument)))
            .unwrap_or_else(|_| Err(format!("host.{name}: the function panicked")))?;
        if result.len() > declaration.max_result {
            return Err(format!(
                "host.{name}: the result has {} bytes; the limit is {}",
                result.len(),
                declaration.max_result
            ));
        }
        Ok(result)
    }
}

/// How often one guest has called each function.
#[derive(Debug)]
pub(crate) struct Throttle {
    origin: Instant,
    buckets: Vec<Option<Mutex<Bucket>>>,
}

impl Default for Throttle {
    /// Of no function.
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            buckets: Vec::new(),
        }
    }
}

impl Throttle {
    fn take(&self, number: u16) -> Result<(), Duration> {
        match self.buckets.get(usize::from(number)) {
            Some(Some(bucket)) => bucket
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(self.origin.elapsed()),
            // No rate, or no such function, which is told apart later.
            _ => Ok(()),
        }
    }
}

/// Calls of one function, counted as in the generic cell rate algorithm (ITU-T
/// I.371, annex A): one number instead of a list of times.
#[derive(Debug)]
struct Bucket {
    /// From one call to the next, in the long run.
    interval: Duration,
    /// How far ahead of that calls may be.
    ahead: Duration,
    /// When the next call would be due if calls came evenly.
    due: Duration,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        Self {
            interval,
            ahead: interval * (rate.burst.max(1) - 1),
            due: Duration::ZERO,
        }
    }

    /// Counts a call at this time, or says how long it has to wait.
    fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let from = self.due.saturating_sub(self.ahead);
        if now < from {
            return Err(from.saturating_sub(now));
        }
        self.due = self.due.max(now).saturating_add(self.interval);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(declaration: Declaration) -> Functions {
        Functions(vec![Offered::new(
            declaration,
            Box::new(|bytes| match bytes {
                b"boom" => panic!("boom"),
                _ => Ok(bytes.to_vec()),
            }),
        )])
    }

    #[test]
    fn bounds_hold_and_a_panic_is_a_message() {
        let functions = functions(Declaration::new("echo", 4, 3));
        assert_eq!(functions.call(0, b"abc"), Ok(b"abc".to_vec()));
        assert!(
            functions
                .call(0, b"abcde")
                .unwrap_err()
                .contains("argument has 5")
        );
        assert!(
            functions
                .call(0, b"abcd")
                .unwrap_err()
                .contains("result has 4")
        );
        assert!(functions.call(0, b"boom").unwrap_err().contains("panicked"));
        assert!(functions.call(9, b"").unwrap_err().contains("number 9"));
    }

    #[test]
    fn a_bucket_lets_a_burst_through_and_then_the_rate() {
        let millis = Duration::from_millis;
        let mut bucket = Bucket::new(Rate {
            per_second: 10,
            burst: 3,
        });
        let mut taken = Vec::new();
        // Every 10 ms for a second, after a pause.
        for at in (5000..6000).step_by(10) {
            if bucket.take(millis(at)).is_ok() {
                taken.push(at);
            }
        }
        // Three at once, and then one for every 100 ms since the first.
        assert_eq!(
            taken,
            [
                5000, 5010, 5020, 5100, 5200, 5300, 5400, 5500, 5600, 5700, 5800, 5900
            ]
        );
        // What it says of waiting is what it takes.
        let wait = bucket.take(millis(5990)).unwrap_err();
        assert_eq!(wait, millis(10));
        assert_eq!(bucket.take(millis(5999)), Err(millis(1)));
        assert_eq!(bucket.take(millis(5990) + wait), Ok(()));
    }

    #[test]
    fn too_many_calls_are_refused_or_have_to_wait() {
        let functions = functions(Declaration::new("echo", 4, 4).rate(1, 1));
        let throttle = functions.throttle();
        assert_eq!(functions.admit(&throttle, 0, false), Ok(()));
        let Err(Throttled::Refused(words)) = functions.admit(&throttle, 0, false) else {
            panic!("a second call at once")
        };
        assert_eq!(
            words,
            "host.echo: called more often than 1 times a second and 1 at once"
        );
        let Err(Throttled::Wait(left)) = functions.admit(&throttle, 0, true) else {
            panic!("a second call at once")
        };
        assert!(left <= Duration::from_secs(1));
        // Another guest's calls are its own; a number that is none's is told
        // apart by the call.
        assert_eq!(functions.admit(&functions.throttle(), 0, false), Ok(()));
        assert_eq!(functions.admit(&throttle, 7, false), Ok(()));
    }

    #[test]
    fn a_declaration_that_makes_no_sense_is_refused_in_words() {
        let good = Declaration::new("sign", 64, 64)
            .purpose("signs with the host's key")
            .fuel(5)
            .rate(10, 2);
        assert_eq!(good.wrong(), None);
        assert_eq!(
            good.to_string(),
            "host.sign: at most 64 bytes in, 64 out; 5 fuel; 10 calls a second, 2 at once; signs with the host's key"
        );
        for (bad, words) in [
            (Declaration::new("", 1, 1), "1 to 200"),
            (Declaration::new("a", MAX_HOST_BYTES + 1, 1), "at most"),
            (Declaration::new("a", 1, MAX_HOST_BYTES + 1), "at most"),
            (good.clone().fuel(u64::MAX), "fuel"),
            (good.clone().rate(0, 1), "rate of 0"),
            (good.clone().rate(1, 0), "rate of 0"),
        ] {
            let wrong = bad.wrong().unwrap();
            assert!(wrong.contains(words), "{bad:?}: {wrong}");
        }
    }
}
