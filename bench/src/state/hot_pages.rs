//! The same few pages, written in every update.

use super::{MIB, PAGE, host, module, write};
use crate::Options;
use crate::error::BenchError;
use crate::in_process::Kept;
use crate::sample::{MICROSECOND, Sample};
use crate::table::{Row, Target};
use crate::update::argument;

const COUNTS: [(u64, &str); 2] = [(10, "state/hot/10"), (100, "state/hot/100")];
const BATCH: usize = 50;

pub(super) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    for (count, key) in COUNTS {
        if !options.wants(key) {
            continue;
        }
        progress(&format!("updates that write the same {count} pages"));
        let directory = options.temporary()?;
        let host = host(options, directory.path())?;
        let text = module(16 * MIB);
        let tenant = host.install("hot", text.as_str(), &[])?;
        let mut kept = Kept::new(&text, "canister_update write")?;
        let argument = argument(count, PAGE);
        let (mut ours, mut theirs, mut copy) =
            (Sample::default(), Sample::default(), Sample::default());
        for _ in 0..options.times(4_000).div_ceil(BATCH) {
            for _ in 0..BATCH / 5 {
                write(&tenant, count, PAGE)?;
            }
            for _ in 0..BATCH {
                let reply = ours.time(|| tenant.update("write", &argument))?;
                if let Some(commit) = reply.committed {
                    copy.push(commit.scan_time + commit.write_time);
                }
            }
            for _ in 0..BATCH {
                theirs.time(|| kept.call(&argument))?;
            }
        }
        let (us, floor) = (
            ours.median(MICROSECOND),
            copy.median(MICROSECOND) / (count + 1) as f64,
        );
        rows.push(
            Row::new(
                key,
                format!("update writing the same {count} pages each time, committed to the page cache"),
                "us",
            )
            .ours(ours.len(), ours.quantiles(MICROSECOND))
            .baseline(
                "the same call of a kept in-process instance, nothing tracked, nothing kept",
                theirs.quantiles(MICROSECOND),
            )
            .target(Target::Ratio(3.0))
            .note(format!(
                "a hot page: {:.2} us (to reach: below 1), of which finding it, copying it out and appending it to the log {floor:.2} us",
                (us - theirs.median(MICROSECOND)) / (count + 1) as f64
            )),
        );
    }
    Ok(())
}
