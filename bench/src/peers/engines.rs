//! Engines that run the same module, in no box and in others'.

use std::path::PathBuf;
use std::process::Command;

use super::{Materials, Peer, bwrap_around, installed, runsc_around};

/// The same module under Node's WASI.
const NODE: &str = r#"
const { WASI } = require("node:wasi");
const wasi = new WASI({ version: "preview1" });
const module = new WebAssembly.Module(require("node:fs").readFileSync(process.argv[1]));
wasi.start(new WebAssembly.Instance(module, wasi.getImportObject()));
"#;

/// Wasmtime's own command, unsandboxed, its cache on.
pub(super) fn wasmtime(materials: &Materials) -> Peer {
    let command = installed("wasmtime").map(|wasmtime| {
        let mut command = Command::new(wasmtime);
        command
            .args(["run", "-C", "cache=y"])
            .arg(&materials.module);
        command
    });
    Peer::new(
        "peers/wasmtime",
        "wasmtime run of the same module, cached, in no sandbox",
        command,
    )
    .target(2.0)
}

/// The module compiled before, as a cache is nowhere to be found in a box.
fn precompiled(materials: &Materials) -> Result<(PathBuf, PathBuf), String> {
    let wasmtime = installed("wasmtime")?;
    let made = materials.path("hello.cwasm");
    if !made.exists() {
        let mut compile = Command::new(&wasmtime);
        compile
            .arg("compile")
            .arg(&materials.module)
            .arg("-o")
            .arg(&made);
        let output = compile.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!(
                "wasmtime compile: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
    }
    Ok((wasmtime, made))
}

/// A box around Wasmtime: what one would do without Lazaret.
pub(super) fn wasmtime_in_bwrap(materials: &Materials) -> Peer {
    let command = precompiled(materials).and_then(|(wasmtime, module)| {
        let libraries = ["/lib", "/lib64", "/usr/lib"].map(PathBuf::from);
        let mut files = vec![wasmtime.as_path(), module.as_path()];
        files.extend(
            libraries
                .iter()
                .map(PathBuf::as_path)
                .filter(|path| path.exists()),
        );
        let mut command = bwrap_around(&files)?;
        command
            .arg(&wasmtime)
            .args(["run", "--allow-precompiled"])
            .arg(&module);
        Ok(command)
    });
    Peer::new(
        "peers/wasmtime-bwrap",
        "bwrap --unshare-all around wasmtime run of the same module, compiled before",
        command,
    )
}

/// gVisor around Wasmtime.
pub(super) fn wasmtime_in_runsc(materials: &Materials) -> Peer {
    let command = precompiled(materials).and_then(|(wasmtime, module)| {
        let mut command = runsc_around()?;
        command
            .arg(wasmtime)
            .args(["run", "--allow-precompiled"])
            .arg(module);
        Ok(command)
    });
    Peer::new(
        "peers/wasmtime-runsc",
        "runsc do (ptrace) around wasmtime run of the same module, compiled before",
        command,
    )
}

/// Node with the same module.
pub(super) fn node(materials: &Materials) -> Peer {
    let command = installed("node").map(|node| {
        let mut command = Command::new(node);
        command
            .args(["--no-warnings", "-e", NODE])
            .arg(&materials.module);
        command
    });
    Peer::new(
        "peers/node",
        "node running the same module under node:wasi",
        command,
    )
    .no_target()
}
