//! The first call of a tenant that has no worker, and the calls after it, by
//! the size of its state.

use crate::Options;
use crate::error::BenchError;
use crate::sample::{MICROSECOND, Quantiles, Sample};
use crate::state::{FIRST, MIB, full, host};

/// Sizes of the state, in MiB.
const SIZES: [u64; 6] = [1, 4, 16, 64, 256, 1024];
/// Calls of a worker that is awake, for each start.
const WARM: usize = 20;

/// What a state of some size costs. Times are in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Of the state, in MiB.
    pub mib: u64,
    pub n: usize,
    /// The first call of a tenant that has no worker.
    pub first: Quantiles,
    /// A query that reads one word.
    pub query: Quantiles,
}

pub(super) fn measure(
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Size>, BenchError> {
    let sizes = if options.quick { &SIZES[..2] } else { &SIZES };
    let directory = options.temporary()?;
    let host = host(options, directory.path())?;
    let mut tenants = Vec::new();
    for &mib in sizes {
        progress(&format!("starts with a state of {mib} MiB"));
        let tenant = full(&host, &format!("s{mib}"), mib * MIB)?;
        tenant.compact()?;
        tenants.push((mib, tenant, Sample::default(), Sample::default()));
    }
    for _ in 0..options.times(60) {
        for (_, tenant, first, query) in &mut tenants {
            tenant.sleep();
            let call =
                |sample: &mut Sample| sample.time(|| tenant.query("read", &FIRST.to_le_bytes()));
            call(first)?;
            for _ in 0..WARM {
                call(query)?;
            }
        }
    }
    let mut measured = Vec::new();
    for (mib, tenant, first, query) in tenants {
        drop(tenant);
        host.remove(&format!("s{mib}"))?;
        let quantiles = first
            .quantiles(MICROSECOND)
            .zip(query.quantiles(MICROSECOND));
        if let Some((starts, calls)) = quantiles {
            measured.push(Size {
                mib,
                n: first.len(),
                first: starts,
                query: calls,
            });
        }
    }
    Ok(measured)
}
