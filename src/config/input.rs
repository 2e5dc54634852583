//! The TOML as it is written: every key that is understood, and nothing checked beyond its type.
//!
//! Everything is optional here; what is missing, contradictory or out of range is said by
//! [`super::lower`], which knows the place. Which keys exist is learnt from these types by
//! [`super::schema`], so a field added here is known to the spelling check and demanded from
//! `config/default.toml` by a test.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::domain::span::Span;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct Input {
    pub(super) daemon: DaemonInput,
    pub(super) app: BTreeMap<String, AppInput>,
}

/// `[daemon]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct DaemonInput {
    pub(super) data_dir: Option<String>,
    pub(super) socket: Option<String>,
    pub(super) workstation_socket: Option<String>,
    pub(super) operator_group: Option<String>,
    pub(super) keep_history: Option<Span>,
    pub(super) keep_audit: Option<Span>,
    pub(super) self_update: Option<bool>,
    pub(super) self_update_deadline: Option<Span>,
    pub(super) self_update_root: Option<String>,
    pub(super) mail: Option<MailInput>,
}

/// `daemon.mail`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct MailInput {
    pub(super) smtp: Option<String>,
    pub(super) from: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) ca_file: Option<String>,
}

/// `[app.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct AppInput {
    pub(super) title: Option<String>,
    pub(super) install_dir: Option<String>,
    pub(super) staging_dir: Option<String>,
    pub(super) snapshot_dir: Option<String>,
    pub(super) installed_version: Option<String>,
    pub(super) keep: Vec<String>,
    pub(super) owner: Option<String>,
    pub(super) allow_migrate_as_root: Option<bool>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) keep_old: Option<u32>,
    pub(super) service: Option<ServiceInput>,
    pub(super) health: Option<HealthInput>,
    pub(super) data: Option<DataInput>,
    pub(super) backup: Option<BackupInput>,
    pub(super) feed: Option<FeedInput>,
    pub(super) updates: UpdatesInput,
    pub(super) sessions: Option<Vec<SessionsInput>>,
    pub(super) sessions_per_user_max: Option<u32>,
    pub(super) users: Option<Vec<String>>,
    pub(super) group: Option<String>,
    pub(super) gate: Vec<GateInput>,
    pub(super) grace: Option<Span>,
    pub(super) reminders: Option<Vec<Span>>,
    pub(super) polite_end: Option<Span>,
    pub(super) census_wait: Option<Span>,
    pub(super) open_gate: Option<OpenGateInput>,
    pub(super) report: ReportInput,
    pub(super) hooks: HookInput,
    pub(super) restart: Option<Args>,
}

/// `service`: one of `systemd`, `start`/`stop`/`status`, `run`, `none`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct ServiceInput {
    pub(super) systemd: Option<Names>,
    pub(super) start: Option<Args>,
    pub(super) stop: Option<Args>,
    pub(super) status: Option<Args>,
    pub(super) run: Option<Args>,
    pub(super) user: Option<String>,
    pub(super) env: Option<BTreeMap<String, String>>,
    pub(super) none: Option<bool>,
    pub(super) deadline: Option<Span>,
    pub(super) port: Option<String>,
}

/// `health`: at most one of `http`, `tcp`, `command`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct HealthInput {
    pub(super) http: Option<String>,
    pub(super) tcp: Option<String>,
    pub(super) command: Option<Args>,
    pub(super) version: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) deep: Option<Args>,
    pub(super) times: Option<u32>,
    pub(super) every: Option<Span>,
    pub(super) deadline: Option<Span>,
}

/// `data`: `paths` or `dump`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct DataInput {
    pub(super) paths: Option<Vec<String>>,
    pub(super) include: Option<Vec<String>>,
    pub(super) exclude: Option<Vec<String>>,
    pub(super) dump: Option<Args>,
    pub(super) restore: Option<Args>,
    pub(super) verify: Option<Args>,
    pub(super) deadline: Option<Span>,
}

/// `backup`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct BackupInput {
    pub(super) max_age: Option<Span>,
    pub(super) evidence: Option<EvidenceInput>,
    pub(super) make: Option<Args>,
    pub(super) deadline: Option<Span>,
    pub(super) keep_last: Option<u32>,
}

