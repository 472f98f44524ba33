//! What belongs to one program while it runs.

use std::sync::Arc;

use wasmtime_wasi::p1::WasiP1Ctx;

use super::clocks::Clocks;
use super::host_function::Line;
use super::limiter::Limiter;
use super::streams::Stream;

/// The store's data.
pub(super) struct State {
    pub(super) wasi: WasiP1Ctx,
    pub(super) limiter: Limiter,
    /// The clocks that `wasi` has too.
    pub(super) clocks: Clocks,
    /// Standard input, output and error, which `wasi` has too.
    pub(super) streams: [Stream; 3],
    pub(super) line: Arc<Line>,
}
