//! Profiles: walls for surroundings that can't have the whole one, by name.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::layer::Layer;

/// Which wall there is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Profile {
    /// Every layer; what is missing is an error.
    #[default]
    Full,
    /// For a container whose own profile refuses namespaces and mounts, as
    /// Docker's and Kubernetes' defaults do: the layers that a process puts on
    /// itself. The container's own walls stand around all workers together.
    Container,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Full, Self::Container];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Container => "container",
        }
    }

    /// The layers that it leaves out, with those that can't be without them
    /// ([`Off`](crate::Off)).
    pub const fn without(self) -> &'static [Layer] {
        match self {
            Self::Full => &[],
            // All other namespaces and the empty root go with it.
            Self::Container => &[Layer::UserNamespace],
        }
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no profile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no profile: full or container")]
pub struct UnknownProfile(pub String);

impl std::str::FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grade::grade;
    use crate::{Grade, Off};

    #[test]
    fn names_come_back_and_others_are_errors() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        let error = "docker".parse::<Profile>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`docker` is no profile: full or container"
        );
    }

    /// What SECURITY.md says of it.
    #[test]
    fn a_container_s_profile_keeps_every_promise_by_one_layer_at_least() {
        let off = |profile: Profile| Off::new(profile.without()).unwrap();
        assert!(off(Profile::Full).is_empty());
        let container: Vec<Layer> = off(Profile::Container).layers().collect();
        assert_eq!(grade(&container, true), Grade::C);
        for stays in [
            Layer::Seccomp,
            Layer::Landlock,
            Layer::Mdwe,
            Layer::NoNewPrivs,
        ] {
            assert!(!container.contains(&stays), "{stays}");
        }
    }
}
