use super::*;
use proptest::prelude::*;
use schemas::agent::{validate_path, validate_topic};
use schemas::objects::{Format, OnLongLine, Rate};

fn ids(plan: &Plan) -> Vec<(&str, &str)> {
    plan.entries
        .iter()
        .map(|e| (e.id.path.as_str(), e.id.topic.as_str()))
        .collect()
}

/// `index:field` of each.
fn places(problems: &[Problem]) -> Vec<String> {
    let place = |p: &Problem| {
        let index = p.index.map_or("-".into(), |index| index.to_string());
        format!("{index}:{}", p.field.as_deref().unwrap_or("-"))
    };
    problems.iter().map(place).collect()
}

#[track_caller]
fn check(value: &str, want: &[(&str, &str)], problems: &[&str], warnings: &[&str]) -> Plan {
    let plan = parse(Some(value.as_bytes())).unwrap();
    assert_eq!(ids(&plan), want, "{value}");
    assert_eq!(
        places(&plan.problems),
        problems,
        "{value}: {:?}",
        plan.problems
    );
    assert_eq!(
        places(&plan.warnings),
        warnings,
        "{value}: {:?}",
        plan.warnings
    );
    plan
}

#[test]
fn the_complete_entry_is_enough() {
    check(
        r#"[{"path":"/var/log/nginx/access.log","topic":"nginx_log"}]"#,
        &[("/var/log/nginx/access.log", "nginx_log")],
        &[],
        &[],
    );
}

#[test]
fn nothing_is_asked_for_by_an_empty_value() {
    for value in [None, Some(""), Some(" \n\t"), Some("[]"), Some(" [ ] ")] {
        assert_eq!(
            parse(value.map(str::as_bytes)),
            Ok(Plan::default()),
            "{value:?}"
        );
    }
}

#[test]
fn unusable_values_are_rejected_as_a_whole() {
    let deep = "[".repeat(100_000);
    let large = format!("[{}]", " ".repeat(5_000_000));
    let table = [
        "sample_value",
        "{",
        r#"{"path":"x"}"#,
        "null",
        "7",
        "\"[]\"",
        "[",
        "[]]",
        "[{}] x",
        "\u{feff}[]",
        "[{\"path\":\"/a\",}]",
        &deep,
        &large,
    ];
    for value in table {
        let rejected = parse(Some(value.as_bytes())).unwrap_err();
        assert_eq!(places(&rejected.problems), ["-:-"]);
        assert!(rejected.to_string().len() < 300, "{rejected}");
    }
    assert!(parse(Some(&[0xff, 0xfe, 0])).is_err());
}

