//! Functions that an embedder offers to guests.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A function that an embedder offers: bytes in, bytes out, or a message with
/// which the guest traps.
pub type HostFunction = dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync;

/// One offered function. It appears in `Host::audit`.
pub struct Offered {
    /// Its name: the guest imports `host.<name>`.
    pub name: String,
    /// The longest argument, in bytes.
    pub max_argument: usize,
    /// The longest result, in bytes.
    pub max_result: usize,
    function: Box<HostFunction>,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered")
            .field("name", &self.name)
            .field("max_argument", &self.max_argument)
            .field("max_result", &self.max_result)
            .finish_non_exhaustive()
    }
}

impl Offered {
    pub(crate) fn new(
        name: String,
        max_argument: usize,
        max_result: usize,
        function: Box<HostFunction>,
    ) -> Self {
        Self {
            name,
            max_argument,
            max_result,
            function,
        }
    }
}

/// All functions of a host, in the order of their numbers on the wire.
#[derive(Debug, Default)]
pub(crate) struct Functions(pub(crate) Vec<Offered>);

impl Functions {
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|offered| offered.name.clone()).collect()
    }

    /// Answers a host call. The number and the argument come from a worker:
    /// whatever they are, the answer is bytes or a message.
    pub(crate) fn call(&self, number: u16, argument: &[u8]) -> Result<Vec<u8>, String> {
        let Some(offered) = self.0.get(usize::from(number)) else {
            return Err(format!("there is no host function number {number}"));
        };
        if argument.len() > offered.max_argument {
            return Err(format!(
                "host.{}: the argument has {} bytes; the limit is {}",
                offered.name,
                argument.len(),
                offered.max_argument
            ));
        }
        // A panic in the embedder's function is the guest's trap, not the
        // host's end.
        let result = catch_unwind(AssertUnwindSafe(|| (offered.function)(argument)))
            .unwrap_or_else(|_| Err(format!("host.{}: the function panicked", offered.name)))?;
        if result.len() > offered.max_result {
            return Err(format!(
                "host.{}: the result has {} bytes; the limit is {}",
                offered.name,
                result.len(),
                offered.max_result
            ));
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_a_panic_is_a_message() {
        let functions = Functions(vec![Offered::new(
            "echo".into(),
            4,
            3,
            Box::new(|bytes| match bytes {
                b"boom" => panic!("boom"),
                _ => Ok(bytes.to_vec()),
            }),
        )]);
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
}
