//! Which pages the last commits wrote.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::page::{PageId, Version};
use crate::storage::{OsFile, ReadAt};
use crate::view::View;

/// Pages that are remembered at most, over all commits: half a megabyte.
const MAX_REMEMBERED_PAGES: usize = 65_536;
/// Commits that are remembered at most.
const MAX_REMEMBERED_COMMITS: usize = 4_096;

/// What differs between an earlier version and [`view`](Changes::view).
pub struct Changes<F: ReadAt = OsFile> {
    /// The newest version.
    pub view: View<F>,
    /// The pages inside its sizes that may differ, ascending, each once. What lies beyond the sizes isn't listed.
    pub pages: Vec<PageId>,
}

impl<F: ReadAt> Changes<F> {
    pub(crate) fn merge(view: View<F>, lists: &[Arc<[PageId]>]) -> Changes<F> {
        let mut pages: Vec<PageId> = lists
            .iter()
            .flat_map(|list| list.iter().copied())
            .filter(|page| view.sizes.contain(*page))
            .collect();
        // One list is in order already, which this finds out in one pass.
        pages.sort_unstable();
        pages.dedup();
        Changes { view, pages }
    }
}

/// The pages of the last commits, each commit's by itself.
pub(crate) struct RecentChanges {
    /// All commits behind this version are remembered.
    since: Version,
    commits: VecDeque<(Version, Arc<[PageId]>)>,
    pages: usize,
}

impl RecentChanges {
    /// Nothing is known of what was before `version`.
    pub(crate) fn from(version: Version) -> RecentChanges {
        RecentChanges {
            since: version,
            commits: VecDeque::new(),
            pages: 0,
        }
    }

    /// Remembers a commit: the pages that it wrote, and those that fell behind its sizes, which are zero if the
    /// region grows again.
    pub(crate) fn push(&mut self, version: Version, pages: &[PageId], gone: &[PageId]) {
        if pages.len() + gone.len() > MAX_REMEMBERED_PAGES {
            *self = RecentChanges::from(version);
            return;
        }
        let list: Arc<[PageId]> = match gone {
            [] => pages.into(),
            gone => pages.iter().chain(gone).copied().collect(),
        };
        self.pages += list.len();
        self.commits.push_back((version, list));
        while self.pages > MAX_REMEMBERED_PAGES || self.commits.len() > MAX_REMEMBERED_COMMITS {
            let Some((version, list)) = self.commits.pop_front() else {
                break;
            };
            self.pages -= list.len();
            self.since = version;
        }
    }

    /// The lists of all commits behind `version`, up to `newest`.
    pub(crate) fn since(&self, version: Version, newest: Version) -> Option<Vec<Arc<[PageId]>>> {
        if version < self.since || version > newest {
            return None;
        }
        let known = self.commits.partition_point(|(made, _)| *made <= version);
        Some(
            self.commits
                .range(known..)
                .map(|(_, list)| list.clone())
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Region;

    fn pages(numbers: impl Iterator<Item = u64>) -> Vec<PageId> {
        numbers
            .map(|number| PageId::new(Region::Heap, number).unwrap())
            .collect()
    }

    #[test]
    fn the_oldest_commits_are_forgotten_by_pages_and_by_number() {
        let mut recent = RecentChanges::from(Version(10));
        let third = pages(0..MAX_REMEMBERED_PAGES as u64 / 3);
        for version in 11..=14 {
            recent.push(Version(version), &third, &[]);
        }
        let count = |recent: &RecentChanges, since, newest| {
            recent
                .since(Version(since), Version(newest))
                .map(|lists| lists.len())
        };
        assert_eq!(count(&recent, 10, 14), None);
        assert_eq!(count(&recent, 11, 14), Some(3));
        assert_eq!(count(&recent, 14, 14), Some(0));
        assert_eq!(count(&recent, 15, 14), None);
        for version in 15..=15 + MAX_REMEMBERED_COMMITS as u64 {
            recent.push(Version(version), &[], &third[..1]);
        }
        let newest = 15 + MAX_REMEMBERED_COMMITS as u64;
        assert_eq!(count(&recent, 14, newest), None);
        assert_eq!(count(&recent, 15, newest), Some(MAX_REMEMBERED_COMMITS));
    }

    #[test]
    fn a_commit_of_too_many_pages_is_a_new_beginning() {
        let mut recent = RecentChanges::from(Version(0));
        recent.push(
            Version(1),
            &pages(0..MAX_REMEMBERED_PAGES as u64),
            &pages(70_000..70_001),
        );
        assert!(recent.since(Version(0), Version(1)).is_none());
        assert_eq!(recent.since(Version(1), Version(1)).unwrap().len(), 0);
        recent.push(Version(2), &pages(3..4), &[]);
        assert_eq!(recent.since(Version(1), Version(2)).unwrap().len(), 1);
    }
}
