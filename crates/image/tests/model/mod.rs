//! An image as it should be: plain maps, one a version.
#![allow(dead_code)] // Each test binary uses a part.

use std::collections::BTreeMap;
use std::io;

use lazaret_image::{
    Image, PAGE_SIZE, PageId, PageSource, ReadAt, Region, Sizes, Storage, Verify, View,
};

use crate::fault_storage::Numbers;

/// Pages that the tests write lie below this number in either region.
pub const PAGES: u64 = 160;

/// The content of a page, from a number; 0 gives zeros.
pub fn fill(content: u64, page: &mut [u8]) {
    let mut numbers = Numbers(content);
    for word in page.chunks_exact_mut(8) {
        let value = if content == 0 { 0 } else { numbers.next() };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

#[derive(Clone, Default, Debug, PartialEq)]
pub struct State {
    pub sizes: Sizes,
    pub meta: Vec<u8>,
    pub pages: BTreeMap<PageId, u64>,
}

impl State {
    /// The state after a commit of `pages` with those contents.
    pub fn after(&self, pages: &[(PageId, u64)], sizes: Sizes, meta: &[u8]) -> State {
        let mut next = State {
            sizes,
            meta: meta.to_vec(),
            pages: self.pages.clone(),
        };
        next.pages.extend(pages.iter().copied());
        next.pages
            .retain(|page, content| *content != 0 && sizes.contain(*page));
        next
    }

    /// Asserts that the image holds exactly this, page for page, by reading and by plan.
    pub fn check<S: Storage>(&self, image: &Image<S>, context: &str) {
        assert_eq!(image.sizes(), self.sizes, "{context}");
        assert_eq!(image.meta(), self.meta, "{context}");
        assert_eq!(image.view().version(), image.version(), "{context}");
        self.check_view(&image.view(), context);
    }

    /// The same of a view.
    pub fn check_view<F: ReadAt>(&self, view: &View<F>, context: &str) {
        assert_eq!(view.sizes(), self.sizes, "{context}");
        assert_eq!(view.meta(), self.meta, "{context}");
        let ids: Vec<PageId> = Region::ALL
            .iter()
            .flat_map(|region| (0..PAGES + 2).filter_map(|page| PageId::new(*region, page)))
            .collect();
        let mut bytes = vec![0xee; ids.len() * PAGE_SIZE];
        view.read_pages(&ids, &mut bytes, Verify::Yes)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        let mut expected = [0; PAGE_SIZE];
        for (id, bytes) in ids.iter().zip(bytes.chunks_exact(PAGE_SIZE)) {
            fill(self.pages.get(id).copied().unwrap_or(0), &mut expected);
            assert!(bytes == expected, "{context}: {id}");
        }
        let plan = view.plan();
        let planned: Vec<PageId> = plan
            .runs
            .iter()
            .flat_map(|run| {
                (run.first_page..run.first_page + run.pages)
                    .filter_map(|page| PageId::new(run.region, page))
            })
            .collect();
        assert!(planned.is_sorted_by(|a, b| a < b), "{context}: {planned:?}");
        assert!(view.pages().eq(planned.iter().copied()), "{context}");
        for page in self.pages.keys() {
            assert!(
                planned.binary_search(page).is_ok(),
                "{context}: {page} isn't planned"
            );
        }
        assert!(
            planned.iter().all(|page| self.sizes.contain(*page)),
            "{context}"
        );
    }
}

/// Gives pages their contents; fails at the `fail_at`th page.
pub struct Contents<'a> {
    pub pages: &'a [(PageId, u64)],
    pub fail_at: Option<usize>,
    pub given: usize,
}

impl<'a> Contents<'a> {
    pub fn of(pages: &'a [(PageId, u64)]) -> Contents<'a> {
        Contents {
            pages,
            fail_at: None,
            given: 0,
        }
    }
}

impl PageSource for Contents<'_> {
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
        assert_eq!(pages.len() * PAGE_SIZE, into.len());
        for (page, into) in pages.iter().zip(into.chunks_exact_mut(PAGE_SIZE)) {
            let (id, content) = self.pages[self.given];
            assert_eq!(id, *page);
            fill(content, into);
            self.given += 1;
            if self.fail_at.is_some_and(|at| self.given >= at) {
                return Err(io::Error::from_raw_os_error(3));
            }
        }
        Ok(())
    }
}

/// Up to `most` pages inside `sizes`, ascending, one in eight zero.
pub fn random_pages(numbers: &mut Numbers, sizes: Sizes, most: usize) -> Vec<(PageId, u64)> {
    let mut pages = BTreeMap::new();
    for _ in 0..numbers.below(most + 1) {
        let region = Region::ALL[numbers.below(2)];
        let page = PageId::new(region, numbers.next() % PAGES).unwrap();
        let content = if numbers.below(8) == 0 {
            0
        } else {
            numbers.next() | 1
        };
        if sizes.contain(page) {
            pages.insert(page, content);
        }
    }
    pages.into_iter().collect()
}

/// Sizes of up to `PAGES` pages, mostly large.
pub fn random_sizes(numbers: &mut Numbers) -> Sizes {
    let mut size = || match numbers.below(4) {
        0 => numbers.next() % (PAGES * PAGE_SIZE as u64 + 1),
        _ => PAGES * PAGE_SIZE as u64,
    };
    Sizes {
        heap: size(),
        stable: size(),
    }
}
