//! What stops with an application's units, and in which order all of it comes back. Pure: facts in, plan out.
//!
//! ```text
//! ours      the units that are named in the settings
//!           what a target of ours wants or requires, what a slice of ours holds
//!           what is part of one of ours or bound to it: systemd stops it along
//!           what triggers one of ours (socket, path, timer), and what is triggered by one of ours
//! outside   what requires one of these and runs: systemd stops it along, and it is nobody's wish
//! ```
//!
//! Starting a unit brings back what it wants, and nothing that was stopped because of it: a part of a
//! unit, a socket, a timer stay down until somebody starts them. So a plan names every unit and its place in the order.
//!
//! A graph may be incomplete: [`Plan::unknown`] says which units have to be looked up, then it is planned again.
//!
//! Deliberately absent: what a *service* requires or wants (its database, the network). It is not stopped by a stop of
//! the service. Where nobody else wants it, [`Plan::stays`] names it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// The relations that are read, as systemd calls them.
pub(crate) const RELATIONS: [&str; 16] = [
    "Requires",
    "Wants",
    "BindsTo",
    "Upholds",
    "RequiredBy",
    "RequisiteOf",
    "WantedBy",
    "BoundBy",
    "UpheldBy",
    "ConsistsOf",
    "PropagatesStopTo",
    "SliceOf",
    "Triggers",
    "TriggeredBy",
    "After",
    "Before",
];
/// What starts another unit by itself.
const TRIGGERS: [&str; 3] = [".socket", ".path", ".timer"];
/// What a target's own units can be.
const MEMBERS: [&str; 5] = [".service", ".socket", ".path", ".timer", ".target"];
/// What can be kept down. A target of the system's never is: the boot would end there.
const HOLDABLE: [&str; 4] = [".service", ".socket", ".path", ".timer"];
/// The machine's own: never a part of an application, whoever wants them.
const OF_THE_MACHINE: [&str; 33] = [
    "basic.target",
    "boot-complete.target",
    "bluetooth.target",
    "ctrl-alt-del.target",
    "default.target",
    "emergency.target",
    "final.target",
    "getty.target",
    "graphical.target",
    "initrd.target",
    "local-fs-pre.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "network-pre.target",
    "network.target",
    "nss-lookup.target",
    "nss-user-lookup.target",
    "paths.target",
    "printer.target",
    "remote-fs-pre.target",
    "remote-fs.target",
    "rescue.target",
    "rpcbind.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "time-set.target",
    "time-sync.target",
    "timers.target",
    "umount.target",
];
/// Of these, what must never stop: the machine, or the way to systemd, would go with it.
const VITAL: [&str; 3] = ["basic.target", "local-fs.target", "sysinit.target"];

/// What is known of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its name; a unit may be asked for by an alias.
    pub(crate) name: String,
    /// `loaded`, `not-found`, `masked`, …
    pub(crate) load: String,
    /// `active`, `inactive`, `failed`, …
    pub(crate) active: String,
    /// A service that is over when its command is, and is at it.
    pub(crate) is_at_once: bool,
    /// A socket that starts one service for each connection.
    pub(crate) accepts: bool,
    /// [`RELATIONS`].
    pub(crate) links: BTreeMap<&'static str, Vec<String>>,
}

/// All units that were looked up, by name.
pub(crate) type Graph = BTreeMap<String, Facts>;

/// Why a unit is in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tie {
    /// It stands in the settings.
    Named,
    /// This target wants it, or this slice holds it.
    MemberOf(String),
    /// It is part of this unit.
    PartOf(String),
    /// It is bound to this unit.
    BoundTo(String),
    /// It starts this unit by itself.
    Starts(String),
    /// This unit starts it.
    StartedBy(String),
    /// It requires this unit, and is not known to belong to the application.
    Requires(String),
}

/// One unit of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) tie: Tie,
    /// Whether it belongs to the application.
    pub(crate) is_ours: bool,
    /// Whether it runs now, and is therefore started again.
    pub(crate) returns: bool,
    /// Whether its start is over only when its work is.
    pub(crate) is_at_once: bool,
    /// Its place in the order of starting; units with the same number do not wait for each other.
    pub(crate) wave: u32,
}

/// What will be stopped, kept down, verified and started again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order of starting.
    pub(crate) units: Vec<Planned>,
    /// What has to be looked up first; the plan is not complete before.
    pub(crate) unknown: BTreeSet<String>,
    /// A unit that would stop along and must not.
    pub(crate) forbidden: Option<(String, Tie)>,
    /// What only units of ours want, and which goes on running: the unit, and who wants it.
    pub(crate) stays: Vec<(String, String)>,
}

