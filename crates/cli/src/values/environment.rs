//! Environment variables for a program: `K` or `K=V`.

use std::str::FromStr;

use thiserror::Error;

/// A variable and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Text that names no variable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum VariableError {
    /// There is nothing before the `=`.
    #[error("`{0}` has no name; write NAME=VALUE, or NAME to hand on the value that it has here")]
    NoName(String),
    /// It is to be handed on, but isn't set.
    #[error("`{0}` is not set here, so there is no value to hand on; write {0}=VALUE")]
    NotSet(String),
    /// It is set to what a program can't be given.
    #[error("the value of `{0}` is not UTF-8, which WASI asks for; write {0}=VALUE")]
    NotText(String),
}

impl FromStr for Variable {
    type Err = VariableError;

    fn from_str(text: &str) -> Result<Self, VariableError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(VariableError::NoName(text.to_owned()));
        }
        let value = match value {
            Some(value) => value.to_owned(),
            None => std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => VariableError::NotSet(name.to_owned()),
                std::env::VarError::NotUnicode(_) => VariableError::NotText(name.to_owned()),
            })?,
        };
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_given_or_handed_on() {
        let given = |name: &str, value: &str| {
            Ok(Variable {
                name: name.into(),
                value: value.into(),
            })
        };
        assert_eq!("A=b=c".parse(), given("A", "b=c"));
        assert_eq!("A=".parse(), given("A", ""));
        assert_eq!(
            "PATH".parse(),
            given("PATH", &std::env::var("PATH").unwrap())
        );
        assert_eq!(
            "LAZARET_SURELY_NOT_SET".parse::<Variable>(),
            Err(VariableError::NotSet("LAZARET_SURELY_NOT_SET".into()))
        );
        for text in ["", "=x"] {
            assert_eq!(
                text.parse::<Variable>(),
                Err(VariableError::NoName(text.into()))
            );
        }
    }
}