/// `backup.evidence`: one of `files`, `restic`, `borg`, `manifest`, `command`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct EvidenceInput {
    pub(super) files: Option<String>,
    pub(super) min_size_bytes: Option<u64>,
    pub(super) max_shrink_percent: Option<u32>,
    pub(super) test: Option<Args>,
    pub(super) restic: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) read_data_subset: Option<String>,
    pub(super) env: Option<BTreeMap<String, String>>,
    pub(super) borg: Option<String>,
    pub(super) passphrase_file: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) check: Option<bool>,
    pub(super) manifest: Option<String>,
    pub(super) command: Option<Args>,
}

/// `feed`: one of `dir`, `url`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct FeedInput {
    pub(super) dir: Option<String>,
    pub(super) url: Option<String>,
    pub(super) root: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) proxy: Option<String>,
    pub(super) proxy_user: Option<String>,
    pub(super) proxy_password_file: Option<String>,
    pub(super) no_proxy: Option<Vec<String>>,
    pub(super) licence_file: Option<String>,
    pub(super) bandwidth: Option<u64>,
}

/// `updates`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct UpdatesInput {
    pub(super) cool_down: Option<Span>,
    pub(super) rollout: Option<bool>,
    pub(super) check_at_start: Option<bool>,
    pub(super) check_every: Option<String>,
    pub(super) licence_class: Option<String>,
    pub(super) deltas: Option<bool>,
}

/// One of `sessions`: `workstations` or `list`/`message`/`end`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct SessionsInput {
    pub(super) workstations: Option<bool>,
    pub(super) list: Option<Args>,
    pub(super) message: Option<Args>,
    pub(super) end: Option<Args>,
    pub(super) deadline: Option<Span>,
    pub(super) ignore_users: Option<Vec<String>>,
}

/// One of `gate`: `file` or `close`/`open`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct GateInput {
    pub(super) file: Option<String>,
    pub(super) close: Option<Args>,
    pub(super) open: Option<Args>,
    pub(super) deadline: Option<Span>,
}

/// `open_gate`: a word, or `{ after = [..] }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "\"automatic\", \"by_hand\" or { after = [..] }")]
pub(super) enum OpenGateInput {
    Automatic,
    ByHand,
    After(Args),
}

/// `report`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct ReportInput {
    pub(super) started_by: Option<bool>,
    pub(super) group: Vec<String>,
    pub(super) mail: Option<ReportMailInput>,
    pub(super) language: Option<String>,
}

/// `report.mail`: a word.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "\"always\", \"when_something_happened\" or \"on_failure\"")]
pub(super) enum ReportMailInput {
    Always,
    WhenSomethingHappened,
    OnFailure,
}

/// `hooks`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct HookInput {
    pub(super) before_stop: Option<Args>,
    pub(super) after_start: Option<Args>,
    pub(super) deadline: Option<Span>,
}

/// A name, or a list of names.
#[derive(Debug)]
pub(super) struct Names(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name or a list of names")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Names, E> {
        Ok(Names(vec![name.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = seq.next_element()? {
            names.push(name);
        }
        Ok(Names(names))
    }
}

/// A command: a program and its arguments, or `{ argv = [..], as = "..", env = {..} }`. A shell line is refused with the
/// way to write it.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) argv: Vec<String>,
    pub(super) run_as: Option<String>,
    pub(super) env: BTreeMap<String, String>,
}

/// What a command is called where its schema is learnt.
pub(super) const COMMAND: &str = "Command";
/// The keys of a command that is written as a table.
const COMMAND_KEYS: [&str; 3] = ["argv", "as", "env"];

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct(COMMAND, &COMMAND_KEYS, ArgsVisitor)
    }
}

struct ArgsVisitor;

impl<'de> Visitor<'de> for ArgsVisitor {
    type Value = Args;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of a program and its arguments")
    }

    fn visit_str<E: Error>(self, line: &str) -> Result<Args, E> {
        let words: Vec<_> = line.split_whitespace().collect();
        Err(E::custom(format!("must be a list of a program and its arguments, not a shell line: write {words:?}")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Args, A::Error> {
        let mut argv = Vec::new();
        while let Some(word) = seq.next_element()? {
            argv.push(word);
        }
        Ok(Args { argv, ..Args::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Args, A::Error> {
        let mut args = Args::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "argv" => args.argv = map.next_value()?,
                "as" => args.run_as = map.next_value()?,
                "env" => args.env = map.next_value()?,
                _ => return Err(A::Error::unknown_field(&key, &COMMAND_KEYS)),
            }
        }
        Ok(args)
    }
}
