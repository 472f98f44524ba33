//! What the red team reports.

use lazaret::wall::Grade;
use serde::Serialize;

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The user that ran it: `root`, or an ordinary user's number.
    pub user: String,
    /// The kernel's version.
    pub kernel: String,
    /// The grade of the walls that were attacked.
    pub grade: Grade,
    /// Layers that were off all the time, as asked for.
    pub without: Vec<&'static str>,
    /// Layers that this host doesn't have.
    pub missing: Vec<&'static str>,
    /// Whether layers were taken off one by one.
    pub ablated: bool,
    /// How many attacks came to nothing.
    pub held: usize,
    /// How many had their effect, or fewer layers than they are marked with.
    pub failed: usize,
    /// How many couldn't be tried here.
    pub untried: usize,
    /// Each attack.
    pub attacks: Vec<Outcome>,
}

impl Report {
    /// Whether everything was held, by as many layers as it should be.
    pub fn all_held(&self) -> bool {
        self.failed == 0
    }

    /// Counts its attacks anew.
    pub(crate) fn count(&mut self) {
        let of = |verdict| {
            self.attacks
                .iter()
                .filter(|attack| attack.verdict == verdict)
                .count()
        };
        let (held, untried) = (of(Verdict::Held), of(Verdict::Untried));
        (self.held, self.untried) = (held, untried);
        self.failed = self.attacks.len() - held - untried;
    }
}

/// What is to be said of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It came to nothing.
    Held,
    /// It had its effect.
    Succeeded,
    /// It came to nothing, but by fewer layers than it is marked with.
    TooFewLayers,
    /// It couldn't be tried here.
    Untried,
}

impl Verdict {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Succeeded => "SUCCEEDED",
            Self::TooFewLayers => "TOO FEW LAYERS",
            Self::Untried => "not tried",
        }
    }
}

/// One attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// What it tries.
    pub tries: &'static str,
    /// What is to be said of it.
    pub verdict: Verdict,
    /// What stopped it, if that is known without taking anything off.
    pub stopped_by: Option<String>,
    /// How that was seen; of one that succeeded, its effect.
    pub evidence: String,
    /// The layers that were shown to stop it, each with none of the others on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Shown>>,
    /// What stops it with all of these layers off, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underneath: Option<Underneath>,
    /// What came of it with all of these layers off, if nothing stopped it: the
    /// proof that the attack is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_none: Option<String>,
    /// How many independent things stop it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub independent: Option<usize>,
    /// How many it is marked with.
    pub at_least: usize,
}

/// A layer that stopped an attack alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its name.
    pub layer: &'static str,
    /// Where the attacker got stuck.
    pub evidence: String,
}

/// What is left when all layers are off that could stop an attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Underneath {
    /// What it is.
    pub what: &'static str,
    /// Where the attacker got stuck.
    pub evidence: String,
}
