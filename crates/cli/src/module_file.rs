//! Modules on the command line: a file, or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lazaret::MAX_MODULE;
use lazaret::wire::message::Purpose;

use crate::failure::Failure;

/// Whether a path stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads a module from `path`, or from standard input if that is `-`. No more
/// than a little over the limit is read: who asks for the size of what was read
/// learns that it is too large.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let fail = |source| Failure::ReadModule {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let most = MAX_MODULE as u64 + 1;
    if is_stdin(path) {
        io::stdin()
            .lock()
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(fail)?;
    } else {
        File::open(path)
            .map_err(fail)?
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(fail)?;
    }
    Ok(bytes)
}

/// A canister that can be installed as far as its outside tells: its binary,
/// and what it says of its interface.
pub(crate) fn read_tenant(path: &Path) -> Result<(Vec<u8>, crate::interface::Sections), Failure> {
    let fail = |source| Failure::Module {
        path: path.to_owned(),
        source,
    };
    let wasm = lazaret::binary(read(path)?).map_err(fail)?;
    let info = lazaret::inspect(&wasm, Purpose::Tenant, &[]).map_err(fail)?;
    let section = |name: &str| info.icp_section(name).map(<[u8]>::to_vec);
    let sections = crate::interface::Sections {
        service: section("candid:service"),
        init: section("candid:args"),
    };
    Ok((wasm, sections))
}

/// The name of a program for itself: the last part of its path.
pub(crate) fn program_name(path: &Path) -> String {
    match path.file_name() {
        Some(name) if !is_stdin(path) => name.to_string_lossy().into_owned(),
        _ => "program".into(),
    }
}

/// A path from the command line, for messages.
pub(crate) fn shown(path: &Path) -> String {
    if is_stdin(path) {
        "standard input".into()
    } else {
        path.display().to_string()
    }
}
