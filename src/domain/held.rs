//! Why a release is not installed now, and until when.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::release::ReleaseId;

/// A release that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// Which.
    #[serde(flatten)]
    pub release: ReleaseId,
    /// Why.
    #[serde(flatten)]
    pub why: HeldBy,
}

/// What holds a release back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "held_by", rename_all = "snake_case")]
pub enum HeldBy {
    /// It has not been published for long enough.
    CoolDown {
        /// When it will have been; absent where the release does not say when it was published.
        until: Option<DateTime<Utc>>,
    },
    /// It spreads over the sites, and it is not this one's turn.
    Rollout {
        /// When it is.
        until: DateTime<Utc>,
    },
    /// It is not for this site's class of licences.
    Licence {
        /// The classes it is for.
        classes: Vec<String>,
    },
    /// Its description says something that only a newer Afterhours understands.
    NewerAfterhours {
        /// The key that is not known here.
        key: String,
    },
    /// Its description cannot be read.
    Unreadable {
        /// Why.
        because: String,
    },
    /// It failed here before.
    FailedHere,
    /// An earlier release must be installed first, and that one is held back.
    Behind {
        /// The earlier one.
        before: ReleaseId,
    },
}

impl HeldBack {
    /// When it is open by itself, where that is known.
    pub fn until(&self) -> Option<DateTime<Utc>> {
        match &self.why {
            HeldBy::CoolDown { until } => *until,
            HeldBy::Rollout { until } => Some(*until),
            HeldBy::Licence { .. }
            | HeldBy::NewerAfterhours { .. }
            | HeldBy::Unreadable { .. }
            | HeldBy::FailedHere
            | HeldBy::Behind { .. } => None,
        }
    }

    /// A sentence without its full stop, with what a person can do about it; `at` writes an instant.
    pub fn sentence(&self, at: impl Fn(DateTime<Utc>) -> String) -> String {
        let fact = self.fact(at);
        match &self.why {
            HeldBy::CoolDown { .. } | HeldBy::Rollout { .. } => format!("{fact}; name it with --to to take it now"),
            HeldBy::Licence { .. } => format!("{fact}; where this site has one, set licence_class of `updates`"),
            HeldBy::FailedHere => format!("{fact} (`afterhours update allow {}`)", self.release.version),
            HeldBy::Unreadable { .. } => {
                format!("{fact}; ask the vendor to withdraw it, or update Afterhours where it is too old for it")
            }
            HeldBy::NewerAfterhours { .. } | HeldBy::Behind { .. } => fact,
        }
    }

    /// The same without a remedy.
    pub fn fact(&self, at: impl Fn(DateTime<Utc>) -> String) -> String {
        let release = &self.release;
        match &self.why {
            HeldBy::CoolDown { until: Some(until) } => {
                format!("{release} is held back until {} by the cool-down", at(*until))
            }
            HeldBy::CoolDown { until: None } => {
                format!("{release} is held back by the cool-down, because it does not say when it was published")
            }
            HeldBy::Rollout { until } => format!("{release} is held back until {} by its rollout", at(*until)),
            HeldBy::Licence { classes } => {
                format!("{release} is for licences of the class {} only", classes.join(" or "))
            }
            HeldBy::NewerAfterhours { key } => {
                format!("{release} needs a newer Afterhours, because this one does not know its key {key}")
            }
            HeldBy::Unreadable { because } => {
                format!("{release} is not taken, because nobody can tell what it is: {because}")
            }
            HeldBy::FailedHere => format!("{release} failed here before and is not tried again by itself"),
            HeldBy::Behind { before } => format!("{release} comes after {before}"),
        }
    }

    /// What is passed over where the release is installed all the same; a clause.
    pub fn passed_over(&self) -> String {
        let what = match &self.why {
            HeldBy::CoolDown { .. } => "in spite of its cool-down",
            HeldBy::Rollout { .. } => "in spite of its turn in the rollout",
            HeldBy::Licence { .. } => "in spite of its class of licences",
            HeldBy::NewerAfterhours { .. } => "in spite of what it says",
            HeldBy::Unreadable { .. } => "although its description cannot be read",
            HeldBy::FailedHere => "although it failed here before",
            HeldBy::Behind { .. } => "in spite of what is before it",
        };
        format!("{} is installed {what}", self.release)
    }
}

/// An instant for people, where no zone is known.
pub fn in_utc(at: DateTime<Utc>) -> String {
    at.format("%a %-d %b %Y %H:%M UTC").to_string()
}
