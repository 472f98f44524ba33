//! Names of functions by where they are.

/// The most functions of one file.
const FUNCTIONS: usize = 2 << 20;
/// The most bytes of all names of one file.
const TEXT: usize = 64 << 20;
/// The most bytes of one name.
const NAME: usize = 512;

#[derive(Debug, Clone, Copy)]
struct Function {
    start: u64,
    size: u64,
    /// Where its name is in the text, and how long it is.
    name: (u32, u16),
}

/// Functions, sorted by where they begin. All names are one text: there are a
/// hundred thousand in an executable.
#[derive(Debug, Default)]
pub(super) struct Names {
    functions: Vec<Function>,
    text: String,
}

impl Names {
    /// Takes one. Those that are too many are left out.
    pub(super) fn add(&mut self, start: u64, size: u64, name: &str) {
        let name = match name.char_indices().find(|(at, _)| *at >= NAME) {
            Some((at, _)) => name.get(..at).unwrap_or_default(),
            None => name,
        };
        let (Ok(at), Ok(length)) = (u32::try_from(self.text.len()), u16::try_from(name.len()))
        else {
            return;
        };
        if self.functions.len() < FUNCTIONS && self.text.len() < TEXT {
            self.text.push_str(name);
            self.functions.push(Function {
                start,
                size,
                name: (at, length),
            });
        }
    }

    /// To be called once, when all are there.
    pub(super) fn sort(&mut self) {
        self.functions.sort_by_key(|function| function.start);
    }

    /// The function that `at` is in.
    pub(super) fn find(&self, at: u64) -> Option<&str> {
        let after = self
            .functions
            .partition_point(|function| function.start <= at);
        // Several may begin at one place; some of them without a size.
        let function = self
            .functions
            .get(..after)?
            .iter()
            .rev()
            .take(8)
            .find(|function| function.size == 0 || at - function.start < function.size)?;
        let (from, length) = function.name;
        let from = from as usize;
        self.text.get(from..from.checked_add(length.into())?)
    }
}

/// A name for people: demangled, and with nothing that a terminal would obey,
/// as names of guest functions are the tenant's.
pub(super) fn readable(name: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(name));
    name.chars()
        .take(NAME)
        .map(|letter| match letter.is_control() {
            true => char::REPLACEMENT_CHARACTER,
            false => letter,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_around_an_address_is_found() {
        let mut names = Names::default();
        names.add(100, 10, "b");
        names.add(10, 0, "a");
        names.add(100, 0, "label");
        names.add(200, 5, &"x".repeat(2 * NAME));
        names.sort();
        assert_eq!(names.find(9), None);
        assert_eq!(names.find(10), Some("a"));
        assert_eq!(names.find(99), Some("a"));
        assert!(matches!(names.find(105), Some("b" | "label")));
        assert_eq!(names.find(202).map(str::len), Some(NAME));
        assert_eq!(names.find(205).map(str::len), Some("label".len()));
    }

    #[test]
    fn names_are_made_readable_and_harmless() {
        assert_eq!(
            readable("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE"),
            "core::fmt::Formatter::pad"
        );
        assert_eq!(
            readable("wasm[0]::function[1]::\x1b[2J"),
            "wasm[0]::function[1]::\u{fffd}[2J"
        );
    }
}
