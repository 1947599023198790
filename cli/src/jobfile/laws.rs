//! Whatever is thrown at the reader, it answers with a sound job or with faults.

use berth_proto::v1;
use berth_types::JobSpec;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::Value;

use super::keys::{self, Key};
use super::*;

fn any_key() -> impl Strategy<Value = String> {
    let tables: [&[Key]; 5] = [
        keys::JOB,
        keys::GROUP,
        keys::RESOURCES,
        keys::CHECKPOINT,
        keys::RESTART,
    ];
    let known: Vec<String> = tables
        .iter()
        .flat_map(|t| t.iter().map(|k| k.name.to_owned()))
        .collect();
    prop_oneof![8 => prop::sample::select(known), 1 => ".{0,8}"]
}

fn any_document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-4i64..40).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(1s|90m|256MiB|1GiB|restart|fence|true|/tmp|-1GiB|)".prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(any_key(), inner, 0..12).prop_map(|m| m.into_iter().collect()),
        ]
    })
}

/// Sound or with faults; and a sound one survives the wire unchanged.
fn check(document: &Value) -> Result<(), TestCaseError> {
    let submitter = Submitter {
        user: "ada".into(),
        job_name: "job".into(),
        directory: "/".into(),
        variable: &|_| None,
    };
    match read(document, &submitter) {
        Ok(spec) => {
            prop_assert_eq!(spec.faults(), Vec::new());
            let wire = v1::JobSpec::from(&spec);
            prop_assert_eq!(JobSpec::try_from(wire), Ok(spec));
        }
        Err(faults) => {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                prop_assert!(
                    !fault.field.is_empty() && !fault.what.is_empty(),
                    "{:?}",
                    fault
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..512)) {
        for format in [Format::Toml, Format::Yaml] {
            if let Ok(document) = parse(&bytes, format) {
                check(&document)?;
            }
        }
    }

    #[test]
    fn any_text_is_answered(text in "([a-z_]{1,12}( = |: )[\\[\\]{}\"a-z0-9.,&*!-]{0,12}\n){0,8}") {
        for format in [Format::Toml, Format::Yaml] {
            if let Ok(document) = parse(text.as_bytes(), format) {
                check(&document)?;
            }
        }
    }

    #[test]
    fn any_document_is_answered(document in any_document()) {
        check(&document)?;
    }

    #[test]
    fn a_sound_document_with_one_odd_value_is_answered(key in any_key(), value in any_document()) {
        let mut document = serde_json::json!({ "command": ["true"] });
        document[key] = value;
        check(&document)?;
    }

    #[test]
    fn any_assignment_is_answered(assignment in "[a-z.0-9=]{0,24}") {
        let mut document = serde_json::json!({ "groups": [{ "command": ["true"] }] });
        if set(&mut document, &assignment).is_ok() {
            check(&document)?;
        }
    }
}
