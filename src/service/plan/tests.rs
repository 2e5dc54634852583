//! Tables: unit files as an administrator writes them, and what is planned for them.

use super::*;

/// A graph from lines `NAME STATE RELATION=NAME,… …`, with every relation's other direction, as systemd has it.
fn graph(lines: &[&str]) -> Graph {
    const BOTH: [(&str, &str); 9] = [
        ("Requires", "RequiredBy"),
        ("Requisite", "RequisiteOf"),
        ("Wants", "WantedBy"),
        ("BindsTo", "BoundBy"),
        ("Upholds", "UpheldBy"),
        ("PartOf", "ConsistsOf"),
        ("Triggers", "TriggeredBy"),
        ("Slice", "SliceOf"),
        ("After", "Before"),
    ];
    let mut graph = Graph::new();
    let mut links: Vec<(String, &'static str, String)> = Vec::new();
    for line in lines {
        let mut words = line.split(' ');
        let (name, state) = (words.next().unwrap(), words.next().unwrap());
        let (load, active) = if state == "absent" { ("not-found", "inactive") } else { ("loaded", state) };
        let mut facts =
            Facts { name: name.to_owned(), load: load.to_owned(), active: active.to_owned(), ..Facts::default() };
        for word in words {
            match word.split_once('=') {
                Some((relation, others)) => {
                    let (one, other) = BOTH.into_iter().find(|(one, _)| *one == relation).expect("a known relation");
                    for name in others.split(',') {
                        links.push((facts.name.clone(), one, name.to_owned()));
                        links.push((name.to_owned(), other, facts.name.clone()));
                    }
                }
                None => match word {
                    "accepts" => facts.accepts = true,
                    "at-once" => facts.is_at_once = true,
                    other => panic!("{other}"),
                },
            }
        }
        graph.insert(name.to_owned(), facts);
    }
    for (name, relation, other) in links {
        if let (Some(facts), true) = (graph.get_mut(&name), RELATIONS.contains(&relation)) {
            facts.links.entry(relation).or_default().push(other);
        }
    }
    graph
}

/// A plan in one line a unit: its name, `ours` or `outside`, what becomes of it.
fn planned(lines: &[&str], named: &[&str]) -> Plan {
    let named: Vec<String> = named.iter().map(|&name| name.to_owned()).collect();
    let plan = plan(&graph(lines), &named, Some("afterhours.service"));
    assert_eq!(plan.unknown, BTreeSet::new(), "the graph is complete");
    plan
}

fn told(plan: &Plan) -> Vec<String> {
    let line = |unit: &Planned| {
        let whose = if unit.is_ours { "ours" } else { "outside" };
        let then = if unit.returns { "returns" } else { "stays down" };
        format!("{} {} {whose}, {then}{}", unit.wave, unit.name, if unit.is_held() { "" } else { ", not held" })
    };
    plan.units.iter().map(line).collect()
}

#[test]
fn what_belongs_to_a_unit() {
    for (what, lines, named, expected) in [
        (
            "a service alone, whatever it needs",
            &[
                "web.service active Requires=db.service,system.slice,sysinit.target Wants=net.service After=db.service",
                "db.service active",
                "net.service active",
                "multi-user.target active Wants=web.service,db.service,net.service",
            ][..],
            &["web.service"][..],
            &["0 web.service ours, returns"][..],
        ),
        (
            "a target's wanted units, at any depth, but nothing of the machine's",
            &[
                "z.target active Wants=web.service,jobs.target,network.target,gone.service Requires=basic.target After=web.service,jobs.target",
                "jobs.target active Wants=one.service,two.service After=one.service,two.service",
                "web.service active",
                "one.service active After=web.service",
                "two.service failed",
                "gone.service absent",
            ],
            &["z.target"],
            &[
                "0 web.service ours, returns",
                "0 two.service ours, stays down",
                "1 one.service ours, returns",
                "2 jobs.target ours, returns",
                "3 z.target ours, returns",
            ],
        ),
        (
            "the instances of a template",
            &[
                "z.target active Wants=w@1.service,w@2.service After=w@1.service,w@2.service",
                "w@1.service active",
                "w@2.service inactive",
            ],
            &["z.target"],
            &["0 w@1.service ours, returns", "0 w@2.service ours, stays down", "1 z.target ours, returns"],
        ),
        (
            "parts of it and what is bound to it, and their parts",
            &[
                "web.service active",
                "worker.service active PartOf=web.service After=web.service",
                "side.service activating BindsTo=worker.service After=worker.service",
                "off.service inactive PartOf=web.service",
            ],
            &["web.service"],
            &[
                "0 web.service ours, returns",
                "0 off.service ours, stays down",
                "1 worker.service ours, returns",
                "2 side.service ours, returns",
            ],
        ),
        (
            "sockets before the service, paths and timers after it",
            &[
                "z.socket active Triggers=z.service",
                "z.path active Triggers=z.service",
                "z.timer active Triggers=z.service",
                "z.service active After=z.timer,z.path,z.socket",
            ],
            &["z.service"],
            &[
                "0 z.socket ours, returns",
                "1 z.service ours, returns",
                "2 z.path ours, returns",
                "2 z.timer ours, returns",
            ],
        ),
        (
            "what a timer of the target orders, and does not wait to be started again",
            &[
                "z.target active Wants=clean.timer After=clean.timer",
                "clean.timer active Triggers=clean.service",
                "clean.service activating at-once",
            ],
            &["z.target"],
            &["0 clean.service ours, stays down", "1 clean.timer ours, returns", "2 z.target ours, returns"],
        ),
        (
            "one service for each connection",
            &["z.socket active accepts Triggers=z@7.service", "z@7.service active"],
            &["z.socket"],
            &["0 z.socket ours, returns", "1 z@7.service ours, stays down"],
        ),
        (
            "a slice and what it holds",
            &["z.slice active", "a.service active Requires=z.slice Slice=z.slice After=z.slice"],
            &["z.slice"],
            &["0 z.slice ours, returns, not held", "1 a.service ours, returns"],
        ),
        (
            "what requires it and runs is outside, and comes back",
            &[
                "web.service active",
                "monitor.service active Requires=web.service After=web.service",
                "monitor.timer active Triggers=monitor.service",
                "off.service inactive Requires=web.service",
                "multi-user.target active Requires=web.service After=web.service",
            ],
            &["web.service"],
            &[
                "0 web.service ours, returns",
                "1 monitor.service outside, returns",
                "1 multi-user.target outside, returns, not held",
                "2 monitor.timer outside, returns",
            ],
        ),
        (
            "a list in its own order, whatever the units say",
            &["web.service active Requires=worker.service After=worker.service", "worker.service active"],
            &["web.service", "worker.service"],
            &["0 web.service ours, returns", "1 worker.service ours, returns"],
        ),
        (
            "a circle",
            &["a.service active After=b.service", "b.service active After=a.service PartOf=a.service"],
            &["a.service"],
            &["0 b.service ours, returns", "1 a.service ours, returns"],
        ),
    ] {
        let plan = planned(lines, named);
        assert_eq!(told(&plan), expected, "{what}");
        assert_eq!(plan.forbidden, None, "{what}");
    }
}

#[test]
fn what_would_start_others_is_stopped_first() {
    let lines = [
        "z.target active Wants=web.service,worker.service After=web.service,worker.service",
        "web.socket active Triggers=web.service",
        "web.service active After=web.socket",
        "worker.service active After=web.service",
        "clean.timer active Triggers=worker.service",
    ];
    let plan = planned(&lines, &["z.target"]);
    let expected: [&[&str]; 4] = [&["web.socket", "clean.timer"], &["z.target"], &["worker.service"], &["web.service"]];
    assert_eq!(plan.stop_order(), expected);
    let list = planned(&["a.service active", "b.service active"], &["a.service", "b.service"]);
    assert_eq!(list.stop_order(), [["b.service"], ["a.service"]]);
}

#[test]
fn a_stop_that_would_take_us_or_the_machine_along_is_forbidden() {
    for (dragged, why) in [
        ("afterhours.service active Requires=web.service", "we require it"),
        ("afterhours.service active PartOf=web.service", "we are part of it"),
        ("systemd-logind.service active Requires=web.service", "the machine's log-in does"),
    ] {
        let plan = planned(&["web.service active", dragged], &["web.service"]);
        let name = dragged.split(' ').next().unwrap();
        assert_eq!(plan.forbidden.map(|(name, _)| name).as_deref(), Some(name), "{why}");
    }
    let target =
        ["z.target active Wants=web.service,afterhours.service", "web.service active", "afterhours.service active"];
    let plan = planned(&target, &["z.target"]);
    assert_eq!(plan.forbidden, None, "a target that wants us does not take us along");
    assert_eq!(told(&plan), ["0 z.target ours, returns", "0 web.service ours, returns"]);
}

#[test]
fn what_only_ours_want_and_goes_on_is_named() {
    let lines = [
        "web.service active Wants=helper.service,db.service,off.service,gone.service",
        "helper.service active",
        "db.service active",
        "off.service inactive",
        "gone.service absent",
        "multi-user.target active Wants=web.service,db.service",
    ];
    let plan = planned(&lines, &["web.service"]);
    assert_eq!(plan.stays, [("helper.service".to_owned(), "web.service".to_owned())]);
}

#[test]
fn an_incomplete_graph_says_what_is_missing() {
    let lines = ["z.target active Wants=web.service", "web.service active PartOf=z.target"];
    let whole = graph(&lines);
    let mut known = Graph::new();
    let named = ["z.target".to_owned()];
    let mut rounds = 0;
    let plan = loop {
        let plan = plan(&known, &named, None);
        // What is asked for first is the named unit itself.
        if plan.unknown.is_empty() {
            break plan;
        }
        for name in plan.unknown {
            known.insert(name.clone(), whole[&name].clone());
        }
        rounds += 1;
        assert!(rounds < 5);
    };
    assert_eq!(told(&plan), ["0 z.target ours, returns", "0 web.service ours, returns"]);
}
