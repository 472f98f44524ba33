//! The executable of launcher and workers, as bytes: it is built from
//! `crates/worker` with settings of its own, by this crate's build script, and
//! carried along in whatever embeds Lazaret.
//!
//! What it saves, of a worker that is the embedding program itself, started
//! again: the dynamic linker, the relocation of everything that only the host
//! uses (each page of it private memory), and a compiler in the address space of
//! code that nobody trusts.
//!
//! `LAZARET_WORKER_EXECUTABLE` decides, when this crate is built:
//!
//! | value | what is carried along |
//! |---|---|
//! | not set | what is built from `crates/worker`, where that is at hand |
//! | `none` | nothing: workers are the embedding program |
//! | a path | that file |
#![deny(missing_docs)]

/// An executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// The whole file, with the names of its functions.
    pub file: &'static [u8],
    /// As much of it from its begin as is loaded when it is executed: all that
    /// has to be put into memory for that.
    pub loaded: &'static [u8],
    /// The BLAKE3 hash of that.
    pub hash: [u8; 32],
}

/// The executable; nothing if this crate was built without one. It is at one address in
/// a process, and can be known by that.
pub static IMAGE: Option<Image> = image();

#[cfg(carried_along)]
const fn image() -> Option<Image> {
    let file = include_bytes!(concat!(env!("OUT_DIR"), "/lazaret-worker"));
    let loaded = include!(concat!(env!("OUT_DIR"), "/loaded.rs"));
    Some(Image {
        file,
        loaded: file.split_at(loaded).0,
        hash: include!(concat!(env!("OUT_DIR"), "/hash.rs")),
    })
}

#[cfg(not(carried_along))]
const fn image() -> Option<Image> {
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_an_executable_and_its_names_are_not_loaded() {
        if let Some(image) = super::IMAGE {
            assert!(image.file.starts_with(b"\x7fELF"));
            assert!(image.file.starts_with(image.loaded));
            assert!(image.loaded.len() < image.file.len());
        }
    }
}
