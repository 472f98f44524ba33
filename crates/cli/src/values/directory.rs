//! Directories for a program: `HOST[::GUEST][:ro]`.

use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// A directory of the host's under a path of the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Its path on the host.
    pub host: PathBuf,
    /// The path that the guest opens; the host's as it was given, if not said.
    pub guest: String,
    /// Whether the guest may write in it.
    pub writable: bool,
}

/// Text that names no directory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` names no directory: {reason}; write HOST, HOST:ro, HOST::GUEST or HOST::GUEST:ro"
)]
pub(crate) struct DirectoryError {
    text: String,
    reason: &'static str,
}

impl FromStr for Directory {
    type Err = DirectoryError;

    fn from_str(text: &str) -> Result<Self, DirectoryError> {
        let fail = |reason| DirectoryError {
            text: text.to_owned(),
            reason,
        };
        let (paths, writable) = match text.strip_suffix(":ro") {
            Some(paths) => (paths, false),
            None => (text, true),
        };
        let (host, guest) = paths.split_once("::").unwrap_or((paths, paths));
        match (host, guest) {
            ("", _) => Err(fail("the path on the host is empty")),
            (_, "") => Err(fail("the guest's path is empty")),
            (_, guest) if guest.contains("::") => Err(fail("`::` is in it twice")),
            (host, guest) => Ok(Self {
                host: host.into(),
                guest: guest.to_owned(),
                writable,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms() {
        let directory = |host: &str, guest: &str, writable| {
            Ok(Directory {
                host: host.into(),
                guest: guest.into(),
                writable,
            })
        };
        assert_eq!("data".parse(), directory("data", "data", true));
        assert_eq!("./data:ro".parse(), directory("./data", "./data", false));
        assert_eq!("/srv/x::/data".parse(), directory("/srv/x", "/data", true));
        assert_eq!(
            "/srv/x::/data:ro".parse(),
            directory("/srv/x", "/data", false)
        );
        assert_eq!("/srv/a:b".parse(), directory("/srv/a:b", "/srv/a:b", true));
    }

    #[test]
    fn what_names_none_is_refused() {
        for text in ["", ":ro", "::/data", "/srv::", "/srv:::ro", "a::b::c"] {
            let error = text.parse::<Directory>().unwrap_err().to_string();
            assert!(error.contains("HOST::GUEST"), "{error}");
        }
    }
}
