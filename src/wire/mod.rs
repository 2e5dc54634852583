//! The JSON of the API: what the daemon answers and what it is asked.
//!
//! Floor 2. Server (`api/`), client (`client/api.rs`) and `--json` of the command line share these
//! types, so that a field is spelt in one place only. The paths stand in [`route`], and both ends
//! take them from there.
//!
//! | method | path | asked | answered |
//! |---|---|---|---|
//! | GET | `/v1/status` | | [`status::StatusView`] |
//! | POST | `/v1/mail/test` | [`mail::TestMail`] | [`mail::MailedView`] |
//! | POST | `/v1/clock/accept` | | 204 |
//! | GET | `/v1/audit` | [`audit::EntriesQuery`] | `[`[`audit::EntryView`]`]`, ascending |
//! | GET | `/v1/audit/verify` | [`audit::VerifyQuery`] | [`audit::ProofView`] |
//! | GET | `/v1/jobs` | | `[`[`job::JobView`]`]` |
//! | POST | `/v1/jobs` | [`job::CreateJob`] | 201 [`job::JobChanged`] |
//! | GET | `/v1/jobs/{name}` | | [`job::JobView`] |
//! | PATCH | `/v1/jobs/{name}` | [`job::EditJob`] | [`job::JobChanged`] |
//! | DELETE | `/v1/jobs/{name}` | | 204 |
//! | POST | `/v1/jobs/{name}/enable` | | [`job::JobChanged`] |
//! | POST | `/v1/jobs/{name}/disable` | | [`job::JobChanged`] |
//! | POST | `/v1/jobs/{name}/run` | [`job::RunJob`] | [`run::RunView`] |
//! | GET | `/v1/jobs/{name}/plan` | | [`plan::PlanView`] |
//! | GET | `/v1/jobs/{name}/history` | `?limit=` | `[`[`run::RunView`]`]`, newest first |
//! | GET | `/v1/runs` | [`run::RunsQuery`] | `[`[`run::RunView`]`]`, newest first |
//! | GET | `/v1/runs/{id}` | | [`run::RunView`] |
//! | GET | `/v1/runs/{id}/events` | [`run::EventsQuery`] | NDJSON of [`run::RunEventView`] |
//! | POST | `/v1/runs/{id}/cancel` | [`run::CancelRun`] | [`run::RunView`] |
//! | POST | `/v1/runs/{id}/retry` | [`run::RetryRun`] | [`run::RunView`] |
//! | GET | `/v1/runs/{id}/look` | [`run::LookQuery`] | [`run::LookView`], of a stuck run |
//! | POST | `/v1/runs/{id}/resolve` | [`run::ResolveRun`] | [`run::RunView`] |
//! | GET | `/v1/runs/{id}/bundle` | | a `.tar.zst` |
//! | GET | `/v1/apps/{app}/sessions` | | [`people::SessionsView`] |
//! | POST | `/v1/apps/{app}/sessions/message` | [`people::MessageSessions`] | [`people::MessagedView`] |
//! | POST | `/v1/apps/{app}/sessions/end` | [`people::EndSessions`] | [`people::EndedView`] |
//! | GET | `/v1/apps/{app}/gate` | | [`people::GateView`] |
//! | POST | `/v1/apps/{app}/gate/close` | [`people::CloseGate`] | [`people::GateView`] |
//! | POST | `/v1/apps/{app}/gate/open` | | [`people::GateView`] |
//! | POST | `/v1/apps/{app}/gate/pass` | [`people::GivePass`] | [`people::PassView`] |
//! | GET | `/v1/apps/{app}/gate/check` | | 204 or 403, for `auth_request` of a web server |
//! | GET | `/v1/apps/{app}/backup` | | [`app::BackupView`], tested now |
//! | POST | `/v1/apps/{app}/backup` | | [`app::BackupView`], of the one just made |
//! | GET | `/v1/apps/{app}/backups` | | `[`[`app::EvidenceView`]`]`, newest first |
//! | GET | `/v1/apps/{app}/snapshots` | | `[`[`app::SnapshotView`]`]`, newest first |
//! | GET | `/v1/apps/{app}/doctor` | | [`app::DoctorView`] |
//! | GET | `/v1/apps/{app}/updates` | | [`app::UpdatesView`] |
//! | GET | `/v1/apps/{app}/quarantine` | | `[`[`app::QuarantinedView`]`]`, ascending by build |
//! | POST | `/v1/apps/{app}/update/allow` | [`app::AllowRelease`] | [`app::AllowedView`] |
//! | POST | `/v1/apps/{app}/update` | [`app::UpdateNow`] | [`run::RunView`] |
//!
//! Every other status carries an [`error::ErrorBody`].
//!
//! Invariants: requests refuse unknown keys, answers may grow keys; instants are UTC and end in
//! `_at`; a field that is absent for now is `null`, so that scripts can rely on its presence.
//! What must be looked up to be understood (a zone, a calendar expression) travels as text and is
//! resolved by the use case, where the error can say what is wrong with it.

pub mod app;
pub mod audit;
pub mod error;
pub mod job;
pub mod mail;
pub mod people;
pub mod plan;
pub mod route;
pub mod run;
pub mod status;
pub mod workstation;

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::Value;
    use serde_json::json;

    use crate::wire::people::SessionView;
    use crate::wire::run::RunView;

    /// Scripts count on these keys, also where there is no value.
    fn assert_keys<T: Serialize + DeserializeOwned>(least: Value, keys: &str) {
        let view: T = serde_json::from_value(least).unwrap();
        let json = serde_json::to_value(view).unwrap();
        for key in keys.split_whitespace() {
            assert!(json.get(key).is_some(), "{key} is missing in {json}");
        }
    }

    #[test]
    fn a_run_has_all_keys() {
        let run = json!({
            "id": 1, "type": "software-update", "app": "orders", "trigger": "manual", "started_by": "root",
            "state": "queued", "queued_at": "2026-11-22T01:30:00Z"
        });
        let keys = "id job app trigger state outcome from_version to_version started_at finished_at downtime_ms steps";
        assert_keys::<RunView>(run, keys);
        let step = json!({"step": "swap", "state": "pending", "attempts": 0});
        assert_keys::<super::run::StepView>(step, "step state started_at finished_at attempts message");
    }

    #[test]
    fn a_session_has_all_keys() {
        let session = json!({"id": "41", "app": "orders", "user": "anna"});
        assert_keys::<SessionView>(session, "id app user workstation since last_activity unsaved answer");
    }

    #[test]
    fn a_job_has_all_keys() {
        let job = json!({
            "name": "nightly", "title": "", "type": "software-update", "app": "orders", "enabled": true,
            "start": {"kind": "immediate"}, "remarks": "", "max_runtime": "4h", "misfire": "run",
            "misfire_tolerance": "4h", "mail": [], "created_by": "root", "created_at": "2026-11-22T01:30:00Z",
            "updated_at": "2026-11-22T01:30:00Z"
        });
        assert_keys::<super::job::JobView>(job, "name title type app enabled start due_at last_run");
        assert_keys::<super::job::StartView>(json!({"kind": "immediate"}), "kind local zone at");
    }
}
