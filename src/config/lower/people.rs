//! What concerns users and operators: `sessions`, `sessions_per_user_max`, `gate`, `grace`, `reminders`, `open_gate`,
//! `report` and `hooks`.

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::GateInput;
use crate::config::input::HookInput;
use crate::config::input::OpenGateInput;
use crate::config::input::ReportInput;
use crate::config::input::ReportMailInput;
use crate::config::input::SessionsInput;
use crate::config::lower::check;
use crate::config::settings::GateSettings;
use crate::config::settings::HookSettings;
use crate::config::settings::OpenGate;
use crate::config::settings::PeopleSettings;
use crate::config::settings::ReportMail;
use crate::config::settings::ReportSettings;
use crate::config::settings::SessionsSettings;
use crate::domain::command::Tree;
use crate::domain::span::Span;

const GRACE: Span = Span::mins(5);
const REMINDERS: [Span; 3] = [Span::mins(5), Span::mins(2), Span::secs(30)];
const POLITE_END: Span = Span::secs(30);
const CENSUS_WAIT: Span = Span::mins(10);
const SESSIONS_DEADLINE: Span = Span::secs(30);
const GATE_DEADLINE: Span = Span::secs(30);
const HOOKS_DEADLINE: Span = Span::hours(1);
const SESSIONS_PER_USER_MAX: u32 = 16;
const LANGUAGE: &str = "en";

/// How long users have, and when they are reminded: descending, each once.
pub(super) fn grace(
    place: &Place,
    grace: Option<Span>,
    reminders: Option<Vec<Span>>,
) -> Result<(Span, Vec<Span>), Problem> {
    // No grace at all is a choice: `grace = "0s"`.
    let grace = grace.unwrap_or(GRACE);
    let place = place.key("reminders");
    let mut reminders = match reminders {
        None => REMINDERS.into_iter().filter(|reminder| *reminder <= grace).collect(),
        Some(reminders) => {
            for (index, reminder) in reminders.iter().enumerate() {
                let place = place.index(index);
                check::span(&place, Some(*reminder), GRACE)?;
                if *reminder > grace {
                    return Err(place
                        .wrong(format!("{reminder} before the end comes before the grace of {grace} begins"))
                        .hint("shorten the reminder or lengthen `grace`"));
                }
            }
            reminders
        }
    };
    reminders.sort_unstable_by(|a, b| b.cmp(a));
    reminders.dedup();
    Ok((grace, reminders))
}

/// How long a session is given to close by itself.
pub(super) fn polite_end(place: &Place, span: Option<Span>) -> Result<Span, Problem> {
    check::span(&place.key("polite_end"), span, POLITE_END)
}

/// How long an unknown census is waited for.
pub(super) fn census_wait(place: &Place, span: Option<Span>) -> Result<Span, Problem> {
    check::span(&place.key("census_wait"), span, CENSUS_WAIT)
}

/// Who is asked about sessions; the workstations where nothing is said.
pub(super) fn sessions(
    place: &Place,
    input: Option<Vec<SessionsInput>>,
    tree: &Tree,
) -> Result<Vec<SessionsSettings>, Problem> {
    let Some(input) = input else { return Ok(vec![SessionsSettings::Workstations]) };
    let mut all: Vec<SessionsSettings> = Vec::new();
    for (index, input) in input.into_iter().enumerate() {
        let place = place.index(index);
        let one = sessions_entry(&place, input, tree)?;
        if one == SessionsSettings::Workstations && all.contains(&one) {
            return Err(place.wrong("asks the workstations a second time"));
        }
        all.push(one);
    }
    Ok(all)
}

/// How many sessions of one user's may be registered at once.
pub(super) fn sessions_per_user_max(place: &Place, number: Option<u32>) -> Result<u32, Problem> {
    check::at_least_one(&place.key("sessions_per_user_max"), number.unwrap_or(SESSIONS_PER_USER_MAX))
}

/// Whose sessions count.
pub(super) fn people(
    place: &Place,
    users: Option<Vec<String>>,
    group: Option<String>,
) -> Result<PeopleSettings, Problem> {
    let name = |place: &Place, text: String| match check::text(place, text)? {
        text if text.contains([' ', ',', ':']) => {
            Err(place.wrong(format!("\"{text}\" is not one name")).hint("write users = [\"anna\", \"bert\"]"))
        }
        text => Ok(text),
    };
    let users_place = place.key("users");
    let each = |(index, text): (usize, String)| name(&users_place.index(index), text);
    let users = users.map(|users| users.into_iter().enumerate().map(each).collect()).transpose()?;
    Ok(PeopleSettings { users, group: group.map(|text| name(&place.key("group"), text)).transpose()? })
}

