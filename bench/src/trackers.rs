//! The same update over every tracker and either way of copying pages.

use lazaret::{BuildError, Host, PageCopy, Tenant, TrackerKind};

use crate::Options;
use crate::error::BenchError;
use crate::sample::{MICROSECOND, Sample};
use crate::table::Row;
use crate::update::{PAGES, argument};

/// Pages that each update writes, one in every so many bytes.
const COUNT: u64 = 100;
const STRIDE: u64 = 2 << 20;
const REPETITIONS: usize = 200;
/// Updates of one tenant before those of the next.
const BATCH: usize = 10;

/// A tracker and who copies, by the row's key. The first is what all others
/// are measured against.
const WAYS: [(&str, TrackerKind, PageCopy); 5] = [
    ("trackers/cards", TrackerKind::Cards, PageCopy::Host),
    ("trackers/kernel", TrackerKind::Kernel, PageCopy::Host),
    ("trackers/signal", TrackerKind::Signal, PageCopy::Host),
    (
        "trackers/cards/worker",
        TrackerKind::Cards,
        PageCopy::Worker,
    ),
    (
        "trackers/signal/worker",
        TrackerKind::Signal,
        PageCopy::Worker,
    ),
];

/// One of them at work, or why it can't be.
struct Subject {
    tenant: Result<(Host, Tenant), String>,
    whole: Sample,
    run: Sample,
    scan: Sample,
    write: Sample,
    pages: u64,
}

pub(crate) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !WAYS.iter().any(|(key, ..)| options.wants(key)) {
        return Ok(());
    }
    progress("an update over every tracker");
    let directory = options.temporary()?;
    let mut subjects = Vec::new();
    for (index, &(key, tracker, page_copy)) in WAYS.iter().enumerate() {
        if index > 0 && !options.wants(key) {
            continue;
        }
        let host = options
            .host()
            .data_dir(directory.path().join(index.to_string()))
            .tracker(tracker)
            .page_copy(page_copy)
            .relaxed_durability()
            .build();
        let tenant = match host {
            Ok(host) => {
                let tenant = host.install("pages", PAGES, &[])?;
                Ok((host, tenant))
            }
            Err(error @ BuildError::KernelTracker { .. }) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        subjects.push((key, Subject::new(tenant)));
    }
    let mut left = options.times(REPETITIONS);
    while left > 0 {
        let batch = left.min(BATCH);
        left -= batch;
        for (_, subject) in &mut subjects {
            subject.measure(batch)?;
        }
    }
    let base = subjects
        .first()
        .and_then(|(_, first)| first.whole.quantiles(MICROSECOND));
    for (key, subject) in subjects {
        if options.wants(key) {
            rows.push(subject.row(key).baseline("cards, copied by the host", base));
        }
    }
    Ok(())
}

impl Subject {
    fn new(tenant: Result<(Host, Tenant), String>) -> Self {
        let sample = Sample::default;
        Self {
            tenant,
            whole: sample(),
            run: sample(),
            scan: sample(),
            write: sample(),
            pages: 0,
        }
    }

    fn measure(&mut self, times: usize) -> Result<(), BenchError> {
        let Ok((_, tenant)) = &self.tenant else {
            return Ok(());
        };
        let argument = argument(COUNT, STRIDE);
        // Its worker may have slept meanwhile.
        tenant.update("write", &argument)?;
        for _ in 0..times {
            let reply = self.whole.time(|| tenant.update("write", &argument))?;
            if reply.bytes != COUNT.to_le_bytes() {
                return Err(BenchError::Answer {
                    who: "the tenant",
                    found: reply.bytes,
                    expected: COUNT.to_le_bytes().to_vec(),
                });
            }
            if let Some(commit) = reply.committed {
                self.run.push(commit.run_time);
                self.scan.push(commit.scan_time);
                self.write.push(commit.write_time);
                self.pages = commit.pages;
            }
        }
        Ok(())
    }

    fn row(self, key: &str) -> Row {
        let way = key.strip_prefix("trackers/").unwrap_or(key);
        let (tracker, by_worker) = match way.strip_suffix("/worker") {
            Some(tracker) => (tracker, true),
            None => (way, false),
        };
        let copier = if by_worker { "worker" } else { "host" };
        let what = format!(
            "update writing {COUNT} scattered pages of 256 MiB, committed to the page cache; tracker: {tracker}, pages copied by the {copier}"
        );
        let row =
            Row::new(key, what, "us").ours(self.whole.len(), self.whole.quantiles(MICROSECOND));
        let us = |sample: &Sample| sample.median(MICROSECOND);
        match self.tenant {
            Err(missing) => row.note(missing),
            Ok(_) => row.note(format!(
                "parts at p50: run {:.1}, find the {} pages {:.1}, copy and write {:.1} us",
                us(&self.run),
                self.pages,
                us(&self.scan),
                us(&self.write)
            )),
        }
    }
}
