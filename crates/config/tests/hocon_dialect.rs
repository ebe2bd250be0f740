//! What EMQX's own parser made of small texts, measured; ours must not differ where
//! EMQX accepts. Where EMQX refuses, ours may accept.

use std::io;

use dunlin_config::LayerKind;
use dunlin_config::hocon::{Files, Text, read};
use serde_json::Value as Json;

/// The only file that the vectors include.
struct OneFile;

impl Files for OneFile {
    fn read(&self, path: &str) -> io::Result<String> {
        match path {
            "inc1.conf" => Ok("i1 = 10\ni2 { j = ${i1} }\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn vectors() -> Vec<Json> {
    include_str!("hocon-dialect.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

#[test]
fn what_emqx_accepts_is_read_as_emqx_reads_it() {
    let mut accepted = 0;
    for vector in vectors() {
        let Some(expected) = vector.get("ok") else {
            continue;
        };
        let name = vector["name"].as_str().expect("named");
        let input = vector["input"].as_str().expect("text");
        let text = Text {
            layer: LayerKind::Etc,
            path: name,
            text: input,
        };
        let document = read(&[text], &OneFile);
        assert_eq!(document.errors, [], "{name}: {input}");
        assert_eq!(&document.root.value.to_json(), expected, "{name}: {input}");
        accepted += 1;
    }
    assert_eq!(accepted, 49);
}

#[test]
fn what_emqx_refuses_is_refused_or_knowingly_accepted() {
    let mut ours = Vec::new();
    for vector in vectors() {
        if vector.get("err").is_none() {
            continue;
        }
        let name = vector["name"].as_str().expect("named").to_owned();
        let input = vector["input"].as_str().expect("text");
        let text = Text {
            layer: LayerKind::Etc,
            path: &name,
            text: input,
        };
        let document = read(&[text], &OneFile);
        if document.errors.is_empty() {
            ours.push(format!("{name} {}", document.root.value.to_json()));
        }
    }
    let expected = [
        r#"dollar_name {"listeners":{"tcp":{"default":{"bind":1883},"my-l":{"bind":1884}}}}"#,
        r#"dotted_quoted {"a":{"b.c":{"d":2}},"foo.bar":1}"#,
        r#"duration_unq {"t":"15s","t2":"1h30m","t3":"1.5s","t4":"infinity","t5":"30d"}"#,
        r#"key_dash_num {"1":"a","_c":3,"a-b":2}"#,
        r#"neg {"a":-1,"b":"-abc"}"#,
        r#"number_forms {"a":1,"b":1.0,"c":-5,"d":1000.0,"e":7,"f":"1_000"}"#,
        r#"size_unq {"s":"10MB","s2":"1KB","s3":"0.5GB","s4":"100%"}"#,
        r#"unicode {"a":"中文","k中":1}"#,
        r#"unq_special {"a":"abc-def_ghi.jkl","b":"127.0.0.1:1883","c":"0.0.0.0:1883"}"#,
        r#"unq_string {"a":"helloworld","b":"emqx@127.0.0.1","c":"a/b/c","d":"v5.0.3"}"#,
    ];
    assert_eq!(ours, expected);
}