impl Facts {
    fn linked<'f>(&'f self, relations: &'f [&'static str]) -> impl Iterator<Item = &'f String> {
        relations.iter().filter_map(|relation| self.links.get(relation)).flatten()
    }

    fn is_loaded(&self) -> bool {
        self.load == "loaded"
    }

    /// Whether it is up, or on its way there.
    fn runs(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "refreshing" | "activating")
    }

    /// What belongs to the application because this unit does.
    fn drawn(&self, is_named: bool) -> Vec<(String, Tie)> {
        let mut drawn = Vec::new();
        let mut draw = |relations: &[&'static str], tie: fn(String) -> Tie, filter: fn(&str) -> bool| {
            let linked = self.linked(relations).filter(|name| filter(name));
            drawn.extend(linked.map(|name| (name.clone(), tie(self.name.clone()))));
        };
        let is_member = |name: &str| ends_with_one(name, &MEMBERS) && !is_of_the_machine(name);
        if self.name.ends_with(".target") {
            draw(&["Requires", "Wants", "BindsTo", "Upholds"], Tie::MemberOf, is_member);
        }
        if is_named && self.name.ends_with(".slice") {
            draw(&["SliceOf", "RequiredBy"], Tie::MemberOf, |_| true);
        }
        if is_trigger(&self.name) {
            draw(&["Triggers"], Tie::StartedBy, is_member);
        }
        draw(&["ConsistsOf", "PropagatesStopTo"], Tie::PartOf, |_| true);
        draw(&["BoundBy"], Tie::BoundTo, |_| true);
        draw(&["TriggeredBy"], Tie::Starts, |_| true);
        drawn
    }

    /// What systemd stops along although it is not ours.
    fn dragged(&self, is_ours: bool) -> Vec<(String, Tie)> {
        let relations: &[&'static str] = match is_ours {
            true => &["RequiredBy", "RequisiteOf"],
            false => &["RequiredBy", "RequisiteOf", "ConsistsOf", "PropagatesStopTo", "BoundBy", "TriggeredBy"],
        };
        self.linked(relations).map(|name| (name.clone(), Tie::Requires(self.name.clone()))).collect()
    }
}

impl Planned {
    /// Whether it is kept from being started by anybody else.
    pub(crate) fn is_held(&self) -> bool {
        ends_with_one(&self.name, &HOLDABLE) || (self.is_ours && self.name.ends_with(".target"))
    }
}

impl Plan {
    /// In which order they are stopped: first what would start others, then the order of starting backwards.
    pub(crate) fn stop_order(&self) -> Vec<Vec<String>> {
        let names = |units: Vec<&Planned>| units.into_iter().map(|unit| unit.name.clone()).collect::<Vec<_>>();
        let (triggers, rest): (Vec<&Planned>, Vec<&Planned>) =
            self.units.iter().partition(|unit| is_trigger(&unit.name));
        let mut waves: BTreeMap<u32, Vec<&Planned>> = BTreeMap::new();
        for unit in rest {
            waves.entry(unit.wave).or_default().push(unit);
        }
        let waves = waves.into_values().rev();
        [triggers].into_iter().chain(waves).map(names).filter(|names| !names.is_empty()).collect()
    }
}

/// Plans for the units that are `named`, in the order of the settings; `own` is the unit of this process.
pub(crate) fn plan(graph: &Graph, named: &[String], own: Option<&str>) -> Plan {
    let mut plan = Plan::default();
    let mut found: Vec<(String, Tie)> = named.iter().map(|name| (name.clone(), Tie::Named)).collect();
    let mut next = 0;
    while let Some((name, tie)) = found.get(next).cloned() {
        next += 1;
        let Some(facts) = look(graph, &name, &mut plan.unknown) else { continue };
        for (name, tie) in facts.drawn(tie == Tie::Named) {
            let is_self = matches!(tie, Tie::MemberOf(_) | Tie::StartedBy(_)) && own == Some(&name);
            let is_known = found.iter().any(|(known, _)| *known == name);
            // Whom nobody can start is neither in the way nor missed.
            let is_there = look(graph, &name, &mut plan.unknown).is_some_and(Facts::is_loaded);
            if is_there && !is_known && !is_self {
                found.push((name, tie));
            }
        }
    }
    let ours: BTreeSet<String> = found.iter().map(|(name, _)| name.clone()).collect();
    next = 0;
    while let Some((name, _)) = found.get(next).cloned() {
        next += 1;
        let Some(facts) = graph.get(&name) else { continue };
        for (name, tie) in facts.dragged(ours.contains(&name)) {
            let runs = look(graph, &name, &mut plan.unknown).is_some_and(|facts| facts.is_loaded() && facts.runs());
            if runs && !found.iter().any(|(known, _)| *known == name) {
                found.push((name, tie));
            }
        }
    }
    plan.forbidden = found
        .iter()
        .find(|(name, tie)| *tie != Tie::Named && (own == Some(name) || is_vital(name)))
        .map(|(name, tie)| (name.clone(), tie.clone()));
    plan.stays = stays(graph, &ours, &mut plan.unknown);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let waves = waves(graph, &names, named);
    for (place, (name, tie)) in found.iter().enumerate() {
        let facts = graph.get(name);
        plan.units.push(Planned {
            is_ours: ours.contains(name),
            returns: facts.is_some_and(|facts| returns(graph, facts)),
            is_at_once: facts.is_some_and(|facts| facts.is_at_once),
            wave: waves[place],
            name: name.clone(),
            tie: tie.clone(),
        });
    }
    plan.units.sort_by_key(|unit| unit.wave);
    plan
}

