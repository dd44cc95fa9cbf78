//! One corpus of accepted and refused documents, read by the parser that server and CLI share and
//! judged by the committed JSON Schema: editors and programs agree.
//!
//! `reject` is refused by both. `reject-by-meaning` breaks rules that a schema cannot express, such
//! as a path listed twice: the parser alone refuses it, and the schema accepts it, so that a rule
//! which a schema could express does not hide there.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a panic with a place"
)]

use std::{fs, path::Path};

use config_center_core::fleet::{
    inventory::{Inventory, load, load_stored},
    source::{Node, Value, read},
};
use jsonschema::Validator;
use serde_json::json;

struct Case {
    name: String,
    text: String,
}

fn cases(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fleet-corpus")
        .join(folder);
    let mut cases: Vec<Case> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            Case {
                name: path.file_name().unwrap().to_string_lossy().into_owned(),
                text: fs::read_to_string(&path).unwrap(),
            }
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= 10, "the corpus is missing");
    cases
}

fn problems(case: &Case) -> Vec<String> {
    let loading = load(&case.name, &case.text);
    let mut problems = loading.problems;
    if problems.is_empty() {
        problems.extend(Inventory::new(loading.objects).err().unwrap_or_default());
    }
    problems.iter().map(ToString::to_string).collect()
}

fn schema(file: &str) -> Validator {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/json");
    let text = fs::read_to_string(folder.join(file)).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag) => json!(flag),
        Value::Integer(number) => json!(number),
        Value::Unsigned(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, node)| (key.text.clone(), to_json(node)))
            .collect(),
    }
}

/// The documents of a text as an editor sees them: a field written twice has its last value.
fn documents(case: &Case) -> Vec<serde_json::Value> {
    match read(&case.text) {
        Ok(documents) => documents.iter().map(to_json).collect(),
        Err(error) => {
            let once = case.text.replacen("spec: {}\n", "", 1);
            assert!(error.message.contains("twice"), "{}: {error}", case.name);
            read(&once).unwrap().iter().map(to_json).collect()
        }
    }
}

#[test]
fn what_is_accepted_is_accepted_by_all() {
    let schema = schema("fleet-object.json");
    for case in cases("accept") {
        assert_eq!(problems(&case), Vec::<String>::new(), "{}", case.name);
        for document in documents(&case) {
            let errors: Vec<String> = schema
                .iter_errors(&document)
                .map(|error| error.to_string())
                .collect();
            assert_eq!(errors, Vec::<String>::new(), "{}: {document}", case.name);
        }
        // What is stored reads back as the same object, and the schema accepts that form too.
        for loaded in load(&case.name, &case.text).objects {
            let json = loaded.object.to_json();
            assert_eq!(
                load_stored("k", 1, json.as_bytes()).unwrap().object,
                loaded.object
            );
            assert!(
                schema.is_valid(&serde_json::from_str(&json).unwrap()),
                "{json}"
            );
        }
    }
}

#[test]
fn what_is_refused_is_refused_by_all() {
    let schema = schema("fleet-object.json");
    for case in cases("reject") {
        refused_with_the_expected_words(&case);
        let accepted = documents(&case)
            .iter()
            .all(|document| schema.is_valid(document));
        assert!(!accepted, "the schema accepts {}", case.name);
    }
}

#[test]
fn what_only_meaning_refuses_is_good_by_its_shape() {
    let schema = schema("fleet-object.json");
    for case in cases("reject-by-meaning") {
        refused_with_the_expected_words(&case);
        let accepted = documents(&case)
            .iter()
            .all(|document| schema.is_valid(document));
        assert!(
            accepted,
            "the schema refuses {} by itself: move it to reject",
            case.name
        );
    }
}

#[test]
fn the_schema_of_a_kind_judges_like_the_schema_of_all() {
    let all = schema("fleet-object.json");
    let kinds = ["LogSet", "Group", "Host", "RolloutPolicy"].map(|kind| {
        let file = match kind {
            "LogSet" => "log-set.json",
            "Group" => "group.json",
            "Host" => "host.json",
            _ => "rollout-policy.json",
        };
        (kind, schema(file))
    });
    for case in cases("accept").iter().chain(&cases("reject")) {
        for document in documents(case) {
            let kind = document.get("kind").and_then(|kind| kind.as_str());
            if let Some((_, own)) = kinds.iter().find(|(name, _)| Some(*name) == kind) {
                assert_eq!(
                    own.is_valid(&document),
                    all.is_valid(&document),
                    "{}",
                    case.name
                );
            }
        }
    }
}

#[track_caller]
fn refused_with_the_expected_words(case: &Case) {
    let first = case.text.lines().next().unwrap();
    let expected = first
        .strip_prefix("# expect: ")
        .expect("the first line says what is expected");
    let problems = problems(case);
    assert!(!problems.is_empty(), "{} is accepted", case.name);
    assert!(
        problems[0].contains(expected),
        "{}: {problems:?}",
        case.name
    );
    // Every refusal names file, line and column.
    let mut parts = problems[0].splitn(4, ':');
    assert_eq!(parts.next(), Some(case.name.as_str()));
    for number in [parts.next(), parts.next()] {
        assert!(number.unwrap().parse::<usize>().is_ok(), "{}", problems[0]);
    }
}

#[test]
fn the_example_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fleet/web.yaml");
    let case = Case {
        name: "web.yaml".into(),
        text: fs::read_to_string(path).unwrap(),
    };
    assert_eq!(problems(&case), Vec::<String>::new());
}
