//! Texts that are broken, hostile or random: the reader answers with an error or a value,
//! in bounded time and depth, and what it writes it reads back.

use std::io;

use dunlin_config::LayerKind;
use dunlin_config::error::{ConfigError, IncludeError, Syntax};
use dunlin_config::hocon::{
    Files, MAX_DEPTH, NoFiles, Node, Object, Text, Value, parse, read, write,
};
use proptest::prelude::*;

fn syntax(text: &str) -> Syntax {
    let errors = parse(text).expect_err("refused");
    match &errors[0] {
        ConfigError::Syntax { what, .. } => what.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

fn json(text: &str) -> String {
    parse(text)
        .unwrap_or_else(|e| panic!("{text}: {e:?}"))
        .value
        .to_json()
        .to_string()
}

#[test]
fn nesting_is_bounded() {
    for open in ["{", "[", "a {", "a = [", "a = {b = ["] {
        let text = format!("x = {}", open.repeat(100_000));
        assert!(parse(&text).is_err(), "{open}");
    }
    let deep = |levels: usize| format!("{}b = 1{}", "a {".repeat(levels), "}".repeat(levels));
    assert!(parse(&deep(MAX_DEPTH / 2 - 1)).is_ok());
    assert!(parse(&deep(MAX_DEPTH)).is_err());
    assert_eq!(
        syntax(&format!("{}a = 1", "a.".repeat(100_000))),
        Syntax::TooDeep
    );
    assert_eq!(
        syntax(&format!("a = {}{}", "[".repeat(500), "]".repeat(500))),
        Syntax::TooDeep
    );
}

#[test]
fn substitutions_are_bounded() {
    let lines = |count: usize, line: &dyn Fn(usize) -> String| {
        (1..count).map(line).collect::<Vec<_>>().join("\n")
    };
    let doubling = lines(60, &|n| format!("a{n} = ${{a{m}}} ${{a{m}}}", m = n - 1));
    assert_eq!(
        syntax(&format!("a0 = [x, x]\n{doubling}")),
        Syntax::TooLarge
    );
    let chain = lines(400, &|n| format!("a{n} {{ x = ${{a{m}}} }}", m = n + 1));
    assert_eq!(syntax(&format!("{chain}\na400 = 1")), Syntax::TooLarge);
    let many = lines(600, &|n| format!("b{n} = ${{a}}"));
    assert_eq!(syntax(&format!("{many}\na = 1")), Syntax::TooLarge);
    // The slowest order: each reference can only be replaced after the next one.
    let backwards = lines(512, &|n| format!("a{n} = ${{a{m}}}", m = n + 1));
    assert!(parse(&format!("{backwards}\na512 = 1")).is_ok());
    assert!(matches!(
        parse("a = ${a}").expect_err("cycle")[0],
        ConfigError::Unresolved { .. }
    ));
    assert!(parse("a = ${b}\nb = ${a}").is_err());
}

#[test]
fn faults_are_named() {
    assert_eq!(syntax("a = \"abc"), Syntax::UnterminatedString);
    assert_eq!(syntax("a = \"\"\"abc"), Syntax::UnterminatedTripleQuote);
    assert_eq!(syntax("a += 1"), Syntax::IllegalCharacter('+'));
    assert_eq!(syntax("a+= 1"), Syntax::PlusEquals);
    assert_eq!(syntax("a = t/#"), Syntax::IllegalCharacter('#'));
    assert_eq!(
        syntax("a ="),
        Syntax::MissingValue {
            key: "a".to_owned()
        }
    );
    assert_eq!(
        syntax("a = b:c"),
        Syntax::MissingValue {
            key: "a".to_owned()
        }
    );
    assert_eq!(
        syntax("a = 1,,b = 2"),
        Syntax::Unexpected {
            found: "`,`".to_owned()
        }
    );
    assert_eq!(
        syntax("abc"),
        Syntax::MissingSeparator {
            key: "abc".to_owned()
        }
    );
    assert_eq!(
        syntax("a = 1 2"),
        Syntax::Adjacent {
            found: "`2`".to_owned()
        }
    );
    assert_eq!(syntax("a = {x=1} [1]"), Syntax::CannotConcat);
    assert_eq!(syntax("a = 1 }"), Syntax::Unopened('}'));
    assert_eq!(syntax("a = [1"), Syntax::Unclosed('['));
    assert_eq!(syntax("a = ${x y}"), Syntax::BadSubstitution);
    assert_eq!(syntax("include file(\"x\")"), Syntax::IllegalCharacter('('));
    // EMQX reads these differently from what is meant; ours refuses to guess.
    assert!(matches!(syntax("a = [1.2.3.4]"), Syntax::Adjacent { .. }));
    assert!(matches!(
        syntax("a = x\nb.\"c\" = 1"),
        Syntax::Adjacent { .. }
    ));
}

#[test]
fn values_side_by_side() {
    assert_eq!(json("a = x\ny\nb = 1"), r#"{"a":"xy","b":1}"#);
    assert_eq!(json("a = x b = 2"), r#"{"a":"x","b":2}"#);
    assert_eq!(json("a = [\"x\"\n\"y\"]"), r#"{"a":["xy"]}"#);
    assert_eq!(json("a = [{x=1}\n{y=2}]"), r#"{"a":[{"x":1},{"y":2}]}"#);
    assert_eq!(json("a = [{x=1} {y=2}]"), r#"{"a":[{"x":1,"y":2}]}"#);
    assert_eq!(json("p = 80\nu = \"h:\"${p}"), r#"{"p":80,"u":"h:80"}"#);
    assert_eq!(
        json("a = 1h30m\nb = .5\nc = 1e3"),
        r#"{"a":"1h30m","b":0.5,"c":1000.0}"#
    );
    assert_eq!(
        json("a = \"C:\\dir\\\"\nb = 1"),
        r#"{"a":"C:\\dir\\","b":1}"#
    );
    assert_eq!(
        json("a = 127.0.0.1:1883\nb = 1"),
        r#"{"a":"127.0.0.1:1883","b":1}"#
    );
    assert_eq!(json("{\"a.b\": 1}"), r#"{"a.b":1}"#);
    assert_eq!(json(""), "{}");
    assert_eq!(json("{}"), "{}");
}

#[test]
fn lists_can_be_patched() {
    assert_eq!(json("a = [1,2]\na.1 = 9"), r#"{"a":[9,2]}"#);
    assert_eq!(json("a = [1,2]\na = {\"3\" = 9}"), r#"{"a":[1,2,9]}"#);
    assert_eq!(json("a = [1,2]\na = {b = 9}"), r#"{"a":{"b":9}}"#);
    for (text, index) in [("a = [1]\na.0 = 9", 0), ("a = [1]\na.3 = 9", 3)] {
        let errors = parse(text).expect_err("refused");
        assert!(
            matches!(errors[0], ConfigError::ArrayIndex { index: i, max: 2, .. } if i == index)
        );
    }
}

/// A folder of files.
struct Folder(&'static [(&'static str, &'static str)]);

impl Files for Folder {
    fn read(&self, path: &str) -> io::Result<String> {
        let found = self.0.iter().find(|(name, _)| *name == path);
        found
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[test]
fn includes() {
    let folder = Folder(&[
        ("etc/a.conf", "include \"sub/b.conf\"\na = ${b}\n"),
        ("etc/sub/b.conf", "b = 2\ninclude \"../c.conf\"\n"),
        ("etc/c.conf", "c = 3\n"),
        ("etc/loop.conf", "include \"loop2.conf\"\n"),
        ("etc/loop2.conf", "include \"./loop.conf\"\n"),
    ]);
    let doc = |text| {
        read(
            &[Text {
                layer: LayerKind::Etc,
                path: "etc/emqx.conf",
                text,
            }],
            &folder,
        )
    };
    let good = doc("include \"a.conf\"\nx { include \"a.conf\" }\n");
    assert_eq!(good.errors, []);
    assert_eq!(
        good.root.value.to_json().to_string(),
        r#"{"a":2,"b":2,"c":3,"x":{"a":2,"b":2,"c":3}}"#
    );
    assert_eq!(
        good.root.get("x.b").expect("set").place.to_string(),
        "etc/sub/b.conf:1:5"
    );
    let reason = |text| match &doc(text).errors[..] {
        [ConfigError::Include { reason, .. }] => reason.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason("include \"loop.conf\""), IncludeError::Cycle);
    assert_eq!(reason("include \"emqx.conf\""), IncludeError::Cycle);
    assert_eq!(
        reason("include required(\"none.conf\")"),
        IncludeError::Missing
    );
    assert_eq!(doc("include \"none.conf\"\na = 1").errors, []);
}

#[test]
fn endless_includes_end() {
    struct Endless;
    impl Files for Endless {
        fn read(&self, path: &str) -> io::Result<String> {
            Ok(format!("include \"{path}x\"\ninclude \"{path}y\"\n"))
        }
    }
    let text = Text {
        layer: LayerKind::Etc,
        path: "a",
        text: "include \"b\"",
    };
    let document = read(&[text], &Endless);
    assert!(document.errors.iter().any(|error| {
        matches!(
            error,
            ConfigError::Include {
                reason: IncludeError::TooDeep,
                ..
            }
        )
    }));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1_000_000_i64..1_000_000).prop_map(|n| Value::Float(n as f64 / 128.0)),
        any::<String>().prop_map(Value::String),
        "[a-z~]{0,3}[\"\\\\\n# /:=.0-9a-z]{0,8}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone().prop_map(node), 0..6).prop_map(Value::List),
            prop::collection::btree_map(any_key(), inner.prop_map(node), 0..6)
                .prop_map(Value::Object),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_]{0,6}",
        "[^\\p{Cc}]{1,6}",
        "[0-9.]{1,4}",
        Just("true".to_owned())
    ]
}

fn node(value: Value) -> Node {
    Node {
        value,
        place: dunlin_config::Place::default_value(),
    }
}

/// Text made of the pieces that matter to the lexer and the parser.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b.c",
        "1",
        "0123",
        "1.5",
        "80%",
        "10MB",
        "1h30m",
        "true",
        "null",
        "\"s\"",
        "\"",
        "\\",
        "\"\"\"",
        "~",
        "${a}",
        "${?b}",
        "${",
        "}",
        "{",
        "[",
        "]",
        ",",
        "=",
        ":",
        "+=",
        "#",
        "//",
        "\n",
        " ",
        "include",
        "required(",
        ")",
        "127.0.0.1",
        "emqx@h",
        "-",
        "_x",
        "/",
        "中",
        "\r",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn any_soup_is_answered_and_what_is_read_can_be_written(text in soup()) {
        let text = Text { layer: LayerKind::Etc, path: "f", text: &text };
        let document = read(&[text], &NoFiles);
        for error in &document.errors {
            prop_assert!(!error.to_string().is_empty() && !error.emqx_map().is_empty());
        }
        if document.errors.is_empty() {
            let again = parse(&write(&document.root)).expect("what is written is valid");
            prop_assert_eq!(again.value.to_json(), document.root.value.to_json());
        }
    }

    #[test]
    fn what_is_written_is_read_back(object in prop::collection::btree_map(
        any_key(), any_value().prop_map(node), 0..6)
    ) {
        let root = node(Value::Object(object.into_iter().collect::<Object>()));
        let text = write(&root);
        let again = parse(&text);
        prop_assert!(again.is_ok(), "{:?}\n{}", again, text);
        prop_assert_eq!(again.expect("checked").value.to_json(), root.value.to_json(), "{}", text);
    }

    #[test]
    fn any_configuration_is_answered(text in soup(), name in "[A-Z_]{0,20}", value in soup()) {
        let layer = dunlin_config::Layer {
            kind: LayerKind::Etc,
            path: "etc/emqx.conf".to_owned(),
            text: format!("node {{cookie = c, data_dir = d}}\nmqtt {{ {text} }}"),
        };
        let sources = dunlin_config::Sources {
            files: vec![layer],
            env: vec![(format!("EMQX_MQTT__{name}"), value)],
            etc_dir: String::new(),
            log_dir: String::new(),
            data_dir: String::new(),
            include: &NoFiles,
        };
        let _ = dunlin_config::load(&sources);
    }
}
