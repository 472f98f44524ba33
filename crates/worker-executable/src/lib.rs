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

/// The executable; nothing if this crate was built without one.
pub const IMAGE: Option<&[u8]> = image();

#[cfg(carried_along)]
const fn image() -> Option<&'static [u8]> {
    Some(include_bytes!(concat!(env!("OUT_DIR"), "/lazaret-worker")))
}

#[cfg(not(carried_along))]
const fn image() -> Option<&'static [u8]> {
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_an_executable() {
        if let Some(image) = super::IMAGE {
            assert!(image.starts_with(b"\x7fELF"));
        }
    }
}
