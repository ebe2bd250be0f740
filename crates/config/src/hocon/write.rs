//! Values -> text that this parser and EMQX's read back as the same values.
//!
//! Every string that is not a plain word is quoted, with escapes for quotes,
//! backslashes and control characters. The indented form `"""~` is never written.

use super::value::{Node, Object, Value, float_text};

/// An object as the text of a file: its fields without the outer braces.
pub fn write(root: &Node) -> String {
    let mut out = String::new();
    match &root.value {
        Value::Object(object) => fields(&mut out, object, 0),
        other => value(&mut out, other, 0),
    }
    out
}

/// A single value.
pub fn write_value(node: &Value) -> String {
    let mut out = String::new();
    value(&mut out, node, 0);
    out
}

fn indent(out: &mut String, level: usize) {
    for _ in 0..level {
        out.push_str("  ");
    }
}

fn fields(out: &mut String, object: &Object, level: usize) {
    for (key, node) in object {
        indent(out, level);
        out.push_str(&key_text(key));
        match &node.value {
            Value::Object(inner) if inner.is_empty() => out.push_str(" {}"),
            Value::Object(inner) => {
                out.push_str(" {\n");
                fields(out, inner, level + 1);
                indent(out, level);
                out.push('}');
            }
            other => {
                out.push_str(" = ");
                value(out, other, level);
            }
        }
        out.push('\n');
    }
}

fn value(out: &mut String, node: &Value, level: usize) {
    match node {
        Value::String(text) => out.push_str(&string_text(text)),
        Value::Float(f) if f.is_finite() => out.push_str(&plain_float(*f)),
        Value::List(items) => list(out, items, level),
        Value::Object(object) if object.is_empty() => out.push_str("{}"),
        Value::Object(object) => {
            out.push_str("{\n");
            fields(out, object, level + 1);
            indent(out, level);
            out.push('}');
        }
        scalar => out.push_str(&scalar.text().unwrap_or_default()),
    }
}

fn list(out: &mut String, items: &[Node], level: usize) {
    let nested = items
        .iter()
        .any(|n| matches!(n.value, Value::Object(_) | Value::List(_)));
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if nested {
            out.push('\n');
            indent(out, level + 1);
        } else if index > 0 {
            out.push(' ');
        }
        value(out, &item.value, level + 1);
    }
    if nested {
        out.push('\n');
        indent(out, level);
    }
    out.push(']');
}

/// Without an exponent, which not every reader of the dialect knows.
fn plain_float(f: f64) -> String {
    let text = float_text(f);
    if text.contains(['e', 'E']) {
        format!("{f:.6}")
    } else {
        text
    }
}

fn is_word(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !matches!(text, "true" | "false" | "null" | "include" | "required")
}

fn key_text(key: &str) -> String {
    if is_word(key) {
        key.to_owned()
    } else {
        quote(key)
    }
}

fn string_text(text: &str) -> String {
    if is_word(text) {
        text.to_owned()
    } else {
        quote(text)
    }
}

fn quote(text: &str) -> String {
    // These two count as line ends, which only a triple-quoted string may hold.
    let quotes = if text.contains(['\u{2028}', '\u{2029}']) {
        "\"\"\""
    } else {
        "\""
    };
    let mut out = String::with_capacity(text.len() + 2 * quotes.len());
    out.push_str(quotes);
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c => out.push(c),
        }
    }
    out.push_str(quotes);
    out
}
