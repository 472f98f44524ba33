//! Limits underneath all others: data, descriptors, files, locked memory,
//! processes, core dumps. The launcher sets them before exec.
//!
//! Memory is limited by RLIMIT_DATA, which counts private writable mappings
//! (kernel: `may_expand_vm`, mm/mmap.c). RLIMIT_AS, which also counts the
//! reservations of address space that make bounds checks free, is generous: it
//! bounds the page tables that a worker could make the kernel build with
//! mappings that it only reads.

use super::read;

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
