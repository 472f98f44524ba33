//! Random sequences of all operations, beside a model of what the image should be.
#![allow(dead_code)] // Each test binary uses a part.

mod branches;

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use lazaret_image::{
    Accept, CheckEvent, CommitError, Depth, Durability, FoldError, FoldJob, Image, OpenError,
    Problem, RestoreError, Severity, SnapshotError, SyncError, View, check_on,
};

use branches::{Branch, check_branches};

use crate::fault_storage::{FaultFile, FaultStorage, Numbers};
use crate::model::{Contents, State, random_pages, random_sizes};

/// A fold under way.
struct Folding {
    job: FoldJob<FaultStorage>,
    /// The version that it folds.
    version: usize,
    complete: bool,
    /// The image was restored since.
    stale: bool,
}

/// An image, and what it should be.
pub struct Run {
    pub storage: FaultStorage,
    pub image: Option<Image<FaultStorage>>,
    folding: Option<Folding>,
    /// The state at each version up to the newest that may have been written.
    states: Vec<State>,
    branches: Vec<Branch>,
    /// Views held, and what they should read for ever.
    held: Vec<(View<FaultFile>, State)>,
    /// The image's version.
    version: usize,
    /// The newest version that is on disk for sure.
    durable: usize,
    pub numbers: Numbers,
    pub context: String,
}

/// Whether the image must be opened again.
pub type Poisoned = bool;

impl Run {
    pub fn new(seed: u64) -> Run {
        let storage = FaultStorage::new(seed);
        let image = Image::create_on(storage.clone()).unwrap();
        if seed.is_multiple_of(5) {
            storage.refuse_links();
        }
        Run {
            storage,
            image: Some(image),
            folding: None,
            states: vec![State::default()],
            branches: Vec::new(),
            held: Vec::new(),
            version: 0,
            durable: 0,
            numbers: Numbers(seed),
            context: format!("seed {seed}"),
        }
    }

    /// The same history on a disk of its own, with nothing open.
    pub fn copy(&self, chance: u64) -> Run {
        Run {
            storage: self.storage.copy(),
            image: None,
            folding: None,
            states: self.states.clone(),
            branches: self.branches.clone(),
            held: Vec::new(),
            version: self.version,
            durable: self.durable,
            numbers: Numbers(self.numbers.0 ^ chance),
            context: format!("{}, chance {chance}", self.context),
        }
    }

    /// One random step.
    pub fn step(&mut self) -> Result<(), Poisoned> {
        if self.image.is_none() {
            return self.open();
        }
        match self.numbers.below(24) {
            0 => self.fold(),
            1 | 2 => self.sync(),
            3 => self.open(),
            4 => self.failing_commit(),
            5 => self.refused_commit(),
            6..=9 => self.step_of_fold(),
            10 => self.branch(false),
            11 => self.branch(true),
            12 => self.restore(),
            _ => self.commit(),
        }
    }

    fn fold(&mut self) -> Result<(), Poisoned> {
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let busy = self.folding.as_ref().is_some_and(|folding| !folding.stale);
        match image.fold() {
            Ok(folded) => {
                assert!(!busy, "{}", self.context);
                assert_eq!(folded.version.0 as usize, self.version);
                self.durable = self.version;
                Ok(())
            }
            Err(FoldError::Busy { .. }) => {
                assert!(busy, "{}", self.context);
                Ok(())
            }
            Err(error) => Err(poisons(&error)),
        }
    }

    fn step_of_fold(&mut self) -> Result<(), Poisoned> {
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let Some(mut folding) = self.folding.take() else {
            let job = image.begin_fold().map_err(|error| poisons(&error))?;
            assert_eq!(job.version().0 as usize, self.version);
            self.durable = self.version;
            self.folding = Some(Folding {
                job,
                version: self.version,
                complete: false,
                stale: false,
            });
            return Ok(());
        };
        match self.numbers.below(8) {
            0 => Ok(()), // Dropped.
            1 => {
                let outcome = folding.job.run(None, &AtomicBool::new(true));
                // It has nothing to stop if there is nothing left to write.
                let ok = matches!(outcome, Ok(()) | Err(FoldError::Stopped));
                folding.complete |= outcome.is_ok();
                self.folding = Some(folding);
                ok.then_some(()).ok_or(false)
            }
            _ if folding.complete => match image.finish_fold(&mut folding.job) {
                Ok(folded) => {
                    assert!(!folding.stale, "{}", self.context);
                    assert_eq!(folded.version.0 as usize, folding.version);
                    Ok(())
                }
                Err(FoldError::Stale) => {
                    assert!(folding.stale, "{}", self.context);
                    Ok(())
                }
                Err(error) => Err(poisons(&error)),
            },
            2 if !folding.stale => match image.finish_fold(&mut folding.job) {
                Err(FoldError::Unfinished) => Ok(()),
                Err(error) => Err(poisons(&error)),
                Ok(_) => panic!("{}: an incomplete fold was finished", self.context),
            },
            _ => {
                let outcome = folding.job.run(None, &AtomicBool::new(false));
                folding.complete = outcome.is_ok();
                self.folding = Some(folding);
                outcome.map_err(|error| poisons(&error))
            }
        }
    }