fn look<'g>(graph: &'g Graph, name: &str, unknown: &mut BTreeSet<String>) -> Option<&'g Facts> {
    let facts = graph.get(name);
    if facts.is_none() {
        unknown.insert(name.to_owned());
    }
    facts
}

/// What runs is started again, but for what comes by itself: work that a timer or a path orders, and what belongs
/// to one connection.
fn returns(graph: &Graph, facts: &Facts) -> bool {
    let mut triggers = facts.linked(&["TriggeredBy"]).filter_map(|name| graph.get(name)).peekable();
    let has_trigger = triggers.peek().is_some();
    facts.runs() && !triggers.any(|trigger| trigger.accepts) && !(facts.is_at_once && has_trigger)
}

/// What services of ours want and nobody else does.
fn stays(graph: &Graph, ours: &BTreeSet<String>, unknown: &mut BTreeSet<String>) -> Vec<(String, String)> {
    let mut stays: Vec<(String, String)> = Vec::new();
    for facts in ours.iter().filter(|name| name.ends_with(".service")).filter_map(|name| graph.get(name)) {
        for name in facts.linked(&["Requires", "Wants", "BindsTo", "Upholds"]) {
            if !name.ends_with(".service") || is_of_the_machine(name) || ours.contains(name) {
                continue;
            }
            let Some(wanted) = look(graph, name, unknown) else { continue };
            let mut wanted_by = wanted.linked(&["WantedBy", "RequiredBy", "BoundBy", "UpheldBy"]);
            if wanted.is_loaded()
                && wanted.runs()
                && wanted_by.all(|by| ours.contains(by))
                && !stays.iter().any(|(known, _)| known == name)
            {
                stays.push((name.clone(), facts.name.clone()));
            }
        }
    }
    stays
}

/// The place of each unit in the order of starting.
fn waves(graph: &Graph, names: &[&str], named: &[String]) -> Vec<u32> {
    let before: Vec<Vec<usize>> = names
        .iter()
        .map(|name| {
            let is_before = |other: &str| other != *name && comes_before(graph, named, other, name);
            (0..names.len()).filter(|place| is_before(names[*place])).collect()
        })
        .collect();
    let mut waves = vec![None; names.len()];
    for place in 0..names.len() {
        depth(place, &before, &mut waves, &mut Vec::new());
    }
    waves.into_iter().map(Option::unwrap_or_default).collect()
}

fn depth(place: usize, before: &[Vec<usize>], waves: &mut [Option<u32>], way: &mut Vec<usize>) -> u32 {
    if let Some(wave) = waves[place] {
        return wave;
    }
    way.push(place);
    // In a circle somebody has to be the first.
    let earlier: Vec<usize> = before[place].iter().copied().filter(|earlier| !way.contains(earlier)).collect();
    let wave = earlier.into_iter().map(|earlier| depth(earlier, before, waves, way) + 1).max().unwrap_or(0);
    way.pop();
    waves[place] = Some(wave);
    wave
}

/// Whether `first` has to be started before `then`.
fn comes_before(graph: &Graph, named: &[String], first: &str, then: &str) -> bool {
    let place = |name: &str| named.iter().position(|named| named == name);
    if let (Some(first), Some(then)) = (place(first), place(then)) {
        // The administrator's word is the last one.
        return first < then;
    }
    let linked = |from: &str, relations: &[&'static str], to: &str| {
        graph.get(from).is_some_and(|facts| facts.linked(relations).any(|name| name == to))
    };
    if linked(first, &["Triggers"], then) || linked(then, &["TriggeredBy"], first) {
        // A service takes its socket from systemd; what a path or a timer starts is there before they begin.
        return first.ends_with(".socket");
    }
    if linked(then, &["Triggers"], first) || linked(first, &["TriggeredBy"], then) {
        return !then.ends_with(".socket");
    }
    linked(then, &["After"], first) || linked(first, &["Before"], then)
}

/// Whether a unit starts others by itself.
pub(crate) fn is_trigger(name: &str) -> bool {
    ends_with_one(name, &TRIGGERS)
}

fn ends_with_one(name: &str, endings: &[&str]) -> bool {
    endings.iter().any(|ending| name.ends_with(ending))
}

fn is_of_the_machine(name: &str) -> bool {
    OF_THE_MACHINE.contains(&name) || is_vital(name)
}

fn is_vital(name: &str) -> bool {
    VITAL.contains(&name) || ["systemd-", "dbus.", "dbus-broker.", "init.scope"].iter().any(|own| name.starts_with(own))
}

#[cfg(test)]
mod tests;
