//! The paths of the API. The server mounts them as they stand; the client fills them in.

/// The daemon and everything it knows, on one page.
pub const STATUS: &str = "/v1/status";
/// Send a mail that says nothing but that it came.
pub const MAIL_TEST: &str = "/v1/mail/test";
/// Say that the clock is right.
pub const CLOCK_ACCEPT: &str = "/v1/clock/accept";
/// The entries of the history.
pub const AUDIT: &str = "/v1/audit";
/// The proof of the history.
pub const AUDIT_VERIFY: &str = "/v1/audit/verify";
/// All jobs.
pub const JOBS: &str = "/v1/jobs";
/// One job.
pub const JOB: &str = "/v1/jobs/{name}";
/// Let a job start by itself.
pub const JOB_ENABLE: &str = "/v1/jobs/{name}/enable";
/// Keep a job from starting by itself.
pub const JOB_DISABLE: &str = "/v1/jobs/{name}/disable";
/// Start a job now.
pub const JOB_RUN: &str = "/v1/jobs/{name}/run";
/// What a run of the job would do.
pub const JOB_PLAN: &str = "/v1/jobs/{name}/plan";
/// The runs of a job.
pub const JOB_HISTORY: &str = "/v1/jobs/{name}/history";
/// All runs.
pub const RUNS: &str = "/v1/runs";
/// One run.
pub const RUN: &str = "/v1/runs/{id}";
/// The log of a run, line by line.
pub const RUN_EVENTS: &str = "/v1/runs/{id}/events";
/// Stop a run.
pub const RUN_CANCEL: &str = "/v1/runs/{id}/cancel";
/// Let a stuck run try again.
pub const RUN_RETRY: &str = "/v1/runs/{id}/retry";
/// Look at the version that is in place while a run is stuck.
pub const RUN_LOOK: &str = "/v1/runs/{id}/look";
/// Decide a stuck run.
pub const RUN_RESOLVE: &str = "/v1/runs/{id}/resolve";
/// What support needs to know of a run.
pub const RUN_BUNDLE: &str = "/v1/runs/{id}/bundle";
/// Who is logged in.
pub const SESSIONS: &str = "/v1/apps/{app}/sessions";
/// Tell something to who is logged in.
pub const SESSIONS_MESSAGE: &str = "/v1/apps/{app}/sessions/message";
/// Log somebody out.
pub const SESSIONS_END: &str = "/v1/apps/{app}/sessions/end";
/// Whether users may log in.
pub const GATE: &str = "/v1/apps/{app}/gate";
/// Refuse logins.
pub const GATE_CLOSE: &str = "/v1/apps/{app}/gate/close";
/// Admit logins.
pub const GATE_OPEN: &str = "/v1/apps/{app}/gate/open";
/// Admit one login through a closed gate.
pub const GATE_PASS: &str = "/v1/apps/{app}/gate/pass";
/// The gate's answer to a web server.
pub const GATE_CHECK: &str = "/v1/apps/{app}/gate/check";
/// The evidence of the last backup; POST makes one.
pub const BACKUP: &str = "/v1/apps/{app}/backup";
/// All backups that are found.
pub const BACKUPS: &str = "/v1/apps/{app}/backups";
/// Copies kept for rollback.
pub const SNAPSHOTS: &str = "/v1/apps/{app}/snapshots";
/// Everything a run will need, checked.
pub const DOCTOR: &str = "/v1/apps/{app}/doctor";
/// Newer releases.
pub const UPDATES: &str = "/v1/apps/{app}/updates";
/// What failed here and is held back.
pub const QUARANTINE: &str = "/v1/apps/{app}/quarantine";
/// Let a release that failed here be tried again.
pub const UPDATE_ALLOW: &str = "/v1/apps/{app}/update/allow";
/// Update now.
pub const UPDATE: &str = "/v1/apps/{app}/update";

/// The path with its one placeholder filled in. Names and numbers need no escaping.
pub fn fill(route: &str, value: &impl ToString) -> String {
    match (route.find('{'), route.find('}')) {
        (Some(from), Some(to)) => format!("{}{}{}", &route[..from], value.to_string(), &route[to + 1..]),
        _ => route.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_a_name() {
        assert_eq!(fill(JOB_PLAN, &"nightly"), "/v1/jobs/nightly/plan");
        assert_eq!(fill(RUN, &7), "/v1/runs/7");
        assert_eq!(fill(STATUS, &"x"), "/v1/status");
    }
}
