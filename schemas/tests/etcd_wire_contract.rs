//! Our protobuf files against the schema compiled into a real etcd.
//!
//! `etcd-3.7.1.txt` is what `deploy/peers/etcd/descriptors` prints for etcd 3.7.1: every enum value,
//! message, field (name, number, type, cardinality, oneof) and method. Ours must say exactly the
//! same. Names alone are checked by every client that compiles; a wrong number is found only here.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

const ETCD: &str = include_str!("etcd-3.7.1.txt");
const PACKAGES: [&str; 5] = [
    "authpb",
    "mvccpb",
    "etcdserverpb",
    "v3electionpb",
    "v3lockpb",
];

/// Messages that etcd's members log among themselves; no method of its API carries them.
const INTERNAL: [&str; 4] = [
    "etcdserverpb.DowngradeVersionTestRequest",
    "etcdserverpb.LeaseCheckpoint",
    "etcdserverpb.LeaseCheckpointRequest",
    "etcdserverpb.LeaseCheckpointResponse",
];

#[test]
fn schema_is_etcds() {
    let etcd: BTreeSet<&str> = ETCD.lines().filter(|line| !is_internal(line)).collect();
    let ours = schema_lines(&decode(schemas::DESCRIPTORS));
    let ours: BTreeSet<&str> = ours.iter().map(String::as_str).collect();

    let missing: Vec<&str> = etcd.difference(&ours).copied().collect();
    let extra: Vec<&str> = ours.difference(&etcd).copied().collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "schema differs from etcd 3.7.1\nonly in etcd:\n  {}\nonly in ours:\n  {}",
        missing.join("\n  "),
        extra.join("\n  "),
    );
}

/// The comparison must see a changed number: a check that cannot fail proves nothing.
#[test]
fn changed_field_number_is_seen() {
    let mut set = decode(schemas::DESCRIPTORS);
    let before = schema_lines(&set);
    let field = set
        .file
        .iter_mut()
        .filter(|file| file.package() == "mvccpb")
        .flat_map(|file| &mut file.message_type)
        .filter(|message| message.name() == "KeyValue")
        .flat_map(|message| &mut message.field)
        .find(|field| field.name() == "lease")
        .expect("mvccpb.KeyValue has a lease");
    field.number = Some(7);
    let after = schema_lines(&set);
    let changed: Vec<&String> = after.difference(&before).collect();
    assert_eq!(changed, ["field mvccpb.KeyValue.lease = 7 int64"]);
}

/// An exception that etcd no longer needs, or that an API method uses, has to go.
#[test]
fn internal_messages_are_in_no_method() {
    for message in INTERNAL {
        assert!(
            ETCD.lines()
                .any(|line| line == format!("message {message}"))
        );
        for line in ETCD.lines().filter(|line| line.starts_with("rpc ")) {
            assert!(!line.contains(&format!("{message})")), "{line}");
        }
    }
}

fn is_internal(line: &str) -> bool {
    let subject = line.split(' ').nth(1).unwrap_or_default();
    INTERNAL.iter().any(|message| {
        subject
            .strip_prefix(message)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

fn decode(bytes: &[u8]) -> FileDescriptorSet {
    FileDescriptorSet::decode(bytes).expect("the build writes a whole descriptor set")
}

fn schema_lines(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in &set.file {
        let package = file.package();
        if !PACKAGES.contains(&package) {
            continue;
        }
        for item in &file.enum_type {
            add_enum(&mut lines, package, item);
        }
        for item in &file.message_type {
            add_message(&mut lines, package, item);
        }
        for item in &file.service {
            add_service(&mut lines, package, item);
        }
    }
    lines
}

fn add_enum(lines: &mut BTreeSet<String>, scope: &str, item: &EnumDescriptorProto) {
    for value in &item.value {
        lines.insert(format!(
            "enum {scope}.{}.{} = {}",
            item.name(),
            value.name(),
            value.number()
        ));
    }
}

fn add_message(lines: &mut BTreeSet<String>, scope: &str, item: &DescriptorProto) {
    let name = format!("{scope}.{}", item.name());
    lines.insert(format!("message {name}"));
    for field in &item.field {
        let mut line = format!(
            "field {name}.{} = {} {}",
            field.name(),
            field.number(),
            type_name(field)
        );
        if field.label() == Label::Repeated {
            line.push_str(" repeated");
        }
        if let Some(index) = field.oneof_index {
            let oneof = usize::try_from(index)
                .ok()
                .and_then(|index| item.oneof_decl.get(index))
                .expect("a oneof index points into its message");
            line.push_str(&format!(" oneof {}", oneof.name()));
        }
        lines.insert(line);
    }
    for nested in &item.enum_type {
        add_enum(lines, &name, nested);
    }
    for nested in &item.nested_type {
        add_message(lines, &name, nested);
    }
}

/// The type as the protobuf language writes it; a named type without its leading dot.
fn type_name(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Enum | Type::Message | Type::Group => {
            field.type_name().trim_start_matches('.').to_owned()
        }
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    }
}

fn add_service(lines: &mut BTreeSet<String>, scope: &str, item: &ServiceDescriptorProto) {
    let stream = |streaming: bool| if streaming { "stream " } else { "" };
    for method in &item.method {
        lines.insert(format!(
            "rpc {scope}.{}.{} ({}{}) -> ({}{})",
            item.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type().trim_start_matches('.'),
            stream(method.server_streaming()),
            method.output_type().trim_start_matches('.'),
        ));
    }
}
