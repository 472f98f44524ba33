//! What a tenant's results depend on besides its module: the numbers that are
//! part of its contract, and what else decides compiled code.

use lazaret_instrument::{METERING_VERSION, RECURSION_LIMIT, RECURSION_VERSION};
#[cfg(feature = "compiler")]
use lazaret_wire::message::Purpose;

/// The versions of metering and recursion limit, as kept in a tenant's state.
/// The same module under the same contract uses the same fuel and recurses as
/// deep on every machine.
pub fn contract() -> String {
    format!("metering {METERING_VERSION}, recursion {RECURSION_VERSION}:{RECURSION_LIMIT}")
}

/// Everything but the module that decides compiled code: part of the compile
/// cache's key. The engine refuses code of another version or for another
/// processor; this keeps it from being offered any.
#[cfg(feature = "compiler")]
pub fn identity(purpose: Purpose) -> &'static str {
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::sync::OnceLock;
    static IDENTITIES: [OnceLock<String>; 2] = [const { OnceLock::new() }; 2];
    let of_purpose = match purpose {
        Purpose::Program => &IDENTITIES[0],
        Purpose::Tenant => &IDENTITIES[1],
    };
    // To set an engine up takes as long as all else that is done to find a module.
    of_purpose.get_or_init(|| {
        let engine = crate::engine::compiling(purpose).map_or(0, |engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        });
        format!(
            "{}; {}; engine {engine:016x}",
            env!("CARGO_PKG_VERSION"),
            contract()
        )
    })
}
