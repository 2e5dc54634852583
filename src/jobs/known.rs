//! What a run has learnt so far.

use chrono::DateTime;
use chrono::Utc;

use crate::domain::answers::Before;
use crate::domain::clock::Moment;
use crate::domain::clock::Term;
use crate::domain::evidence::Evidence;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::run::Side;
use crate::domain::session::Session;
use crate::domain::step::At;

/// What earlier steps found out and later ones need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// What was installed before the run.
    pub from: Option<ReleaseId>,
    /// What was said of the selection; it explains an empty path.
    pub selection: Option<String>,
    /// What is to be installed; absent until it is selected.
    pub path: Option<Vec<Release>>,
    /// What failed here before, where nothing is installed because everything newer waits behind it.
    pub blocked: Option<ReleaseId>,
    /// How long users were told that they have; kept over a crash.
    pub grace: Option<Term>,
    /// When people were first asked to log out.
    pub log_out_since: Option<Moment>,
    /// Who had to be closed.
    pub closed: Vec<Session>,
    /// The accepted backup.
    pub evidence: Option<Evidence>,
    /// What the running version answered before anybody was disturbed.
    pub before: Option<Before>,
    /// Whether a crash interrupted a step while the application was away.
    pub interrupted: bool,
    /// Findings that were not all good.
    pub findings: Vec<Finding>,
    /// Steps that nothing depends on and that were left undone.
    pub passed_over: Vec<(At, Failure)>,
    /// When it had its turn.
    pub started: Option<Moment>,
    /// How long it pauses, or has paused the last time.
    pub pause: Option<Term>,
    /// When the service was asked to stop.
    pub away_since: Option<DateTime<Utc>>,
    /// When the application was there again: the last health check or the undone stop.
    pub back_at: Option<DateTime<Utc>>,
    /// What a person decided, when the run was stuck.
    pub resolved: Option<Resolved>,
    /// How many reports were written before: one each time it was stuck.
    pub reports: u32,
}

/// A person's word about a stuck run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The good version.
    pub side: Side,
    /// Who says so.
    pub by: String,
    /// Whether users are let in also where it does not answer.
    pub open_gate: bool,
}
