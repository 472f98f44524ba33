//! Layers that are left out on purpose.
//!
//! Only the host can say so, to its launcher when that starts and to a worker in
//! the first message of its set-up, both before anything of a tenant's is there.
//! Nothing that a worker says ever adds to it.

use crate::layer::Layer;
use thiserror::Error;

/// A layer that can't be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "layer {layer} can't be left out: {reason}; those that can are {}",
    Off::removable().map(Layer::name).collect::<Vec<_>>().join(", ")
)]
pub struct NotRemovable {
    /// The layer.
    pub layer: Layer,
    /// Why.
    pub reason: &'static str,
}

/// A set of layers that are left out on purpose: to show what each of them
/// carries, or where a container gives no namespaces. Never for the sake of code
/// that nobody trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Off {
    asked: u32,
    all: u32,
}

const fn bit(layer: Layer) -> u32 {
    1 << layer as u32
}

/// What goes with a layer, and why.
const IMPLIED: &[(Layer, Layer, &str)] = &[
    (
        Layer::UserNamespace,
        Layer::PidNamespace,
        "without a user namespace nobody but root can make one",
    ),
    (
        Layer::UserNamespace,
        Layer::MountNamespace,
        "without a user namespace nobody but root can make one",
    ),
    (
        Layer::UserNamespace,
        Layer::NetworkNamespace,
        "without a user namespace nobody but root can make one",
    ),
    (
        Layer::UserNamespace,
        Layer::IpcNamespace,
        "without a user namespace nobody but root can make one",
    ),
    (
        Layer::UserNamespace,
        Layer::UtsNamespace,
        "without a user namespace nobody but root can make one",
    ),
    (
        Layer::MountNamespace,
        Layer::EmptyRoot,
        "the root of the host's own mounts can't be changed",
    ),
    (
        Layer::NoNewPrivs,
        Layer::Landlock,
        "the kernel restricts only who can gain no privileges",
    ),
    (
        Layer::NoNewPrivs,
        Layer::Seccomp,
        "the kernel takes a filter only of who can gain no privileges",
    ),
];

impl Off {
    /// Nothing is left out.
    pub const NONE: Self = Self { asked: 0, all: 0 };

    /// The set of these layers and of those that can't be without them.
    ///
    /// # Errors
    /// The first one that can't be left out.
    pub fn new(layers: &[Layer]) -> Result<Self, NotRemovable> {
        let mut asked = 0;
        for &layer in layers {
            if let Some(reason) = fixed(layer) {
                return Err(NotRemovable { layer, reason });
            }
            asked |= bit(layer);
        }
        let mut all = asked;
        // The table is in an order in which one pass is enough.
        for (without, goes, _) in IMPLIED {
            if all & bit(*without) != 0 {
                all |= bit(*goes);
            }
        }
        Ok(Self { asked, all })
    }

    /// The layers that can be left out.
    pub fn removable() -> impl Iterator<Item = Layer> {
        Layer::ALL
            .iter()
            .copied()
            .filter(|layer| fixed(*layer).is_none())
    }

    /// Whether a layer is left out.
    pub fn has(self, layer: Layer) -> bool {
        self.all & bit(layer) != 0
    }

    /// Whether nothing is.
    pub fn is_empty(self) -> bool {
        self.all == 0
    }

    /// All that are left out, in the order in which they would go on.
    pub fn layers(self) -> impl Iterator<Item = Layer> {
        Layer::ALL
            .iter()
            .copied()
            .filter(move |layer| self.has(*layer))
    }

    /// Those that were asked for, by name.
    pub fn names(self) -> Vec<String> {
        Layer::ALL
            .iter()
            .filter(|layer| self.asked & bit(**layer) != 0)
            .map(|layer| layer.name().to_owned())
            .collect()
    }

    /// The set of these names, which [`Off::names`] gave.
    ///
    /// # Errors
    /// In words, if a name is no layer's or one that can't be left out.
    pub fn from_names(names: &[String]) -> Result<Self, String> {
        let layers: Vec<Layer> = names
            .iter()
            .map(|name| {
                name.parse()
                    .map_err(|error: crate::layer::UnknownLayer| error.to_string())
            })
            .collect::<Result<_, _>>()?;
        Self::new(&layers).map_err(|error| error.to_string())
    }

