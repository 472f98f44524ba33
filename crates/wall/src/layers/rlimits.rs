//! Limits underneath all others: data, descriptors, files, locked memory,
//! processes, core dumps. The launcher sets them before exec.
//!
//! Memory is limited by RLIMIT_DATA, which counts private writable mappings
//! (kernel: `may_expand_vm`, mm/mmap.c). RLIMIT_AS, which also counts the
//! reservations of address space that make bounds checks free, is generous: it
//! bounds the page tables that a worker could make the kernel build with
//! mappings that it only reads.

use rustix::process::{Pid, Resource, Rlimit};

use super::read;
use crate::layer::{Layer, LayerError};

/// What a worker may have open while it is set up, if its host may have as many.
/// A descriptor can't be handed on while more of its user's are under way than
/// its sender may have open (`too_many_unix_fds`, kernel: net/core/scm.c), and
/// all workers of an ordinary user are that user's.
pub const SETUP_DESCRIPTORS: u64 = 4096;

/// The limit of descriptors with which a worker is born that may have `descriptors`
/// in the end.
pub fn at_birth(descriptors: u64) -> u64 {
    let own = rustix::process::getrlimit(Resource::Nofile).maximum;
    descriptors.max(own.unwrap_or(u64::MAX).min(SETUP_DESCRIPTORS))
}

/// Lowers the limit of descriptors of a worker, from outside.
///
/// # Errors
/// If the worker has gone, or the kernel refuses it.
pub fn lower_descriptors(pid: i32, descriptors: u64) -> Result<(), LayerError> {
    let fail = |source: std::io::Error| LayerError {
        layer: Layer::Rlimits,
        step: "prlimit(RLIMIT_NOFILE) of the worker",
        source,
    };
    let limit = Rlimit {
        current: Some(descriptors),
        maximum: Some(descriptors),
    };
    let pid = Pid::from_raw(pid).ok_or_else(|| fail(std::io::ErrorKind::NotFound.into()))?;
    rustix::process::prlimit(Some(pid), Resource::Nofile, limit)
        .map(drop)
        .map_err(|errno| fail(errno.into()))
}

/// From outside: no core dump, a finite number of descriptors, finite data.
pub fn verify(pid: i32) -> Result<String, String> {
    let bytes = read(pid, "limits")?;
    let text = String::from_utf8_lossy(&bytes);
    let hard = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().nth(1).map(str::to_owned))
            .ok_or_else(|| format!("/proc/{pid}/limits has no {name} line"))
    };
    if hard("Max core file size")? != "0" {
        return Err("core dumps are not off".into());
    }
    let (data, space, files) = (
        hard("Max data size")?,
        hard("Max address space")?,
        hard("Max open files")?,
    );
    if [&data, &space, &files]
        .into_iter()
        .any(|limit| limit == "unlimited")
    {
        return Err(format!(
            "data {data}, address space {space}, open files {files}: not limited"
        ));
    }
    Ok(format!(
        "core 0, data {data}, address space {space}, open files {files}"
    ))
}
