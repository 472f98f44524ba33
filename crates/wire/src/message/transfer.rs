//! Pages that the worker copies, where the host may not reach into another
//! process's memory (Yama, the seccomp filter of a container).
//!
//! The contents lie one after another in the transfer area, in the order of
//! the runs. More pages than fit take several rounds.

use super::byte_enum;
use super::setup::Region;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use crate::layout::TRANSFER_PAGES;

byte_enum! {
    /// What the pages are of.
    Space, "space" {
        /// The tenant's memories.
        Memory = 0,
        /// Their cards, a byte for each page of them.
        Cards = 1,
    }
}

byte_enum! {
    /// Which way pages go.
    TransferDirection, "direction" {
        /// From the memory into the transfer area.
        Out = 0,
        /// From the transfer area into the memory. Not noted as written.
        In = 1,
    }
}

/// Pages that lie one after another in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferRun {
    /// Which memory, or whose cards.
    pub region: Region,
    /// The first page (address / 4096).
    pub first_page: u64,
    /// How many pages.
    pub pages: u32,
}

/// Copies pages between the worker's memories and the transfer area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// What the pages are of.
    pub space: Space,
    /// Which way they go.
    pub direction: TransferDirection,
    /// Which they are: at most [`TRANSFER_PAGES`] in all.
    pub runs: Vec<TransferRun>,
}

impl Message for Transfer {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.space.encode(to)?;
        self.direction.encode(to)?;
        to.list("transfer runs", &self.runs, TRANSFER_PAGES, |to, run| {
            run.region.encode(to)?;
            to.u64(run.first_page).u32(run.pages);
            Ok(())
        })
        .map(drop)
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            space: Space::decode(from)?,
            direction: TransferDirection::decode(from)?,
            runs: from.list("transfer runs", TRANSFER_PAGES, |from| {
                Ok(TransferRun {
                    region: Region::decode(from)?,
                    first_page: from.u64("first page")?,
                    pages: from.u32("pages")?,
                })
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_comes_back_as_it_was_sent_and_fits_its_bound() {
        let run = TransferRun {
            region: Region::Stable,
            first_page: u64::MAX,
            pages: 1,
        };
        for direction in [TransferDirection::Out, TransferDirection::In] {
            let sent = Transfer {
                space: Space::Cards,
                direction,
                runs: vec![run; TRANSFER_PAGES],
            };
            let mut bytes = Vec::new();
            sent.to_bytes(&mut bytes).unwrap();
            assert_eq!(Transfer::from_bytes(&bytes).unwrap(), sent);
            let listed = crate::table::TABLE
                .iter()
                .find(|crossing| crossing.name == "Transfer")
                .unwrap();
            assert_eq!(bytes.len() as u64 + 1, listed.bound, "with its tag");
            bytes.pop();
            assert!(Transfer::from_bytes(&bytes).is_err());
        }
    }
}
