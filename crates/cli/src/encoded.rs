//! Arguments for tenants: as Candid text, as hex, or from a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::Args;
use lazaret::wire::layout::MAX_ARGUMENT;
use thiserror::Error;

use crate::failure::Failure;
use crate::interface::{self, Sections, Target};

/// An argument that is given as bytes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bytes {
    /// The argument as bytes in hex
    #[arg(long, value_name = "HEX", conflicts_with = "arg_file")]
    arg_hex: Option<String>,
    /// The argument as the bytes of a file
    #[arg(long, value_name = "FILE")]
    arg_file: Option<PathBuf>,
}

/// Why an argument can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ArgumentError {
    /// It is not hex.
    #[error("--arg-hex: {reason}; write two hex digits a byte, such as 4449444c0000")]
    Hex {
        /// What is wrong.
        reason: String,
    },
    /// The file can't be read.
    #[error("--arg-file {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too large.
    #[error("the argument has {size} bytes; the limit is {MAX_ARGUMENT}")]
    TooLarge {
        /// Its size; at least this for what is not a regular file.
        size: u64,
    },
}

impl Bytes {
    /// The argument, as it was given or from `candid` text: `()` if there is
    /// neither.
    pub(crate) fn or_candid(
        &self,
        candid: Option<&str>,
        sections: &Sections,
        target: &Target,
    ) -> Result<Vec<u8>, Failure> {
        let bytes = match (&self.arg_hex, &self.arg_file) {
            (Some(hex), _) => decode_hex(hex)?,
            (None, Some(path)) => read(path)?,
            (None, None) => interface::encode(sections, target, candid.unwrap_or("()"))?,
        };
        match bytes.len() {
            size if size > MAX_ARGUMENT => {
                Err(ArgumentError::TooLarge { size: size as u64 }.into())
            }
            _ => Ok(bytes),
        }
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, ArgumentError> {
    let fail = |source| ArgumentError::File {
        path: path.clone(),
        source,
    };
    let file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let mut bytes = Vec::new();
    file.take(MAX_ARGUMENT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    match bytes.len() > MAX_ARGUMENT {
        true => Err(ArgumentError::TooLarge {
            size: size.max(bytes.len() as u64),
        }),
        false => Ok(bytes),
    }
}

fn decode_hex(text: &str) -> Result<Vec<u8>, ArgumentError> {
    let fail = |reason: String| ArgumentError::Hex { reason };
    let digits: Vec<u8> = text
        .trim()
        .trim_start_matches("0x")
        .chars()
        .map(|c| {
            c.to_digit(16)
                .map(|digit| digit as u8)
                .ok_or_else(|| fail(format!("`{}` is not a hex digit", c.escape_default())))
        })
        .collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(fail(format!("{} digits are not whole bytes", digits.len())));
    }
    Ok(digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect())
}

/// Bytes in hex.
pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways_and_nonsense_is_named() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode_hex(&encode_hex(&bytes)).unwrap(), bytes);
        assert_eq!(decode_hex("0x4449 ".trim()).unwrap(), b"DI");
        assert!(decode_hex("0g").unwrap_err().to_string().contains("`g`"));
        assert!(
            decode_hex("123")
                .unwrap_err()
                .to_string()
                .contains("3 digits")
        );
        assert_eq!(decode_hex("").unwrap(), b"");
    }
}
