//! The report in German.

use crate::domain::finding::Severity;
use crate::domain::run::Idle;
use crate::domain::run::Outcome;
use crate::domain::step::Step;
use crate::notify::template::GateRemark;
use crate::notify::template::Phrases;
use crate::notify::template::RunReport;
use crate::notify::template::StepState;
use crate::notify::template::Verdict;
use crate::notify::template::idle;
use crate::notify::template::version;

pub(super) const PHRASES: Phrases = Phrases {
    subject,
    headline,
    next,
    gate,
    step,
    state,
    severity,
    build: |build| format!("Build {build}"),
    missed: |at| format!("niemand war da, um ihn am {at} zu starten"),
    idle: |job| format!("{job} hätte folgen sollen, ist aber abgeschaltet."),
    left_out: |more| format!("… und {more} weitere"),
    notes: "Was neu ist",
    cancelled: |by| format!("{by} hat den Lauf abgebrochen."),
    overlong: |limit| format!("Der Lauf dauerte länger als {limit}; mehr erlaubt der Auftrag nicht."),
    decimal: ',',
    why: "Warum",
    began_with: "Womit es begann",
    because: "weil",
    said: "es meldete",
    hint: "was hilft",
    at_step: "Schritt",
    run: "Der Lauf",
    run_label: "Lauf",
    job_label: "Auftrag",
    by_hand: "keiner (update now)",
    host_label: "Rechner",
    started_by_label: "Gestartet von",
    from_label: "Vorher",
    to_label: "Neue Version",
    began_label: "Beginn",
    ended_label: "Ende",
    took_label: "Dauer",
    away_label: "Nicht verfügbar",
    history_label: "Verlauf",
    entry: |number, hash| format!("Eintrag {number}, {hash}"),
    not_away: "zu keiner Zeit",
    closed_label: "Gesperrt",
    since: "seit",
    steps: "Schritt für Schritt",
    people: "Abgemeldet",
    backup: "Datensicherung",
    made_at: "erstellt",
    size: "Größe",
    tested: "geprüft:",
    findings: "Bitte ansehen",
    more: "Mehr",
    signature: "Afterhours auf",
};

fn subject(report: &RunReport) -> String {
    let to = version(&report.to, "die neue Version");
    let from = version(&report.from, "die alte Version");
    match &report.verdict {
        Verdict::Stuck { .. } => "Update steckt fest, SIE müssen entscheiden".to_owned(),
        Verdict::Finished(Outcome::Succeeded) => format!("auf {to} aktualisiert"),
        Verdict::Finished(Outcome::RolledBack) => {
            format!("Update auf {to} gescheitert, {from} läuft wieder{}", held(report))
        }
        Verdict::Finished(Outcome::Failed) => "nicht aktualisiert, nichts wurde verändert".to_owned(),
        Verdict::Finished(Outcome::Cancelled) => "Update abgebrochen, nichts wurde verändert".to_owned(),
        Verdict::Finished(Outcome::Skipped) => match (idle(report), &report.blocked) {
            (Idle::NothingNewer, Some(id)) => {
                format!("nicht aktualisiert, {} ist früher gescheitert und wird zurückgehalten", id.version)
            }
            (Idle::NothingNewer, None) => "nichts Neueres, bleibt wie es ist".to_owned(),
            (Idle::Missed { .. }, _) => "Start versäumt, nicht aktualisiert".to_owned(),
            (Idle::Asks { .. }, _) => "Start versäumt, SIE entscheiden, ob jetzt aktualisiert wird".to_owned(),
        },
    }
}

fn held(report: &RunReport) -> String {
    report.held.as_ref().map(|id| format!(", {} wird zurückgehalten", id.version)).unwrap_or_default()
}

fn headline(report: &RunReport) -> String {
    let title = &report.app_title;
    let to = version(&report.to, "die neue Version");
    let from = version(&report.from, "der alten Version");
    match &report.verdict {
        Verdict::Stuck { .. } => format!(
            "Das Update von {title} von {from} auf {to} kann weder vor noch zurück. Bis Sie entscheiden, geschieht nichts mehr."
        ),
        Verdict::Finished(Outcome::Succeeded) => {
            format!("{title} wurde von {from} auf {to} aktualisiert und arbeitet.")
        }
        Verdict::Finished(Outcome::RolledBack) if report.was_ill => {
            let from = version(&report.from, "die alte Version");
            format!(
                "Das Update von {title} auf {to} ist gescheitert. Programm und Daten sind wieder wie vorher: {from}, die auch vorher ihre Prüfung nicht bestand."
            )
        }
        Verdict::Finished(Outcome::RolledBack) => {
            let from = version(&report.from, "die alte Version");
            format!(
                "Das Update von {title} auf {to} ist gescheitert. Programm und Daten sind wieder wie vorher: {from} läuft wieder und arbeitet."
            )
        }
        Verdict::Finished(Outcome::Failed) => {
            format!(
                "{title} wurde nicht aktualisiert. Die Anwendung wurde nicht angehalten und nichts wurde verändert."
            )
        }
        Verdict::Finished(Outcome::Cancelled) => format!(
            "Das Update von {title} wurde abgebrochen. Die Anwendung wurde nicht angehalten und nichts wurde verändert."
        ),
        Verdict::Finished(Outcome::Skipped) => match idle(report) {
            Idle::NothingNewer => format!("{title} bleibt, wie es ist."),
            Idle::Missed { .. } => {
                format!("{title} wurde nicht aktualisiert: Der Start wurde versäumt und wird nicht nachgeholt.")
            }
            Idle::Asks { .. } => format!(
                "{title} wurde nicht aktualisiert: Der Start wurde versäumt, und nach dem Auftrag entscheiden Sie, was nun geschieht."
            ),
        },
    }
}

