//! `/openapi.json`: the routes as OpenAPI 3.1, made from one table.
//!
//! The schemas of the objects are the ones in `schemas/json`, which are made from the Rust types.

use axum::{Json, response::IntoResponse};
use serde_json::{Map, Value, json};

use super::problem::Problem;

/// One operation: method, path, what it does, and whether it takes a body of objects.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub summary: &'static str,
    takes_objects: bool,
    /// Names of query parameters.
    query: &'static [&'static str],
}

const PAGE: [&str; 2] = ["limit", "continue"];

const fn route(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
) -> Route {
    Route {
        method,
        path,
        summary,
        takes_objects: false,
        query,
    }
}

const fn with_objects(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
) -> Route {
    Route {
        method,
        path,
        summary,
        takes_objects: true,
        query,
    }
}

pub const ROUTES: [Route; 28] = [
    route("get", "/openapi.json", "This document", &[]),
    route(
        "get",
        "/api/v1/objects",
        "All objects, by kind and name",
        &["kind", "limit", "continue"],
    ),
    route(
        "get",
        "/api/v1/objects/{kind}/{name}",
        "One object, with its revision as ETag",
        &[],
    ),
    with_objects(
        "put",
        "/api/v1/objects/{kind}/{name}",
        "Publish one object; If-Match holds its ETag",
        &[],
    ),
    route(
        "delete",
        "/api/v1/objects/{kind}/{name}",
        "Delete one object; If-Match holds its ETag",
        &["allowEmptying"],
    ),
    route(
        "post",
        "/api/v1/objects/{kind}/{name}/undelete",
        "Publish the last version of a deleted object",
        &[],
    ),
    route("get", "/api/v1/drafts", "Drafts, by name", &PAGE),
    route(
        "get",
        "/api/v1/drafts/{name}",
        "One draft, with its revision as ETag",
        &[],
    ),
    with_objects(
        "put",
        "/api/v1/drafts/{name}",
        "Make a draft, or replace the one whose ETag If-Match holds",
        &["delete"],
    ),
    route("delete", "/api/v1/drafts/{name}", "Throw a draft away", &[]),
    route(
        "get",
        "/api/v1/drafts/{name}/diff",
        "What publishing a draft would change now",
        &[],
    ),
    route(
        "post",
        "/api/v1/drafts/{name}/publish",
        "Publish a draft and remove it",
        &["allowEmptying"],
    ),
    with_objects(
        "post",
        "/api/v1/validate",
        "Check objects as if they were the whole fleet",
        &[],
    ),
    with_objects(
        "post",
        "/api/v1/apply",
        "Publish objects together",
        &["dryRun", "prune", "allowEmptying"],
    ),
    route(
        "get",
        "/api/v1/hosts",
        "All hosts and how they stand",
        &["state", "limit", "continue"],
    ),
    route(
        "get",
        "/api/v1/hosts/{host}",
        "One host: state, document, drift, status",
        &[],
    ),
    route(
        "get",
        "/api/v1/hosts/{host}/effective",
        "What a host collects by the objects, and why",
        &[],
    ),
    route(
        "post",
        "/api/v1/hosts/{host}/{action}",
        "adopt or restore an edit by hand, or retire the host",
        &[],
    ),
    route("get", "/api/v1/releases", "Releases, newest first", &PAGE),
    route(
        "get",
        "/api/v1/releases/{number}",
        "One release with the objects before and after",
        &[],
    ),
    route(
        "post",
        "/api/v1/releases/{number}/rollback",
        "Put a release back, or restore its version of an object",
        &["object"],
    ),
    route("get", "/api/v1/rollouts", "Rollouts, newest first", &PAGE),
    route("get", "/api/v1/rollouts/{id}", "How a rollout stands", &[]),
    route(
        "post",
        "/api/v1/rollouts/{id}/{command}",
        "pause, resume, retry or abort a rollout",
        &[],
    ),
    route(
        "get",
        "/api/v1/audit",
        "The audit, oldest first, and whether its chain holds",
        &PAGE,
    ),
    route(
        "get",
        "/api/v1/events",
        "Changes as server-sent events; Last-Event-ID resumes",
        &[],
    ),
    route(
        "head",
        "/api/v1/objects",
        "Whether the objects can be read",
        &[],
    ),
    route(
        "head",
        "/api/v1/hosts",
        "Whether the hosts can be read",
        &[],
    ),
];

pub(super) async fn serve() -> Result<impl IntoResponse, Problem> {
    document()
        .map(Json)
        .map_err(|error| Problem::invalid(error.to_string()))
}

/// The whole document.
pub fn document() -> Result<Value, serde_json::Error> {
    let mut paths: Map<String, Value> = Map::new();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation(route);
    }
    let mut schemas = Map::new();
    for (file, text) in schemas::documents::json_schemas()? {
        let mut schema: Value = serde_json::from_str(&text)?;
        let name = file.trim_end_matches(".json");
        // Inside of this document, a schema's own definitions lie below the schema.
        moved(&mut schema, &format!("#/components/schemas/{name}/$defs/"));
        if let Some(fields) = schema.as_object_mut() {
            fields.remove("$schema");
        }
        schemas.insert(name.into(), schema);
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "config-center: the fleet",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Errors are application/problem+json with a stable `code`. Credentials are \
                those of a user of the store, as HTTP Basic. `X-Reason` and `Idempotency-Key` are kept \
                in history and audit.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "store": { "type": "http", "scheme": "basic" } },
        },
        "security": [{ "store": [] }, {}],
    }))
}

fn operation(route: &Route) -> Value {
    let in_path = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .chain(route.query.iter().map(|name| {
            let kind = match *name {
                "limit" => "integer",
                "dryRun" | "prune" | "allowEmptying" => "boolean",
                _ => "string",
            };
            json!({ "name": name, "in": "query", "schema": { "type": kind } })
        }))
        .collect();
    let problem = json!({
        "description": "a problem",
        "content": { "application/problem+json": { "schema": { "type": "object", "required": ["code", "status", "detail"] } } },
    });
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": { "2XX": { "description": "done" }, "4XX": problem, "5XX": problem },
    });
    if route.takes_objects {
        let object = json!({ "$ref": "#/components/schemas/fleet-object" });
        operation["requestBody"] = json!({
            "required": true,
            "content": {
                "application/json": { "schema": { "anyOf": [object, { "type": "array", "items": object }] } },
                "application/yaml": { "schema": object },
            },
        });
    }
    operation
}

fn moved(schema: &mut Value, below: &str) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(target) if name == "$ref" => {
                        if let Some(rest) = target.strip_prefix("#/$defs/") {
                            *target = format!("{below}{rest}");
                        }
                    }
                    other => moved(other, below),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| moved(item, below)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    for (name, value) in fields {
                        match value {
                            Value::String(target) if name == "$ref" => found.push(target),
                            other => references(other, found),
                        }
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document().unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 10);
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
    }
}