    fn sync(&mut self) -> Result<(), Poisoned> {
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let done = if self.numbers.below(2) == 0 {
            image.sync()
        } else {
            image.checkpoint()
        };
        // Whether the log's sync failed or the manifest's: to open again is right for both.
        done.map_err(|_| true)?;
        self.durable = self.version;
        Ok(())
    }

    fn failing_commit(&mut self) -> Result<(), Poisoned> {
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let pages = random_pages(&mut self.numbers, self.states[self.version].sizes, 8);
        if pages.is_empty() {
            return Ok(());
        }
        let fail_at = Some(1 + self.numbers.below(pages.len()));
        let ids: Vec<_> = pages.iter().map(|(id, _)| *id).collect();
        let mut source = Contents {
            fail_at,
            ..Contents::of(&pages)
        };
        let sizes = image.sizes();
        let error = image
            .commit(&ids, &mut source, sizes, b"never", Durability::Durable)
            .unwrap_err();
        match error {
            CommitError::Source(_) => Ok(()),
            CommitError::Poisoned { .. } => Err(true),
            _ => Err(false),
        }
    }

    /// A commit over the quota.
    fn refused_commit(&mut self) -> Result<(), Poisoned> {
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let sizes = self.states[self.version].sizes;
        let pages = random_pages(&mut self.numbers, sizes, 8);
        let stored = pages.iter().filter(|(_, content)| *content != 0).count() as u64;
        let ids: Vec<_> = pages.iter().map(|(id, _)| *id).collect();
        let before = image.disk_bytes();
        image.set_quota(Some(before + (stored + 1) * 4096 - 1));
        let outcome = image.commit(
            &ids,
            &mut Contents::of(&pages),
            sizes,
            b"never",
            Durability::Durable,
        );
        image.set_quota(None);
        match outcome.unwrap_err() {
            CommitError::Quota { used, .. } => {
                assert_eq!((used, image.disk_bytes()), (before, before));
                Ok(())
            }
            CommitError::Poisoned { .. } => Err(true),
            _ => Err(false),
        }
    }

    fn commit(&mut self) -> Result<(), Poisoned> {
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let sizes = random_sizes(&mut self.numbers);
        let most = [0, 1, 4, 40][self.numbers.below(4)];
        let pages = random_pages(&mut self.numbers, sizes, most);
        let meta = vec![self.numbers.next() as u8; self.numbers.below(300)];
        let durability = if self.numbers.below(2) == 0 {
            Durability::Durable
        } else {
            Durability::Relaxed
        };
        self.states.truncate(self.version + 1);
        self.states
            .push(self.states[self.version].after(&pages, sizes, &meta));
        let ids: Vec<_> = pages.iter().map(|(id, _)| *id).collect();
        let zeros = pages.iter().filter(|(_, content)| *content == 0).count() as u64;
        let stored = pages.len() as u64 - zeros;
        // Exactly what it takes: one page of header suffices for these.
        image.set_quota(Some(image.disk_bytes() + (stored + 1) * 4096));
        let outcome = image.commit(&ids, &mut Contents::of(&pages), sizes, &meta, durability);
        image.set_quota(None);
        match outcome {
            Ok(committed) => {
                self.version += 1;
                assert_eq!(committed.version.0 as usize, self.version);
                assert_eq!((committed.zero_pages, committed.pages), (zeros, stored));
                if durability == Durability::Durable {
                    self.durable = self.version;
                }
                Ok(())
            }
            Err(CommitError::Sync(_) | CommitError::Poisoned { .. }) => Err(true),
            Err(_) => Err(false),
        }
    }

    fn branch(&mut self, fork: bool) -> Result<(), Poisoned> {
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let path = PathBuf::from(format!("/branch-{}", self.branches.len()));
        self.branches.push(Branch {
            path: path.clone(),
            state: self.states[self.version].clone(),
            tenant: (!fork).then_some(image.tenant()),
            sure: false,
        });
        let tenant = match fork {
            true => image.fork(&path).map(Some),
            false => image.snapshot(&path).map(|()| None),
        };
        match tenant {
            Ok(tenant) => {
                let branch = self.branches.last_mut().unwrap();
                branch.tenant = branch.tenant.or(tenant);
                branch.sure = true;
                self.durable = self.version;
                Ok(())
            }
            Err(SnapshotError::Sync(_)) => Err(true),
            Err(SnapshotError::File(_)) => Err(false),
            Err(error) => panic!("{}: {error}", self.context),
        }
    }