    /// Why a layer is left out, for its receipt; nothing if it isn't.
    pub fn why(self, layer: Layer) -> Option<String> {
        if self.asked & bit(layer) != 0 {
            return Some("left out on purpose".into());
        }
        IMPLIED
            .iter()
            .find(|(without, goes, _)| *goes == layer && self.has(*without))
            .map(|(without, _, why)| format!("left out with {without}: {why}"))
    }

    /// Those of these flags of clone(2) that are still wanted.
    pub(crate) fn namespaces(self, flags: i32) -> i32 {
        let mut flags = flags;
        for (layer, flag) in [
            // A cgroup namespace is no layer of its own: it hides names.
            (
                Layer::UserNamespace,
                libc::CLONE_NEWUSER | libc::CLONE_NEWCGROUP,
            ),
            (Layer::PidNamespace, libc::CLONE_NEWPID),
            (Layer::MountNamespace, libc::CLONE_NEWNS),
            (Layer::NetworkNamespace, libc::CLONE_NEWNET),
            (Layer::IpcNamespace, libc::CLONE_NEWIPC),
            (Layer::UtsNamespace, libc::CLONE_NEWUTS),
        ] {
            if self.has(layer) {
                flags &= !flag;
            }
        }
        flags
    }
}

impl std::fmt::Display for Off {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.layers().map(Layer::name).collect();
        f.pad(&names.join(", "))
    }
}

/// Why a layer can't be left out, if it can't.
fn fixed(layer: Layer) -> Option<&'static str> {
    match layer {
        Layer::Environment => Some("there is nothing that a worker would be told by it"),
        Layer::Descriptors => {
            Some("what a worker would inherit are the host's own files, and no decoys")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_layer_goes_with_it() {
        let user = Off::new(&[Layer::UserNamespace]).unwrap();
        for layer in [
            Layer::UserNamespace,
            Layer::PidNamespace,
            Layer::MountNamespace,
            Layer::NetworkNamespace,
            Layer::IpcNamespace,
            Layer::UtsNamespace,
            Layer::EmptyRoot,
        ] {
            assert!(user.has(layer), "{layer}");
            assert!(user.why(layer).is_some(), "{layer}");
        }
        assert_eq!(user.layers().count(), 7);
        assert!(!user.has(Layer::Seccomp));
        assert_eq!(user.why(Layer::Seccomp), None);
        let privileges = Off::new(&[Layer::NoNewPrivs]).unwrap();
        assert_eq!(
            privileges.to_string(),
            "no-new-privs, landlock, seccomp",
            "what the kernel wants it for goes too"
        );
        assert!(
            privileges
                .why(Layer::Seccomp)
                .unwrap()
                .contains("no-new-privs")
        );
    }

    #[test]
    fn names_go_over_the_wire_and_come_back_as_the_same_set() {
        let layers: Vec<Layer> = Off::removable().collect();
        for first in &layers {
            for second in &layers {
                let off = Off::new(&[*first, *second]).unwrap();
                assert_eq!(Off::from_names(&off.names()), Ok(off), "{off}");
                // A second pass adds nothing.
                let all: Vec<Layer> = off.layers().collect();
                assert_eq!(Off::new(&all).unwrap().all, off.all, "{off}");
            }
        }
        assert_eq!(Off::from_names(&[]), Ok(Off::NONE));
        assert!(Off::NONE.is_empty() && Off::NONE.names().is_empty());
    }

    #[test]
    fn what_can_not_be_left_out_is_an_error_that_says_why() {
        for layer in [Layer::Environment, Layer::Descriptors] {
            let error = Off::new(&[Layer::Seccomp, layer]).unwrap_err();
            assert_eq!(error.layer, layer);
            assert!(error.to_string().contains("landlock"), "{error}");
        }
        assert!(Off::from_names(&["selinux".into()]).is_err());
        assert!(Off::from_names(&["descriptors".into()]).is_err());
    }

    #[test]
    fn flags_are_those_of_the_layers_that_stay() {
        let all = libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        assert_eq!(Off::NONE.namespaces(all), all);
        let user = Off::new(&[Layer::UserNamespace]).unwrap();
        assert_eq!(user.namespaces(all), 0);
        let network = Off::new(&[Layer::NetworkNamespace]).unwrap();
        assert_eq!(network.namespaces(all), all & !libc::CLONE_NEWNET);
    }
}
