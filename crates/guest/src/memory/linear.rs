//! The heap, and its cards if it has any, as wasmtime sees them.
//!
//! The engine is made before there is a tenant, and its memory creator belongs
//! to the engine. So the creator takes the memories from where the canister put
//! them just before it instantiates: [`provide`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use super::TenantMemory;
use super::region::Region;

thread_local! {
    static NEXT: RefCell<VecDeque<Arc<Region>>> = const { RefCell::new(VecDeque::new()) };
}

/// Gives the next instance that this thread makes its memories: the heap, then
/// its cards.
pub fn provide(memory: &TenantMemory) {
    let cards = memory.cards().map(|[heap, _]| Arc::clone(heap.region()));
    NEXT.with(|next| {
        let mut next = next.borrow_mut();
        next.clear();
        next.push_back(Arc::clone(memory.heap()));
        next.extend(cards);
    });
}

/// Hands out what was given to [`provide`]. It keeps its contents and its size.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeapCreator;

// SAFETY: what is handed out is a region with at least the reservation and the
// guard that were asked for (checked), whose base never moves; beyond its size
// nothing can be accessed. It isn't zero-filled but holds the tenant's state,
// which is what its size says it is: instantiation writes nothing, as tenants'
// modules have only passive data segments. Cards are zeros at first, and later
// what was written since the host last looked, which only costs it a look.
unsafe impl MemoryCreator for HeapCreator {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let heap = NEXT
            .with(|next| next.borrow_mut().pop_front())
            .ok_or("a tenant's module has one memory, and one of cards if it is tracked by them")?;
        if reserved.is_some_and(|reserved| reserved > heap.capacity()) || guard > heap.guard() {
            return Err(format!(
                "{} bytes of address space are too few",
                heap.capacity()
            ));
        }
        if heap.size() < minimum as u64 {
            return Err(format!(
                "the heap has {} bytes, fewer than the module's minimum of {minimum}",
                heap.size()
            ));
        }
        Ok(Box::new(Heap(heap)))
    }
}

struct Heap(Arc<Region>);

// SAFETY: the size only grows while an instance exists, pages below it can be
// read, and written by way of the fault handler, and the base is that of a
// mapping that lives as long as self.
unsafe impl LinearMemory for Heap {
    fn byte_size(&self) -> usize {
        self.0.size() as usize
    }

    fn byte_capacity(&self) -> usize {
        self.0.capacity()
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        Ok(self.0.grow(new_size as u64)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base()
    }
}