    fn restore(&mut self) -> Result<(), Poisoned> {
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let sure: Vec<&Branch> = self.branches.iter().filter(|branch| branch.sure).collect();
        if sure.is_empty() {
            return Ok(());
        }
        let branch = sure[self.numbers.below(sure.len())].clone();
        self.states.truncate(self.version + 1);
        let meta = (self.numbers.below(2) == 0).then(|| vec![7; self.numbers.below(5000)]);
        let mut state = branch.state;
        if let Some(meta) = &meta {
            state.meta.clone_from(meta);
        }
        self.states.push(state);
        let own = branch.tenant == Some(image.tenant());
        let accept = [Accept::SameTenant, Accept::AnyTenant][self.numbers.below(2)];
        match image.restore_as(&branch.path, accept, meta.as_deref()) {
            Ok(version) => {
                assert!(own || accept == Accept::AnyTenant, "{}", self.context);
                self.version += 1;
                assert_eq!(version.0 as usize, self.version);
                self.durable = self.version;
                if let Some(folding) = &mut self.folding {
                    folding.stale = true;
                }
                Ok(())
            }
            Err(RestoreError::OtherTenant { found, .. }) => {
                assert!(!own && accept == Accept::SameTenant, "{}", self.context);
                assert_eq!(Some(found), branch.tenant);
                Ok(())
            }
            Err(RestoreError::Switch(_) | RestoreError::Poisoned { .. }) => Err(true),
            Err(RestoreError::Open(OpenError::File(_)) | RestoreError::File(_)) => Err(false),
            Err(RestoreError::Sync(SyncError::File(_))) => Err(false),
            Err(error) => panic!("{}: {error}", self.context),
        }
    }

    /// As if the host was killed (the page cache stays) or had closed the image. It must be at a version between the
    /// last durable and the last written.
    pub fn open(&mut self) -> Result<(), Poisoned> {
        if let Some(folding) = self.folding.take()
            && self.numbers.below(2) == 0
        {
            // A process that is killed removes nothing.
            let _ = ManuallyDrop::new(folding);
        }
        self.image = None;
        self.storage
            .look(|| check_sound(&self.storage, Severity::Leftover, &self.context));
        let (image, recovery) = match Image::open_on(self.storage.clone()) {
            Ok(opened) => opened,
            // The injected fault; real damage is another error, and fails the test.
            Err(OpenError::File(_)) => return Err(false),
            Err(error) => panic!("{}: {error}", self.context),
        };
        let version = image.version().0 as usize;
        assert_eq!(recovery.version, image.version());
        assert!(
            version >= self.durable,
            "{}: at {version}, but {} was acknowledged",
            self.context,
            self.durable
        );
        assert!(
            version < self.states.len(),
            "{}: at {version}, which was never written",
            self.context
        );
        self.version = version;
        self.storage.look(|| {
            check_sound(&self.storage, Severity::Note, &self.context);
            self.states[version].check(&image, &self.context);
        });
        self.image = Some(image);
        Ok(())
    }

    pub fn check(&self) {
        let Some(image) = &self.image else { return };
        assert_eq!(image.version().0 as usize, self.version, "{}", self.context);
        self.storage
            .look(|| self.states[self.version].check(image, &self.context));
    }

    /// Holds a view of the newest version from now on.
    pub fn hold(&mut self) {
        let state = self.states[self.version].clone();
        self.held
            .extend(self.image.iter().map(|image| (image.view(), state.clone())));
    }

    /// Checks the views that are held.
    pub fn check_held(&self) {
        for (view, state) in &self.held {
            let context = format!("{}, view of version {}", self.context, view.version());
            self.storage.look(|| state.check_view(view, &context));
        }
    }

    /// Every snapshot and fork that was returned is there and whole; one that wasn't is whole or isn't there.
    pub fn check_branches(&self) {
        check_branches(&self.storage.copy(), &self.branches, &self.context);
    }

    /// Removes the image and loses power: its snapshots and forks need nothing of it.
    pub fn remove_origin(&mut self) {
        (self.image, self.folding) = (None, None);
        for name in self.storage.names() {
            self.storage.lose(&name);
        }
        self.storage.power_cut(&mut self.numbers);
        self.check_branches();
    }

    /// Loses power, opens, works on, loses power once more.
    pub fn lose_power(&mut self) {
        for _ in 0..2 {
            (self.image, self.folding) = (None, None);
            self.storage.power_cut(&mut self.numbers);
            self.check_branches();
            self.open().unwrap();
            for _ in 0..4 {
                self.step().unwrap();
            }
            self.check();
        }
    }
}

/// A deep check finds nothing that is worse than that.
fn check_sound(storage: &FaultStorage, worst: Severity, context: &str) {
    check_on(storage, Depth::Pages, &mut |event| {
        if let CheckEvent::Finding(finding) = event {
            assert!(finding.severity() <= worst, "{context}: {finding:?}");
            // A tail that was cut is gone.
            let torn = matches!(finding.problem, Problem::TornTail { .. });
            assert!(!torn || worst > Severity::Note, "{context}: {finding:?}");
        }
    });
}

fn poisons(error: &FoldError) -> Poisoned {
    matches!(
        error,
        FoldError::Poisoned { .. } | FoldError::Switch(_) | FoldError::Sync(_)
    )
}
