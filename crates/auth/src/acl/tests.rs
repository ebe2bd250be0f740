//! Rules as operators write them, and what they let pass.

use dunlin_broker::access::{Action, Identity, Verdict};

use super::*;

const PUBLISH: Action = Action::Publish {
    qos: 1,
    retain: false,
};
const SUBSCRIBE: Action = Action::Subscribe { qos: 1 };

fn client<'a>(clientid: &'a str, username: Option<&'a str>, peer: &str) -> Identity<'a> {
    Identity {
        clientid,
        username,
        peer: format!("{peer}:5000").parse().expect("an address"),
        listener: "tcp:default",
        cert: None,
    }
}

fn acl(text: &str) -> Acl {
    Acl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What the rules say about client `c` of user `u` at 10.1.2.3.
#[track_caller]
fn check(rules: &str, action: Action, topic: &str, expected: Option<Verdict>) {
    let who = client("c", Some("u"), "10.1.2.3");
    let verdict = acl(rules).verdict(&who, action, topic);
    assert_eq!(verdict, expected, "{rules} {action:?} {topic}");
}

const ALLOW: Option<Verdict> = Some(Verdict::Allow);
const DENY: Option<Verdict> = Some(Verdict::Deny);

#[test]
fn the_shipped_file_means_what_its_comments_say() {
    let rules = acl(include_str!("../../../../etc/acl.conf"));
    assert_eq!(rules.len(), 4);
    let dashboard = client("any", Some("dashboard"), "10.0.0.1");
    let local = client("any", None, "127.0.0.1");
    let other = client("any", Some("u"), "10.0.0.1");
    for (who, topic, expected) in [
        (&dashboard, "$SYS/#", Verdict::Allow),
        (&dashboard, "$SYS/brokers", Verdict::Allow),
        (&dashboard, "#", Verdict::Deny),
        (&local, "$SYS/#", Verdict::Allow),
        (&local, "#", Verdict::Allow),
        (&other, "$SYS/#", Verdict::Deny),
        (&other, "$SYS/brokers/+/uptime", Verdict::Deny),
        (&other, "#", Verdict::Deny),
        (&other, "+/#", Verdict::Deny),
        (&other, "t/#", Verdict::Allow),
        (&other, "+/a", Verdict::Allow),
    ] {
        let verdict = rules.verdict(who, SUBSCRIBE, topic);
        assert_eq!(verdict, Some(expected), "{who:?} {topic}");
    }
    assert_eq!(rules.verdict(&other, PUBLISH, "$SYS/x"), ALLOW);
}

#[test]
fn the_first_rule_that_applies_decides() {
    let rules = r#"{deny, all, publish, ["a/1"]}. {allow, all, publish, ["a/#"]}."#;
    check(rules, PUBLISH, "a/1", DENY);
    check(rules, PUBLISH, "a/2", ALLOW);
    check(rules, PUBLISH, "b", None);
    check(rules, SUBSCRIBE, "a/2", None);
    check("", PUBLISH, "a", None);
    check("{deny, all}.", SUBSCRIBE, "a", DENY);
}

#[test]
fn everybody_who_can_be_meant() {
    for (who, meant) in [
        ("all", true),
        (r#"{username, "u"}"#, true),
        (r#"{user, "u"}"#, true),
        (r#"{user, "v"}"#, false),
        (r#"{username, {re, "^U$"}}"#, false),
        (r#"{username, {re, "^[t-v]"}}"#, true),
        (r#"{clientid, "c"}"#, true),
        (r#"{client, <<"c">>}"#, true),
        (r#"{clientid, {re, "d"}}"#, false),
        (r#"{ipaddr, "10.1.2.3"}"#, true),
        (r#"{ipaddr, "10.0.0.0/8"}"#, true),
        (r#"{ipaddr, "0.0.0.0/0"}"#, true),
        (r#"{ipaddr, "10.1.2.4"}"#, false),
        (r#"{ipaddr, "::1"}"#, false),
        (r#"{ipaddrs, ["1.2.3.4", "10.1.2.0/24"]}"#, true),
        ("{ipaddrs, []}", false),
        (r#"{'and', [{username, "u"}, {clientid, "c"}]}"#, true),
        (r#"{'and', [{username, "u"}, {clientid, "d"}]}"#, false),
        (r#"{'or', [{username, "v"}, {clientid, "c"}]}"#, true),
        (
            r#"{'or', [{username, "v"}, {'and', [all, {client, "d"}]}]}"#,
            false,
        ),
        (r#"{client_attr, "tns", "x"}"#, false),
    ] {
        let rules = format!("{{allow, {who}, all, [\"#\"]}}.");
        check(&rules, PUBLISH, "t", meant.then_some(Verdict::Allow));
    }
    let nobody = client("c", None, "[::ffff:10.1.2.3]");
    let by_name = acl(r##"{deny, {username, {re, ".*"}}, all, ["#"]}."##);
    assert_eq!(by_name.verdict(&nobody, PUBLISH, "t"), None, "it has none");
    let by_address = acl(r##"{deny, {ipaddr, "10.0.0.0/8"}, all, ["#"]}."##);
    assert_eq!(by_address.verdict(&nobody, PUBLISH, "t"), DENY, "mapped");
}

#[test]
fn actions_with_their_options() {
    let publish = |qos, retain| Action::Publish { qos, retain };
    let rule = |what: &str| format!("{{allow, all, {what}, [\"t\"]}}.");
    check(&rule("all"), PUBLISH, "t", ALLOW);
    check(&rule("all"), SUBSCRIBE, "t", ALLOW);
    check(&rule("publish"), SUBSCRIBE, "t", None);
    check(&rule("{publish, [{qos, 1}]}"), PUBLISH, "t", ALLOW);
    check(&rule("{publish, [{qos, [0, 2]}]}"), PUBLISH, "t", None);
    let retained = rule("{publish, [{retain, true}]}");
    check(&retained, publish(0, true), "t", ALLOW);
    check(&retained, publish(0, false), "t", None);
    let mixed = rule("{all, [{qos, 0}, {retain, all}]}");
    check(&mixed, publish(0, true), "t", ALLOW);
    check(&mixed, SUBSCRIBE, "t", None);
}

#[test]
fn placeholders_are_the_clients_own() {
    let rules = r#"{allow, all, all, ["c/${clientid}/#", {eq, "u/${username}/+"}]}."#;
    check(rules, PUBLISH, "c/c/x", ALLOW);
    check(rules, PUBLISH, "c/d/x", None);
    check(rules, SUBSCRIBE, "c/c/+/y", ALLOW);
    check(rules, SUBSCRIBE, "c/+/x", None);
    check(rules, SUBSCRIBE, "u/u/+", ALLOW);
    check(rules, SUBSCRIBE, "u/u/#", None);
    let rules = acl(rules);
    for clientid in ["+", "#", "a/b"] {
        let who = client(clientid, None, "10.0.0.1");
        for topic in ["c/other/x", "c/a/b/x", "u//+"] {
            assert_eq!(rules.verdict(&who, SUBSCRIBE, topic), None, "{clientid}");
        }
    }
}

#[test]
fn what_can_never_apply_is_told() {
    let rules = acl(
        "{allow, all, all, [\"a\"]}.\n{allow, all, all, [\"x/${zone}\"]}.\n\
                     {deny, {client_attr, \"a\", \"b\"}, all, [\"#\"]}.",
    );
    let lines: Vec<u32> = rules.never().iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3]);
    check(
        "{allow, all, all, [\"x/${zone}\"]}.",
        PUBLISH,
        "x/default",
        None,
    );
}

#[test]
fn subscriptions_are_sets_of_topics() {
    check(
        r#"{allow, all, subscribe, ["t/+"]}."#,
        SUBSCRIBE,
        "t/#",
        None,
    );
    check(
        r#"{allow, all, subscribe, ["t/#"]}."#,
        SUBSCRIBE,
        "t/+/x",
        ALLOW,
    );
    check(
        r#"{deny, all, subscribe, ["t/secret"]}."#,
        SUBSCRIBE,
        "t/#",
        DENY,
    );
    check(
        r##"{deny, all, subscribe, [{eq, "#"}]}."##,
        SUBSCRIBE,
        "t/#",
        None,
    );
}

#[test]
fn faults_name_their_line_and_the_cure() {
    for (rules, line, says) in [
        ("\n{allow all}.", 2, "does not belong"),
        ("{allow, all}", 1, "full stop"),
        ("allow.", 1, "no rule"),
        ("{}.", 1, "no rule"),
        ("{allow}.", 1, "no rule"),
        ("{permit, all}.", 1, "allow or deny"),
        (
            r#"{allow, {user, 1}, all, ["t"]}."#,
            1,
            "{username, \"name\"}",
        ),
        (r#"{allow, {group, "x"}, all, ["t"]}."#, 1, "says nobody"),
        (
            r#"{allow, {ipaddr, "10.0.0.0/33"}, all, ["t"]}."#,
            1,
            "10.0.0.0/33",
        ),
        (
            r#"{allow, {user, {re, "("}}, all, ["t"]}."#,
            1,
            "regular expression",
        ),
        (r#"{allow, all, write, ["t"]}."#, 1, "no action"),
        (
            r#"{allow, all, {publish, [{qos, 3}]}, ["t"]}."#,
            1,
            "no action",
        ),
        (r#"{allow, all, all, "t"}."#, 1, "are a list"),
        (r#"{allow, all, all, ["a/#/b"]}."#, 1, "a/#/b"),
        (r#"{allow, all, all, ["a+"]}."#, 1, "a+"),
        ("{allow, all, all}.", 1, "no rule"),
    ] {
        let error = Acl::parse(rules).expect_err(rules);
        assert_eq!(error.line, line, "{rules}");
        assert!(error.to_string().contains(says), "{rules}: {error}");
    }
}