fn sessions_entry(place: &Place, input: SessionsInput, tree: &Tree) -> Result<SessionsSettings, Problem> {
    let commands = [
        ("message", input.message.is_some()),
        ("end", input.end.is_some()),
        ("deadline", input.deadline.is_some()),
        ("ignore_users", input.ignore_users.is_some()),
    ];
    let kinds = [("workstations", input.workstations.is_some()), ("list", input.list.is_some())];
    let kind = check::exactly_one(place, &kinds)?;
    check::only_with(place, "list", kind == "list", &commands)?;
    match input.list {
        Some(list) => Ok(SessionsSettings::Commands {
            list: check::command(&place.key("list"), list, tree)?,
            message: check::maybe_command(&place.key("message"), input.message, tree)?,
            end: check::maybe_command(&place.key("end"), input.end, tree)?,
            deadline: check::span(&place.key("deadline"), input.deadline, SESSIONS_DEADLINE)?,
            ignore_users: {
                let place = place.key("ignore_users");
                let each = |(index, text): (usize, String)| check::text(&place.index(index), text);
                input.ignore_users.unwrap_or_default().into_iter().enumerate().map(each).collect::<Result<_, _>>()?
            },
        }),
        None if input.workstations == Some(true) => Ok(SessionsSettings::Workstations),
        None => Err(place
            .key("workstations")
            .wrong("can only be true")
            .hint("leave the entry out where workstations are not to be asked; `sessions = []` asks nobody")),
    }
}

/// What else closes and opens with the gate.
pub(super) fn gate(place: &Place, input: Vec<GateInput>, tree: &Tree) -> Result<Vec<GateSettings>, Problem> {
    input.into_iter().enumerate().map(|(index, input)| gate_entry(&place.index(index), input, tree)).collect()
}

fn gate_entry(place: &Place, input: GateInput, tree: &Tree) -> Result<GateSettings, Problem> {
    let commands = input.close.is_some() || input.open.is_some();
    let kind = check::exactly_one(place, &[("file", input.file.is_some()), ("close", commands)])?;
    check::only_with(place, "close", kind == "close", &[("deadline", input.deadline.is_some())])?;
    if let Some(file) = input.file {
        return Ok(GateSettings::File(check::path(&place.key("file"), &file)?));
    }
    let must = |key: &str, args| {
        let place = place.key(key);
        let args = Option::ok_or_else(args, || place.missing("`close` and `open` belong together"))?;
        check::command(&place, args, tree)
    };
    Ok(GateSettings::Commands {
        close: must("close", input.close)?,
        open: must("open", input.open)?,
        deadline: check::span(&place.key("deadline"), input.deadline, GATE_DEADLINE)?,
    })
}

/// When users are admitted again.
pub(super) fn open_gate(place: &Place, input: Option<OpenGateInput>, tree: &Tree) -> Result<OpenGate, Problem> {
    match input {
        None | Some(OpenGateInput::Automatic) => Ok(OpenGate::Automatic),
        Some(OpenGateInput::ByHand) => Ok(OpenGate::ByHand),
        Some(OpenGateInput::After(args)) => Ok(OpenGate::After(check::command(&place.key("after"), args, tree)?)),
    }
}

/// Who is told.
pub(super) fn report(place: &Place, input: ReportInput) -> Result<ReportSettings, Problem> {
    let group_place = place.key("group");
    let group = input.group.iter().enumerate();
    let group: Result<_, _> = group.map(|(i, text)| check::mail_address(&group_place.index(i), text)).collect();
    let language = input.language.unwrap_or_else(|| LANGUAGE.to_owned());
    let is_tag = language.starts_with(|c: char| c.is_ascii_alphabetic())
        && language.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !is_tag {
        return Err(place
            .key("language")
            .wrong(format!("\"{language}\" is no language"))
            .hint("write \"en\" or \"de\""));
    }
    let mail = match input.mail {
        None => ReportMail::default(),
        Some(ReportMailInput::Always) => ReportMail::Always,
        Some(ReportMailInput::WhenSomethingHappened) => ReportMail::WhenSomethingHappened,
        Some(ReportMailInput::OnFailure) => ReportMail::OnFailure,
    };
    Ok(ReportSettings { started_by: input.started_by.unwrap_or(true), group: group?, mail, language })
}

/// Commands of the administrator's own.
pub(super) fn hooks(place: &Place, input: HookInput, tree: &Tree) -> Result<HookSettings, Problem> {
    Ok(HookSettings {
        before_stop: check::maybe_command(&place.key("before_stop"), input.before_stop, tree)?,
        after_start: check::maybe_command(&place.key("after_start"), input.after_start, tree)?,
        deadline: check::span(&place.key("deadline"), input.deadline, HOOKS_DEADLINE)?,
    })
}
