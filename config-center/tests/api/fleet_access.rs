//! Every route of the fleet's API, by everybody who might use it, on the client port of a member
//! with authentication on. A new route fails here until somebody has said who may use it.
//!
//! The routes have no rights of their own: what is shown is that each of them asks the store as the
//! one who sent the request, and that the server's own rights are lent to nobody.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use config_center::fleet::api::ROUTES;
use schemas::authpb::permission::Type;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::auth::{Visitor, add_role, add_user, guarded};
use super::fixture::{Fixture, within};

const NS: &str = "/ningxin/backend/";
const NS_END: &str = "/ningxin/backend0";

/// rita may read the fleet's keys, olga may write them too, eve has a role for something else.
const PEOPLE: [(&str, &str); 5] = [
    ("", ""),
    ("eve", "e"),
    ("rita", "i"),
    ("olga", "o"),
    ("root", "r"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Everybody,
    Readers,
    Writers,
}

fn may(class: Class, who: &str) -> bool {
    match class {
        Class::Everybody => true,
        Class::Readers => matches!(who, "rita" | "olga" | "root"),
        Class::Writers => matches!(who, "olga" | "root"),
    }
}

fn group(name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: logconf/v1\nkind: Group\nmetadata: {{name: {name}}}\nspec: {{{more}, logs: [{{path: \
         /var/log/a.log, topic: a}}]}}\n"
    )
}

fn host(name: &str) -> String {
    format!(
        "---\napiVersion: logconf/v1\nkind: Host\nmetadata: {{name: {name}}}\nspec: {{logs: [{{path: /h, topic: t}}]}}\n"
    )
}

/// The class of a route, and a path and a body for which it holds: those of writers would change
/// something, so that a reader gets as far as the store.
fn classify(method: &str, path: &str, who: &str) -> Option<(Class, String, String)> {
    use Class::{Everybody, Readers, Writers};
    let nothing = String::new();
    let at = |path: &str| path.to_owned();
    Some(match (method, path) {
        ("get", "/openapi.json") => (Everybody, at(path), nothing),
        // It looks at the text alone.
        ("post", "/api/v1/validate") => (Everybody, at(path), host("h1")),
        ("post", "/api/v1/apply") => (Writers, at(path), host(&format!("by-{who}"))),
        ("put", "/api/v1/objects/{kind}/{name}") => {
            let name = format!("too-{who}");
            (Writers, format!("/api/v1/objects/Host/{name}"), host(&name))
        }
        ("delete", "/api/v1/objects/{kind}/{name}") => (
            Writers,
            at("/api/v1/objects/Host/doomed?allowEmptying=true"),
            nothing,
        ),
        ("post", "/api/v1/objects/{kind}/{name}/undelete") => {
            (Writers, at("/api/v1/objects/Host/gone/undelete"), nothing)
        }
        ("put", "/api/v1/drafts/{name}") => {
            (Writers, format!("/api/v1/drafts/of-{who}"), host("drafted"))
        }
        ("delete", "/api/v1/drafts/{name}") => (Writers, at("/api/v1/drafts/discarded"), nothing),
        ("post", "/api/v1/drafts/{name}/publish") => {
            (Writers, at("/api/v1/drafts/published/publish"), nothing)
        }
        (_, "/api/v1/drafts/{name}") => (Readers, at("/api/v1/drafts/kept"), nothing),
        (_, "/api/v1/drafts/{name}/diff") => (Readers, at("/api/v1/drafts/kept/diff"), nothing),
        ("post", "/api/v1/hosts/{host}/{action}") => {
            (Writers, at("/api/v1/hosts/old/retire"), nothing)
        }
        ("post", "/api/v1/releases/{number}/rollback") => {
            (Writers, at("/api/v1/releases/1/rollback"), nothing)
        }
        ("post", "/api/v1/rollouts/{id}/{command}") => (
            Writers,
            at("/api/v1/rollouts/0000000002-slow/pause"),
            nothing,
        ),
        (_, "/api/v1/objects/{kind}/{name}") => {
            (Readers, at("/api/v1/objects/RolloutPolicy/slow"), nothing)
        }
        (_, "/api/v1/hosts/{host}") => (Readers, at("/api/v1/hosts/first"), nothing),
        (_, "/api/v1/hosts/{host}/effective") => {
            (Readers, at("/api/v1/hosts/s1/effective"), nothing)
        }
        (_, "/api/v1/releases/{number}") => (Readers, at("/api/v1/releases/1"), nothing),
        (_, "/api/v1/rollouts/{id}") => (Readers, at("/api/v1/rollouts/0000000002-slow"), nothing),
        (
            "get" | "head",
            "/api/v1/objects" | "/api/v1/hosts" | "/api/v1/releases" | "/api/v1/rollouts"
            | "/api/v1/audit" | "/api/v1/events" | "/api/v1/drafts",
        ) => (Readers, at(path), nothing),
        _ => return None,
    })
}

