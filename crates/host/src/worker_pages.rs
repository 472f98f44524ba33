//! A worker's pages as the host gets at them while the worker waits: by itself,
//! or by asking the worker.

use std::io;
use std::time::Duration;

use lazaret_image::{PageId, PageSource};
use lazaret_wire::Shared;
use lazaret_wire::layout::{PAGE, TRANSFER, TRANSFER_PAGES};
use lazaret_wire::message::{
    FromWorker, Region, Space, ToWorker, Transfer, TransferDirection, TransferRun,
};

use crate::memory::{WorkerMemory, wire_page};
use crate::page_copy::Copier;
use crate::worker::Worker;

/// How long a worker may take to copy what fits in the transfer area.
const TRANSFER_TIME: Duration = Duration::from_secs(10);

/// The pages of one worker, which waits for a request.
pub(crate) struct WorkerPages<'a>(Reach<'a>);

enum Reach<'a> {
    Host {
        shared: &'a Shared,
        memory: WorkerMemory,
    },
    Worker(&'a mut Worker),
}

impl<'a> WorkerPages<'a> {
    pub(crate) fn new(worker: &'a mut Worker, memory: WorkerMemory, copier: Copier) -> Self {
        Self(match copier {
            Copier::Host => Reach::Host {
                shared: worker.shared(),
                memory,
            },
            Copier::Worker => Reach::Worker(worker),
        })
    }

    /// Pages of a worker of which only these are there.
    #[cfg(test)]
    pub(crate) fn of(shared: &'a Shared, memory: WorkerMemory) -> Self {
        Self(Reach::Host { shared, memory })
    }

    /// The worker's shared memory.
    pub(crate) fn shared(&self) -> &Shared {
        match &self.0 {
            Reach::Host { shared, .. } => shared,
            Reach::Worker(worker) => worker.shared(),
        }
    }

    /// Copies pages out of the worker, one after another.
    pub(crate) fn read(
        &mut self,
        space: Space,
        pages: &[(Region, u64)],
        into: &mut [u8],
    ) -> io::Result<()> {
        match &mut self.0 {
            Reach::Host { memory, .. } => memory.space(space).read(pages, into),
            Reach::Worker(worker) => {
                check(pages, into)?;
                let buffers = into.chunks_mut(TRANSFER_PAGES * PAGE);
                for (pages, into) in pages.chunks(TRANSFER_PAGES).zip(buffers) {
                    transfer(worker, space, TransferDirection::Out, pages)?;
                    worker.shared().copy_out_to(TRANSFER, into);
                }
                Ok(())
            }
        }
    }

    /// Copies pages into the worker.
    pub(crate) fn write(
        &mut self,
        space: Space,
        pages: &[(Region, u64)],
        from: &[u8],
    ) -> io::Result<()> {
        match &mut self.0 {
            Reach::Host { memory, .. } => memory.space(space).write(pages, from),
            Reach::Worker(worker) => {
                check(pages, from)?;
                let buffers = from.chunks(TRANSFER_PAGES * PAGE);
                for (pages, from) in pages.chunks(TRANSFER_PAGES).zip(buffers) {
                    worker.shared().copy_in(TRANSFER, from);
                    transfer(worker, space, TransferDirection::In, pages)?;
                }
                Ok(())
            }
        }
    }
}

fn check(pages: &[(Region, u64)], bytes: &[u8]) -> io::Result<()> {
    match bytes.len() == pages.len() * PAGE {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Has the worker copy at most as many pages as fit.
fn transfer(
    worker: &mut Worker,
    space: Space,
    direction: TransferDirection,
    pages: &[(Region, u64)],
) -> io::Result<()> {
    let mut runs: Vec<TransferRun> = Vec::new();
    for &(region, page) in pages {
        match runs.last_mut() {
            Some(run)
                if run.region == region
                    && run.first_page.checked_add(run.pages.into()) == Some(page) =>
            {
                run.pages += 1;
            }
            _ => runs.push(TransferRun {
                region,
                first_page: page,
                pages: 1,
            }),
        }
    }
    let request = ToWorker::Transfer(Transfer {
        space,
        direction,
        runs,
    });
    worker.send(&request).map_err(io::Error::other)?;
    match worker.wait(TRANSFER_TIME) {
        Ok(FromWorker::Transferred) => Ok(()),
        Ok(_) => Err(io::Error::other(
            worker.malformed("not the end of a transfer").to_string(),
        )),
        Err(ending) => Err(io::Error::other(format!("the worker ended: {ending}"))),
    }
}

/// Pages of a worker as the source of a commit.
pub(crate) struct Source<'a> {
    pages: WorkerPages<'a>,
    scratch: Vec<(Region, u64)>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(pages: WorkerPages<'a>) -> Self {
        let scratch = Vec::new();
        Self { pages, scratch }
    }
}

impl PageSource for Source<'_> {
    fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> io::Result<()> {
        self.scratch.clear();
        self.scratch.extend(pages.iter().map(wire_page));
        self.pages.read(Space::Memory, &self.scratch, into)
    }
}
