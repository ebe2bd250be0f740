use super::*;

#[test]
fn names() {
    for good in ["a", "/", "a/b", "/a", "a//b", "$SYS/x", "räume/1", " "] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    let long = "x".repeat(65_536);
    for (bad, error) in [
        ("", TopicError::Empty),
        ("a/+", TopicError::Wildcard),
        ("#", TopicError::Wildcard),
        ("a\0b", TopicError::Nul),
        (long.as_str(), TopicError::TooLong { len: 65_536 }),
    ] {
        assert_eq!(check_name(bad), Err(error));
    }
}

#[test]
fn filters() {
    for good in [
        "#", "+", "+/+", "a/#", "/+", "+/a/#", "a//#", "$SYS/#", "$share", "a",
    ] {
        let expect_ok = good != "$share";
        assert_eq!(TopicFilter::new(good).is_ok(), expect_ok, "{good}");
    }
    for (bad, fault) in [
        ("", FilterFault::Empty),
        ("a/#/b", FilterFault::MultiLevelNotLast),
        ("a#", FilterFault::WildcardNotAlone),
        ("a/b+", FilterFault::WildcardNotAlone),
        ("++", FilterFault::WildcardNotAlone),
        ("a\0", FilterFault::Nul),
        ("$share/", FilterFault::ShareName),
        ("$share/g", FilterFault::ShareName),
        ("$share//a", FilterFault::ShareName),
        ("$share/g+/a", FilterFault::ShareName),
        ("$share/#/a", FilterFault::ShareName),
        ("$share/g/", FilterFault::Empty),
        ("$queue/", FilterFault::Empty),
        ("$exclusive/", FilterFault::Empty),
        ("$share/g/$queue/a", FilterFault::Nested),
        ("$queue/$share/g/a", FilterFault::Nested),
        ("$exclusive/$share/g/a", FilterFault::Nested),
    ] {
        let error = TopicFilter::new(bad).expect_err(bad);
        assert_eq!((&*error.filter, error.fault), (bad, fault));
    }
}

#[test]
fn prefixes() {
    let read = |text: &str| {
        let f = TopicFilter::new(text).expect("a valid filter");
        (
            f.share().map(str::to_owned),
            f.filter().to_owned(),
            f.is_exclusive(),
        )
    };
    assert_eq!(read("a/+"), (None, "a/+".into(), false));
    assert_eq!(
        read("$share/g/a/+"),
        (Some("g".into()), "a/+".into(), false)
    );
    assert_eq!(read("$share/g//"), (Some("g".into()), "/".into(), false));
    assert_eq!(read("$queue/#"), (Some("$queue".into()), "#".into(), false));
    assert_eq!(read("$exclusive/t"), (None, "t".into(), true));
    assert_eq!(read("$shared/g/t"), (None, "$shared/g/t".into(), false));
}

#[test]
fn matching() {
    for (filter, topic) in [
        ("sport/tennis/player1/#", "sport/tennis/player1"),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
        ),
        ("sport/#", "sport"),
        ("#", "a/b/c"),
        ("sport/tennis/+", "sport/tennis/player1"),
        ("sport/+", "sport/"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("$SYS/#", "$SYS/monitor/Clients"),
        ("$SYS/monitor/+", "$SYS/monitor/Clients"),
        ("a/b", "a/b"),
        ("+/b/#", "a/b"),
    ] {
        assert!(matches(filter, topic), "{filter} should match {topic}");
    }
    for (filter, topic) in [
        ("sport/tennis/+", "sport/tennis/player1/ranking"),
        ("sport/+", "sport"),
        ("+", "/finance"),
        ("#", "$SYS/monitor"),
        ("+/monitor/Clients", "$SYS/monitor/Clients"),
        ("a/b", "a/b/c"),
        ("a/b", "A/b"),
        ("a/+/#", "a"),
    ] {
        assert!(!matches(filter, topic), "{filter} should not match {topic}");
    }
}

#[test]
fn counting_levels() {
    assert_eq!(level_count("a"), 1);
    assert_eq!(level_count("/"), 2);
    assert_eq!(level_count("a/b//c"), 4);
    assert_eq!(levels("a//c").collect::<Vec<_>>(), ["a", "", "c"]);
}

#[test]
fn delayed_topics() {
    assert_eq!(delayed("a/b"), None);
    assert_eq!(
        delayed("$delayed/15/x/y"),
        Some(Ok(Delayed {
            delay_s: 15,
            topic: "x/y"
        }))
    );
    assert_eq!(
        delayed("$delayed/15//y"),
        Some(Ok(Delayed {
            delay_s: 15,
            topic: "/y"
        }))
    );
    for bad in [
        "$delayed/x/y",
        "$delayed/+1/y",
        "$delayed//y",
        "$delayed/4294967296/y",
    ] {
        assert_eq!(delayed(bad), Some(Err(DelayedError::Delay)), "{bad}");
    }
    for bad in ["$delayed/", "$delayed/1", "$delayed/1/"] {
        assert_eq!(delayed(bad), Some(Err(DelayedError::Topic)), "{bad}");
    }
}
