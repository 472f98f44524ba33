//! Builds `crates/worker` by another cargo: with other features of the same
//! dependencies (the engine without its compiler), which one build can't have
//! both of, and with other settings of the linker.

use std::env::{var, var_os};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSegment};

/// Says what is carried along; see the crate's documentation.
const CHOICE: &str = "LAZARET_WORKER_EXECUTABLE";

/// An executable that needs no dynamic linker, at an address of the kernel's choice.
const STATIC: &str = "-Ctarget-feature=+crt-static";
/// Its relocations as bits, in some eightieth of the room.
const PACKED: &str = "-Clink-arg=-Wl,-z,pack-relative-relocs";

/// Random numbers by the system call: the crate looks for the C library's function at
/// run time otherwise, which a static executable hasn't, and then for a file.
const RANDOM: &str = "--cfg=getrandom_backend=\"linux_getrandom\"";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rustc-check-cfg=cfg(carried_along)");
    println!("cargo::rerun-if-env-changed={CHOICE}");
    let out = PathBuf::from(var("OUT_DIR")?);
    let this = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let crates = this.parent().ok_or("this crate is in no directory")?;
    let file = match var_os(CHOICE) {
        Some(choice) if choice == "none" => return Ok(()),
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            PathBuf::from(path)
        }
        None if !crates.join("worker/Cargo.toml").exists() || var_os("DOCS_RS").is_some() => {
            return Ok(());
        }
        None => build(crates, &out)?,
    };
    let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let loaded = loaded(&bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    std::fs::write(out.join("lazaret-worker"), &bytes)?;
    std::fs::write(out.join("loaded.rs"), loaded.to_string())?;
    let part = bytes.get(..usize::try_from(loaded)?);
    let hash = blake3::hash(part.ok_or("a segment is not in the file")?);
    std::fs::write(out.join("hash.rs"), format!("{:?}", hash.as_bytes()))?;
    println!("cargo::rustc-cfg=carried_along");
    Ok(())
}

/// Bytes from the begin of an executable that the kernel looks at: up to the end of
/// its last segment. What follows is for debuggers.
fn loaded(bytes: &[u8]) -> Result<u64, Box<dyn Error>> {
    let file = object::File::parse(bytes)?;
    let ends = file.segments().map(|segment| {
        let (at, length) = segment.file_range();
        at + length
    });
    ends.max().ok_or_else(|| "it loads nothing".into())
}

fn build(crates: &Path, out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    // From this crate's directory, so that two checkouts that share a target directory
    // don't take each other's for theirs.
    for part in ["guest", "instrument", "wall", "wire", "worker"] {
        println!("cargo::rerun-if-changed=../{part}/src");
        println!("cargo::rerun-if-changed=../{part}/Cargo.toml");
    }
    for file in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed=../../{file}");
    }
    let target = var("TARGET")?;
    // Beside the directories of the profiles, so that all of them share it.
    let directory = out
        .ancestors()
        .find(|path| path.ends_with("build"))
        .and_then(|path| path.ancestors().nth(2))
        .unwrap_or(out)
        .join("lazaret-worker");
    let mut cargo = Command::new(var("CARGO")?);
    cargo
        .args(["build", "--profile", "worker", "--locked"])
        .arg("--manifest-path")
        .arg(crates.join("worker/Cargo.toml"))
        .arg("--target")
        .arg(&target)
        .arg("--target-dir")
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&target, out)?.join("\x1f"));
    // What the outer cargo says to this crate, or clippy through it.
    for name in [
        "RUSTC_WORKSPACE_WRAPPER",
        "CLIPPY_ARGS",
        "RUSTFLAGS",
        "CARGO_TARGET_DIR",
    ] {
        cargo.env_remove(name);
    }
    let done = cargo.output()?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        return Err(format!(
            "building the worker's executable failed ({CHOICE}=none does without one):\n{text}"
        )
        .into());
    }
    Ok(directory.join(target).join("worker/lazaret-worker"))
}

/// The compiler's flags that make an executable which runs here: a static C library
/// may be missing, or one too old for packed relocations (glibc before 2.36).
fn flags(target: &str, out: &Path) -> Result<Vec<&'static str>, Box<dyn Error>> {
    let source = out.join("probe.rs");
    std::fs::write(
        &source,
        "fn main() { std::hint::black_box([\"a\", \"b\"]); }",
    )?;
    let probe = out.join("probe");
    for flags in [&[RANDOM, STATIC, PACKED][..], &[RANDOM, STATIC], &[RANDOM]] {
        let built = Command::new(var("RUSTC")?)
            .args(["--edition", "2024", "--target", target, "-o"])
            .arg(&probe)
            .args(flags)
            .arg(&source)
            .output()?
            .status
            .success();
        let runs = || {
            Command::new(&probe)
                .status()
                .is_ok_and(|status| status.success())
        };
        if built && (var("HOST")? != target || runs()) {
            return Ok(flags.to_vec());
        }
    }
    Err(format!("no program can be built for {target}").into())
}
