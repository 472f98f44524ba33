//! Copying pages for the host, where it may not do it itself.

use lazaret_wire::message::{Region as Kind, Space, Transfer, TransferDirection};
use lazaret_wire::{Shared, layout};

use super::TenantMemory;
use super::region::Region;
use crate::abort::{self, Reason};

const PAGE: u64 = layout::PAGE as u64;

impl TenantMemory {
    /// Copies the pages of `transfer` to or from the transfer area. Pages that
    /// don't exist end the process: the host is confused.
    pub fn transfer(&self, transfer: &Transfer, shared: &Shared) {
        let pages = transfer.runs.iter().flat_map(|run| {
            (0..u64::from(run.pages)).map(|page| (run.region, run.first_page.checked_add(page)))
        });
        // A page at a time, which stays in the processor's first cache.
        let mut bytes = Vec::with_capacity(layout::PAGE);
        for (index, (kind, page)) in pages.enumerate() {
            let at = page.and_then(|page| page.checked_mul(PAGE));
            let region = self.space(transfer.space, kind);
            let (Some(region), Some(at), true) = (region, at, index < layout::TRANSFER_PAGES)
            else {
                confused(kind, page);
            };
            let place = layout::TRANSFER + index * layout::PAGE;
            let copied = match transfer.direction {
                TransferDirection::Out => {
                    bytes.clear();
                    let read = region.read(at, PAGE, &mut bytes);
                    if read {
                        shared.copy_in(place, &bytes);
                    }
                    read
                }
                TransferDirection::In => {
                    shared.copy_out(place, layout::PAGE, &mut bytes);
                    region.write_unnoted(at, &bytes)
                }
            };
            if !copied {
                confused(kind, page);
            }
        }
    }

    fn space(&self, space: Space, kind: Kind) -> Option<&Region> {
        match (space, kind) {
            (Space::Memory, Kind::Heap) => Some(self.heap()),
            (Space::Memory, Kind::Stable) => Some(self.stable().region()),
            (Space::Cards, kind) => {
                let [heap, stable] = self.cards()?;
                Some(match kind {
                    Kind::Heap => heap.region(),
                    Kind::Stable => stable.region(),
                })
            }
        }
    }
}

fn confused(kind: Kind, page: Option<u64>) -> ! {
    abort::now(
        Reason::Wire,
        &format!("a transfer of page {page:?} of {kind:?}, which isn't there"),
    )
}