fn next(report: &RunReport) -> (String, Vec<String>) {
    let (run, app) = (report.run, &report.app);
    let (mut text, mut commands) = match &report.verdict {
        Verdict::Stuck { .. } => (
            "Zu tun: Beheben Sie den Grund (siehe unten) und lassen Sie es noch einmal versuchen. Oder sehen Sie sich die Anwendung an und sagen Sie, welche Version gelten soll.",
            vec![
                format!("afterhours run show {run}"),
                format!("afterhours run retry {run}"),
                format!("afterhours run resolve {run} --as old"),
                format!("afterhours run resolve {run} --as new"),
            ],
        ),
        Verdict::Finished(Outcome::Skipped) if report.blocked.is_some() => (
            "Zu tun: Bitten Sie den Hersteller um eine berichtigte Version. Soll die zurückgehaltene noch einmal \
             versucht werden, erlauben Sie sie.",
            vec![],
        ),
        Verdict::Finished(Outcome::Succeeded | Outcome::Skipped) if report.gate == GateRemark::Open => {
            ("Zu tun: nichts.", vec![])
        }
        Verdict::Finished(Outcome::Succeeded) => {
            ("Zu tun: Sehen Sie nach und lassen Sie dann die Benutzer wieder hinein.", vec![])
        }
        Verdict::Finished(Outcome::RolledBack) if report.held.is_some() => (
            "Zu tun: Der Grund steht unten; fragen Sie den Hersteller. Diese Version wird nicht von selbst noch einmal versucht, \
             und neuere warten hinter ihr, bis Sie sie erlauben.",
            vec![],
        ),
        Verdict::Finished(Outcome::RolledBack) => {
            ("Zu tun: Der Grund steht unten. Es lag nicht an der Version; sie wird wieder versucht.", vec![])
        }
        Verdict::Finished(Outcome::Failed) => (
            "Zu tun: Der Grund steht unten; beheben Sie ihn, prüfen Sie und starten Sie den Auftrag noch einmal.",
            vec![format!("afterhours doctor {app}")],
        ),
        Verdict::Finished(Outcome::Cancelled) => ("Zu tun: Starten Sie den Auftrag wieder, wenn es passt.", vec![]),
        Verdict::Finished(Outcome::Skipped) => ("Zu tun: Lassen Sie die Benutzer hinein, wenn es so weit ist.", vec![]),
    };
    if let (Verdict::Finished(Outcome::Skipped), Some(job)) = (&report.verdict, &report.job) {
        let now = format!("afterhours job run {job}");
        (text, commands) = match idle(report) {
            Idle::NothingNewer => (text, commands),
            Idle::Missed { .. } => ("Zu tun: nichts, oder starten Sie ihn jetzt.", vec![now]),
            Idle::Asks { .. } => (
                "Zu tun: Starten Sie ihn jetzt mit der ersten Zeile, oder sagen Sie nein mit der zweiten; dann startet er auch nicht mehr von selbst.",
                vec![now, format!("afterhours job disable {job}")],
            ),
        };
    }
    if let GateRemark::ByHand | GateRemark::ByOperator = report.gate {
        commands.push(format!("afterhours gate open {app}"));
    }
    (text.to_owned(), commands)
}

fn gate(remark: GateRemark) -> &'static str {
    match remark {
        GateRemark::Open => "Die Anmeldung ist möglich.",
        GateRemark::ByHand => "Die Anmeldung ist noch GESPERRT, bis Sie sie von Hand freigeben.",
        GateRemark::Stuck => "So lange ist die Anmeldung GESPERRT.",
        GateRemark::ByOperator => "Die Anmeldung ist GESPERRT: Jemand hatte sie schon vor dem Lauf gesperrt.",
    }
}

fn state(state: StepState) -> &'static str {
    match state {
        StepState::Done => "fertig",
        StepState::Failed => "GESCHEITERT",
        StepState::Undone => "zurückgenommen",
        StepState::UndoFailed => "NICHT ZURÜCKGENOMMEN",
        StepState::PassedOver => "ausgelassen",
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "gut",
        Severity::Warning => "Warnung",
        Severity::Fatal => "Hindernis",
    }
}

fn step(step: Step) -> &'static str {
    match step {
        Step::Preflight => "vorab prüfen",
        Step::SelfUpdate => "Afterhours aktualisieren",
        Step::Select => "Versionen wählen",
        Step::Download => "herunterladen",
        Step::Backup => "Datensicherung",
        Step::SnapshotAhead => "Abbild, erster Durchgang",
        Step::CloseGate => "Anmeldung sperren",
        Step::Announce => "ankündigen",
        Step::Grace => "Frist",
        Step::LogOut => "abmelden",
        Step::Stop => "anhalten",
        Step::Snapshot => "Abbild",
        Step::Swap => "austauschen",
        Step::MigrateData => "Daten umstellen",
        Step::Start => "starten",
        Step::CheckHealth => "prüfen, ob sie arbeitet",
        Step::OpenGate => "Anmeldung freigeben",
        Step::Report => "berichten",
        Step::CleanUp => "aufräumen",
    }
}