fn request((name, password): (&str, &str), method: &str, path: &str, body: &str) -> String {
    let login = match name {
        "" => String::new(),
        name => {
            let login = BASE64_STANDARD.encode(format!("{name}:{password}"));
            format!("authorization: Basic {login}\r\n")
        }
    };
    format!(
        "{} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{login}content-type: application/yaml\r\n\
         content-length: {}\r\n\r\n{body}",
        method.to_uppercase(),
        body.len()
    )
}

/// The status of the answer; what follows need not end.
async fn status(fixture: &Fixture, request: &str) -> u16 {
    let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut line = [0; "HTTP/1.1 200".len()];
    within(request, stream.read_exact(&mut line)).await.unwrap();
    let line = std::str::from_utf8(&line).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn prepare(fixture: &Fixture) {
    let root = Visitor::login(fixture, "root", "r").await;
    add_role(&root, "fleet-reader", Type::Read, NS, NS_END).await;
    add_role(&root, "fleet-operator", Type::Readwrite, NS, NS_END).await;
    add_role(&root, "else", Type::Readwrite, "x", "").await;
    add_user(&root, "eve", "e", Some("else")).await;
    add_user(&root, "rita", "i", Some("fleet-reader")).await;
    add_user(&root, "olga", "o", Some("fleet-operator")).await;
    let policy = "---\napiVersion: logconf/v1\nkind: RolloutPolicy\nmetadata: {name: slow}\nspec: \
                  {waves: [{hosts: 1}, {percent: 100}]}\n";
    for body in [
        host("first"),
        // No agent reports, so its first wave proves nothing and is waited for.
        format!(
            "{policy}{}",
            group("web", "rollout: slow, members: [s1, s2]")
        ),
        host("doomed"),
        host("old"),
        host("gone"),
    ] {
        let applying = request(("root", "r"), "post", "/api/v1/apply", &body);
        assert_eq!(status(fixture, &applying).await, 201, "{body}");
    }
    let deleting = "/api/v1/objects/Host/gone?allowEmptying=true";
    let deleting = request(("root", "r"), "delete", deleting, "");
    assert_eq!(status(fixture, &deleting).await, 201);
    for name in ["kept", "discarded", "published"] {
        let path = format!("/api/v1/drafts/{name}");
        let making = request(("root", "r"), "put", &path, &host(name));
        assert_eq!(status(fixture, &making).await, 201, "{name}");
    }
}

#[tokio::test]
async fn every_route_of_the_fleet_asks_who_calls() {
    let fixture = guarded(&[]).await;
    prepare(&fixture).await;
    // The leader carries the rollout out with rights of its own, also while users are asked for.
    let shown = request(("root", "r"), "get", "/api/v1/rollouts/0000000002-slow", "");
    let stepping = async {
        while !fixture.raw(&shown).await.contains("\"published\":1") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    within("the first wave is published", stepping).await;
    for route in &ROUTES {
        for (who, password) in PEOPLE {
            let (class, path, body) =
                classify(route.method, route.path, who).unwrap_or_else(|| {
                    panic!("{} {} is new: say who may use it", route.method, route.path)
                });
            let request = request((who, password), route.method, &path, &body);
            let status = status(&fixture, &request).await;
            assert!(status < 500, "{request}: {status}");
            let is_allowed = !matches!(status, 401 | 403);
            assert_eq!(is_allowed, may(class, who), "{request}: {status}");
            // The first one who may do it shows that the request is a good one.
            if who == "olga" {
                assert!(status < 300, "{request}: {status}");
            }
        }
    }
    // A wrong password is nobody's.
    let forged = request(("root", "x"), "get", "/api/v1/objects", "");
    assert_eq!(status(&fixture, &forged).await, 401);
    fixture.stop().await;
}

#[tokio::test]
async fn the_fleet_can_be_turned_off() {
    let fixture = Fixture::start_with(&["--fleet=false"]).await;
    let asked = request(("", ""), "get", "/api/v1/objects", "");
    assert_eq!(status(&fixture, &asked).await, 404);
    fixture.stop().await;
}
