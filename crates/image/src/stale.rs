//! Which pages changed since the state was hashed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::page::PageId;

/// Pages in a word.
const WORD: u64 = u64::BITS as u64;

/// A set of pages: a bit each, in words of 64, so that it is bounded by the state's size: 1 GiB has 4,096 words.
#[derive(Debug, Default)]
pub(crate) struct StalePages(BTreeMap<u64, u64>);

impl StalePages {
    /// Adds pages; in ascending order it is fastest.
    pub(crate) fn add(&mut self, pages: impl IntoIterator<Item = PageId>) {
        let mut pages = pages.into_iter().peekable();
        while let Some(first) = pages.next() {
            let key = first.bits() / WORD;
            let mut word = 1 << (first.bits() % WORD);
            while let Some(page) = pages.next_if(|page| page.bits() / WORD == key) {
                word |= 1 << (page.bits() % WORD);
            }
            *self.0.entry(key).or_default() |= word;
        }
    }

    /// The pages, ascending, each once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PageId> {
        self.0.iter().flat_map(|(key, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = u64::from(left.trailing_zeros());
                left &= left.checked_sub(1)?;
                Some(key * WORD + bit)
            })
            .filter_map(PageId::from_bits)
        })
    }

    /// Both sets.
    pub(crate) fn union(&mut self, other: StalePages) {
        for (key, word) in other.0 {
            *self.0.entry(key).or_default() |= word;
        }
    }
}

/// Tells one taking of the stale pages from every other in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(u64);

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// What changed since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    /// Since when, and what. `None` is everything: nobody has asked, and commits needn't note anything.
    since: Option<(Token, StalePages)>,
}

impl Stale {
    /// Whether this token counts.
    pub(crate) fn is_since(&self, token: Token) -> bool {
        self.since
            .as_ref()
            .is_some_and(|(since, _)| *since == token)
    }

    /// Notes the pages of a commit.
    pub(crate) fn add(&mut self, pages: &[PageId]) {
        if let Some((_, stale)) = &mut self.since {
            stale.add(pages.iter().copied());
        }
    }

    /// What changed since it was taken under the token `last`; `None` if that isn't known.
    pub(crate) fn take(&mut self, last: Option<Token>) -> (Token, Option<StalePages>) {
        let token = Token(TAKEN.fetch_add(1, Ordering::Relaxed));
        let before = self.since.replace((token, StalePages::default()));
        let pages = before
            .filter(|(taken, _)| Some(*taken) == last)
            .map(|(_, pages)| pages);
        (token, pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{MAX_PAGES, Region};

    #[test]
    fn pages_come_back_in_order_and_once() {
        let page = |region, page| PageId::new(region, page).unwrap();
        let mut pages = vec![
            page(Region::Stable, MAX_PAGES - 1),
            page(Region::Heap, 63),
            page(Region::Heap, 64),
            page(Region::Heap, 0),
            page(Region::Stable, 0),
            page(Region::Heap, 63),
        ];
        let (mut stale, mut other) = (StalePages::default(), StalePages::default());
        stale.add(pages[..3].iter().copied());
        other.add(pages[2..].iter().copied());
        stale.union(other);
        pages.sort_unstable();
        pages.dedup();
        assert!(stale.iter().eq(pages));
    }

    #[test]
    fn only_who_took_last_learns_what_changed() {
        let page = PageId::new(Region::Heap, 5).unwrap();
        let mut stale = Stale::default();
        stale.add(&[page]);
        let (first, pages) = stale.take(None);
        assert!(pages.is_none());
        stale.add(&[page]);
        let (second, pages) = stale.take(Some(first));
        assert!(pages.unwrap().iter().eq([page]));
        let (third, pages) = stale.take(Some(second));
        assert_eq!(pages.unwrap().iter().count(), 0);
        let (_, pages) = stale.take(Some(second));
        assert!(pages.is_none(), "somebody else took it since");
        assert!(stale.take(Some(third)).1.is_none());
    }
}