#[test]
fn one_bad_entry_does_not_stop_the_others() {
    let table = [
        ("null", "1:-"),
        ("7", "1:-"),
        ("[]", "1:-"),
        (r#""x""#, "1:-"),
        (r#"{"path":"/a"}"#, "1:topic"),
        (r#"{"topic":"t"}"#, "1:path"),
        (r#"{"path":"x","topic":"t"}"#, "1:path"),
        (r#"{"path":"","topic":"t"}"#, "1:path"),
        (r#"{"path":"D:/nginx/access.log","topic":"t"}"#, "1:path"),
        (r#"{"path":"/a/../b","topic":"t"}"#, "1:path"),
        (r#"{"path":"/a/","topic":"t"}"#, "1:path"),
        (r#"{"path":"/","topic":"t"}"#, "1:path"),
        (r#"{"path":"/a/[.log","topic":"t"}"#, "1:path"),
        (r#"{"path":"/a/**","topic":"t"}"#, "1:path"),
        (r#"{"path":"/a/%Q.log","topic":"t"}"#, "1:path"),
        (r#"{"path":"/a/*","exclude":[7],"topic":"t"}"#, "1:exclude"),
        (r#"{"path":"/a/*","exclude":"[","topic":"t"}"#, "1:exclude"),
        (r#"{"path":7,"topic":"t"}"#, "1:path"),
        (r#"{"path":"/a","topic":"a topic"}"#, "1:topic"),
        (r#"{"path":"/a","topic":null}"#, "1:topic"),
        (r#"{"logpath":" , ","topic":"t"}"#, "1:logpath"),
        (r#"{"path":"/a","filepath":"/b","topic":"t"}"#, "1:filepath"),
    ];
    for (bad, place) in table {
        let value = format!(r#"[{{"path":"/1","topic":"t"}},{bad},{{"path":"/2","topic":"t"}}]"#);
        check(&value, &[("/1", "t"), ("/2", "t")], &[place], &[]);
    }
}

#[test]
fn every_fault_of_an_entry_is_reported_at_once() {
    check(
        r#"[{"path":"x","topic":"a b","from":"middle"}]"#,
        &[],
        &["0:topic", "0:from", "0:path"],
        &[],
    );
}

#[test]
fn older_names_of_the_path_work() {
    check(
        r#"[{"logpath":"/a, /b,,/c","topic":"t"}]"#,
        &[("/a", "t"), ("/b", "t"), ("/c", "t")],
        &[],
        &[],
    );
    check(
        r#"[{"log_path":"/a,b","topic":"t"}]"#,
        &[("/a", "t")],
        &["0:log_path"],
        &[],
    );
    check(
        r#"[{"filepath":"/a,b","topic":"t"}]"#,
        &[("/a,b", "t")],
        &[],
        &[],
    );
    check(
        r#"[{"filepath":"/a","path":"/a","topic":"t"}]"#,
        &[("/a", "t")],
        &[],
        &[],
    );
}

#[test]
fn same_path_and_topic_is_one_entry_however_it_is_spelled() {
    check(
        r#"[{"path":"/a/b","topic":"t"},{"path":"//a/./b","topic":"t"},
            {"path":"/a/b","topic":"u"},{"logpath":"/a/b,/a//b","topic":"t"}]"#,
        &[("/a/b", "t"), ("/a/b", "u")],
        &[],
        &[],
    );
}

#[test]
fn patterns_are_entries() {
    let plan = check(
        r#"[{"path":"/a/**/access.%Y%m%d.log","topic":"t","exclude":["*.tmp","/a/x/**"]}]"#,
        &[("/a/**/access.%Y%m%d.log", "t")],
        &[],
        &[],
    );
    let pattern = plan.entries[0].compiled().unwrap();
    assert!(pattern.matches("/a/b/access.20261124.log"));
    assert!(!pattern.matches("/a/x/access.20261124.log"));
}

#[test]
fn options_are_carried_out_refused_or_warned_about() {
    let runs = [("/a", "t")];
    let none: [(&str, &str); 0] = [];
    let table = [
        (r#""from":"beginning""#, true, ""),
        (r#""from":"end""#, true, ""),
        (r#""from":1"#, false, "0:from"),
        (r#""max_line_bytes":1000"#, true, ""),
        (r#""max_line_bytes":0"#, false, "0:max_line_bytes"),
        (r#""max_line_bytes":99999999"#, false, "0:max_line_bytes"),
        (r#""max_line_bytes":-1"#, false, "0:max_line_bytes"),
        (r#""on_long_line":"split""#, true, ""),
        (r#""on_long_line":"truncate""#, true, ""),
        (r#""on_long_line":"dead_letter""#, true, ""),
        (r#""on_long_line":"drop""#, false, "0:on_long_line"),
        (r#""format":"raw""#, true, ""),
        (r#""format":"json""#, true, ""),
        (r#""format":"xml""#, false, "0:format"),
        (r#""encoding":"UTF-8""#, true, ""),
        (r#""encoding":"gbk""#, true, ""),
        (r#""encoding":"klingon""#, false, "0:encoding"),
        (r#""encoding":7"#, false, "0:encoding"),
        (r#""encoding":null"#, true, ""),
        (r#""multiline":{"start":"x"}"#, true, ""),
        (
            r#""multiline":{"continue":"^\\s","timeout_ms":1,"max_lines":9}"#,
            true,
            "",
        ),
        (r#""multiline":{"start":"("}"#, false, "0:multiline"),
        (
            r#""multiline":{"start":"x","continue":"y"}"#,
            false,
            "0:multiline",
        ),
        (
            r#""multiline":{"start":"x","timeout_ms":0}"#,
            false,
            "0:multiline",
        ),
        (
            r#""multiline":{"start":"x","max_lines":0}"#,
            false,
            "0:multiline",
        ),
        (r#""multiline":{"begin":"x"}"#, false, "0:multiline"),
        (r#""multiline":"x""#, false, "0:multiline"),
        (r#""skip_empty":false"#, true, ""),
        (r#""skip_empty":true"#, true, ""),
        (r#""skip_empty":1"#, false, "0:skip_empty"),
        (r#""key":"{host}-{path}""#, true, ""),
        (r#""key":"{nobody}""#, false, "0:key"),
        (r#""key":"""#, false, "0:key"),
        (r#""exclude":["*.gz"]"#, true, "0:exclude"),
        (r#""rate":{"lines_per_s":1}"#, true, ""),
        (
            r#""rate":{"lines_per_s":1,"burst":5},"send_rate":1"#,
            true,
            "",
        ),
        (
            r#""rate":{"lines_per_s":1},"send_rate":2"#,
            false,
            "0:send_rate",
        ),
        (r#""rate":{"lines_per_s":0}"#, false, "0:rate"),
        (r#""rate":9"#, false, "0:rate"),
        (r#""send_rate":1000"#, true, ""),
        (r#""send_rate":0"#, true, ""),
        (r#""send_rate":-1"#, false, "0:send_rate"),
        (r#""headers":{"a":"b"}"#, true, ""),
        (r#""headers":{"a":1}"#, false, "0:headers"),
        (r#""headers":"a""#, false, "0:headers"),
        (r#""service":"web""#, true, ""),
        (r#""service":7"#, false, "0:service"),
        (r#""colour":"red""#, true, "0:colour"),
    ];
    for (option, run, place) in table {
        let value = format!(r#"[{{"path":"/a","topic":"t",{option}}}]"#);
        let place = if place.is_empty() {
            vec![]
        } else {
            vec![place]
        };
        let (problems, warnings) = if run {
            (vec![], place)
        } else {
            (place, vec![])
        };
        check(
            &value,
            if run { &runs } else { &none },
            &problems,
            &warnings,
        );
    }
    let plan = check(
        r#"[{"path":"/a","topic":"t","from":"end","max_line_bytes":4096}]"#,
        &runs,
        &[],
        &[],
    );
    assert_eq!(plan.entries[0].options.from, StartAt::End);
    assert_eq!(plan.entries[0].options.max_line_bytes, Some(4_096));
}

#[test]
fn what_is_asked_for_is_what_is_read() {
    let plan = check(
        r#"[{"path":"/a","topic":"t","format":"json","on_long_line":"truncate","send_rate":7,
             "encoding":"gbk","multiline":{"start":"^x"},"service":"web","headers":{"a":"b"}}]"#,
        &[("/a", "t")],
        &[],
        &[],
    );
    let options = &plan.entries[0].options;
    assert_eq!(options.format, Format::Json);
    assert_eq!(options.on_long_line, OnLongLine::Truncate);
    assert_eq!(
        options.rate,
        Some(Rate {
            lines_per_s: 7,
            burst: None
        })
    );
    assert_eq!(options.encoding.as_deref(), Some("gbk"));
    let multiline = options.multiline.as_ref().unwrap();
    assert_eq!(multiline.start.as_deref(), Some("^x"));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        options.headers,
        [header("a", "b"), header("service", "web")]
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let outcome = parse(Some(&bytes));
        prop_assert!(outcome.is_ok() || outcome.is_err());
    }

    #[test]
    fn whatever_runs_is_valid_and_unique(
        text in r#"\[(\{("(path|topic|from|logpath)":("[/a,. *]{0,6}"|null|[0-9]),?){0,3}\},?){0,4}\]?"#,
    ) {
        if let Ok(plan) = parse(Some(text.as_bytes())) {
            let mut seen = HashSet::new();
            for entry in &plan.entries {
                prop_assert!(validate_path(&entry.id.path).is_ok());
                prop_assert!(validate_topic(&entry.id.topic).is_ok());
                prop_assert!(seen.insert(&entry.id));
            }
        }
    }
}
