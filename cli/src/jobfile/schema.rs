//! The JSON Schema of job files, made from the same tables that the reader uses.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Kind};

/// A text for `humantime`: numbers with units.
const DURATION_PATTERN: &str = "^\\s*(\\d+\\s*[a-z]+\\s*)+$";
/// A number with a unit of memory.
const MEMORY_PATTERN: &str = "^\\s*\\d+(\\.\\d+)?\\s*(B|[kK]B|KiB|MB|MiB|GB|GiB|TB|TiB)\\s*$";

/// The schema as a document.
pub fn document() -> Value {
    let mut schema = table(keys::JOB);
    let short: Vec<&str> = keys::SHORT.iter().map(|k| k.name).collect();
    let beside_groups: Vec<Value> = short.iter().map(|k| json!({ "required": [k] })).collect();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Berth job file".into();
    schema["oneOf"] = json!([
        { "required": ["groups"], "not": { "anyOf": beside_groups } },
        { "required": ["command"], "not": { "required": ["groups"] } },
    ]);
    schema
}

/// The schema as it is published.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

fn table(keys: &[Key]) -> Value {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    let is_group = keys.iter().any(|k| k.name == "resources");
    if is_group {
        schema["required"] = json!(["command"]);
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = value(key.kind);
    let description = if key.default.is_empty() {
        format!("{}.", key.doc)
    } else {
        format!("{}. Default: {}.", key.doc, key.default)
    };
    schema["description"] = description.into();
    schema
}

fn value(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string", "minLength": 1 }),
        Kind::Path => json!({ "type": "string", "minLength": 1 }),
        Kind::Integer { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Duration => {
            json!({ "type": "string", "pattern": DURATION_PATTERN, "examples": ["90s", "1h 30m"] })
        }
        Kind::Memory => {
            json!({ "type": "string", "pattern": MEMORY_PATTERN, "examples": ["256MiB", "16GiB"] })
        }
        Kind::Amount { max } => json!({ "type": "number", "minimum": 0, "maximum": max }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Command => json!({ "oneOf": [
            { "type": "string", "minLength": 1 },
            { "type": "array", "minItems": 1, "items": { "type": "string" } },
        ] }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Map => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Table(keys) => table(keys),
        Kind::Tables(keys) => json!({ "type": "array", "minItems": 1, "items": table(keys) }),
    }
}
