//! How the state of the workstations reads to who sits at one.

use std::collections::BTreeMap;

use crate::cli::text::Times;
use crate::domain::name::AppName;
use crate::domain::session::Answer;
use crate::wire::workstation::OwnSession;
use crate::wire::workstation::StationStatus;

/// The applications, with the programs of who asks.
pub(crate) fn status(stands: &BTreeMap<AppName, StationStatus>, times: &Times) -> String {
    if stands.is_empty() {
        return "You have no program under the gate here; `afterhours client status --app APP` shows an application."
            .to_owned();
    }
    stands.iter().map(|(app, status)| one(app, status, times)).collect::<Vec<_>>().join("\n")
}

fn one(app: &AppName, status: &StationStatus, times: &Times) -> String {
    let mut lines = Vec::new();
    match &status.closed {
        None => lines.push(format!("{app}: open")),
        Some(closed) => {
            let until = closed.until.filter(|at| !times.is_past(*at));
            let until = until.map(|at| format!(" until {}", times.at_and_away(at))).unwrap_or_default();
            lines.push(format!("{app}: closed{until}"));
            lines.push(format!("  why:       {}", closed.text));
        }
    }
    if let Some(notice) = &status.notice {
        lines.push(format!("  announced: {}", notice.reason));
        lines.push(format!("  closes:    {}", times.at_and_away(notice.ends_at)));
    }
    lines.push(format!("  logged in: {}", status.sessions));
    lines.extend(status.own.iter().map(|own| format!("  yours:     {}", session(own, times))));
    lines.join("\n")
}

fn session(own: &OwnSession, times: &Times) -> String {
    let place = own.workstation.as_ref().map(|place| format!(" at {place}")).unwrap_or_default();
    let since = own.since.map(|since| format!(", since {}", times.at(since))).unwrap_or_default();
    let waits = if own.waits { ", waits for the end of the update" } else { "" };
    let answer = match own.answer {
        None => "",
        Some(Answer::Ok) => ", answered OK",
        Some(Answer::NotNow) => ", answered not now",
        Some(Answer::RestartAfterwards) => ", answered restart",
    };
    format!("{}{place}{since}{answer}{waits}", own.session)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use chrono::TimeDelta;
    use chrono_tz::Tz;

    use super::*;
    use crate::domain::session::Notice;
    use crate::domain::session::SessionId;
    use crate::wire::workstation::ClosedText;

    #[test]
    fn who_sits_there_reads_no_json() {
        let now = DateTime::UNIX_EPOCH;
        let soon = now + TimeDelta::minutes(5);
        let times = Times::in_zone(now, Tz::UTC);
        let own = OwnSession {
            session: SessionId("ws-0badcafe".into()),
            workstation: Some("pc-3".into()),
            since: Some(now),
            answer: Some(Answer::NotNow),
            waits: false,
        };
        let closed = ClosedText { text: "Order desk is being updated".into(), until: Some(soon) };
        let notice = Notice {
            title: "Order desk".into(),
            reason: "version 2 will be installed.".into(),
            ends_at: soon,
            back_at: None,
        };
        let stands = StationStatus { closed: Some(closed), notice: Some(notice), sessions: 2, own: vec![own] };
        let stands = [("crm", StationStatus::default()), ("orders", stands)];
        let stands = stands.map(|(app, status)| (app.parse().unwrap(), status)).into();
        assert_eq!(
            status(&stands, &times),
            "\
crm: open
  logged in: 0
orders: closed until Thu 1970-01-01 00:05:00 (in 5m)
  why:       Order desk is being updated
  announced: version 2 will be installed.
  closes:    Thu 1970-01-01 00:05:00 (in 5m)
  logged in: 2
  yours:     ws-0badcafe at pc-3, since Thu 1970-01-01 00:00:00, answered not now"
        );
        assert!(status(&BTreeMap::new(), &times).contains("--app APP"));
    }
}
