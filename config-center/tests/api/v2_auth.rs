//! Users and roles of v2, which are those of v3: what either says of the other, and that v2 shows
//! nobody more than v3 would.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::authpb::permission::Type;
use schemas::etcdserverpb as pb;
use serde_json::{Value, json};

use super::auth::{Visitor, add_role, add_user, guarded};
use super::fixture::{Fixture, put};

/// `who` is `name:password`, or nobody.
async fn ask(fixture: &Fixture, who: &str, verb: &str, target: &str, body: &str) -> (u16, Value) {
    let login = match who {
        "" => String::new(),
        who => format!("authorization: Basic {}\r\n", STANDARD.encode(who)),
    };
    let request = format!(
        "{verb} /v2{target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{login}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = fixture.raw(&request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head[9..12].parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn status(fixture: &Fixture, who: &str, verb: &str, target: &str, body: &str) -> u16 {
    ask(fixture, who, verb, target, body).await.0
}

#[tokio::test]
async fn users_of_v3_are_users_of_v2() {
    let fixture = guarded(&[]).await;
    let root = Visitor::login(&fixture, "root", "r").await;
    add_role(&root, "web", Type::Read, "/web/", "/web0").await;
    add_role(&root, "list", Type::Read, "/", "").await;
    add_role(&root, "drop", Type::Write, "/drop", "").await;
    add_user(&root, "eve", "e", Some("web")).await;
    for role in ["list", "drop"] {
        let grant = pb::AuthUserGrantRoleRequest {
            user: "eve".to_owned(),
            role: role.to_owned(),
        };
        root.auth().user_grant_role(grant).await.unwrap();
    }
    for key in ["/web/a", "/drop", "/secret"] {
        root.kv().put(put(key, "hidden")).await.unwrap();
    }

    assert_eq!(
        status(&fixture, "eve:e", "GET", "/keys/web/a", "").await,
        200
    );
    assert_eq!(
        status(&fixture, "eve:x", "GET", "/keys/web/a", "").await,
        401
    );
    assert_eq!(
        status(&fixture, "eve:e", "GET", "/keys/secret", "").await,
        401
    );
    assert_eq!(
        status(&fixture, "eve:e", "PUT", "/keys/web/a", "value=1").await,
        401
    );
    assert_eq!(status(&fixture, "", "GET", "/keys/web/a", "").await, 401);
    assert_eq!(
        status(&fixture, "root:r", "GET", "/keys/secret", "").await,
        200
    );
    // A slash at the end asks for the inside, and only for that.
    assert_eq!(status(&fixture, "eve:e", "GET", "/keys/web", "").await, 401);
    assert_eq!(
        status(&fixture, "eve:e", "GET", "/keys/web/?recursive=true", "").await,
        200
    );

    // Of a listing only what eve may read: nothing here, not even the value of /secret.
    assert_eq!(status(&fixture, "eve:e", "GET", "/keys/", "").await, 401);
    let (code, listing) = ask(&fixture, "eve:e", "GET", "/keys", "").await;
    assert_eq!(
        (code, &listing["node"]["nodes"]),
        (200, &Value::Null),
        "{listing}"
    );
    let (code, listing) = ask(&fixture, "root:r", "GET", "/keys/", "").await;
    assert_eq!(code, 200);
    assert!(listing.to_string().contains("/secret"), "{listing}");

    // Whoever may only write is told neither the old value nor what a condition met.
    let (code, set) = ask(&fixture, "eve:e", "PUT", "/keys/drop", "value=2").await;
    assert_eq!((code, &set["action"]), (200, &json!("set")));
    assert_eq!(set["prevNode"], Value::Null);
    let compared = "/keys/drop?prevValue=guess";
    assert_eq!(
        status(&fixture, "eve:e", "PUT", compared, "value=3").await,
        401
    );
    let (_, set) = ask(&fixture, "root:r", "PUT", "/keys/drop", "value=4").await;
    assert_eq!(set["prevNode"]["value"], json!("2"));

    // Only root manages, and what v3 says v2 shows.
    for (verb, target) in [
        ("GET", "/auth/users"),
        ("GET", "/auth/roles/web"),
        ("DELETE", "/auth/users/bob"),
        ("DELETE", "/auth/enable"),
        ("DELETE", "/members/7"),
    ] {
        assert_eq!(
            status(&fixture, "eve:e", verb, target, "").await,
            401,
            "{verb} {target}"
        );
        assert_eq!(
            status(&fixture, "", verb, target, "").await,
            401,
            "{verb} {target}"
        );
    }
    let (_, role) = ask(&fixture, "root:r", "GET", "/auth/roles/web", "").await;
    assert_eq!(role["permissions"]["kv"]["read"], json!(["/web/*"]));
    assert_eq!(
        status(&fixture, "root:r", "DELETE", "/members/7", "").await,
        404
    );
    fixture.stop().await;
}

#[tokio::test]
async fn only_v2_makes_guests() {
    let mut fixture = guarded(&[]).await;
    let root = Visitor::login(&fixture, "root", "r").await;
    root.kv().put(put("/public", "1")).await.unwrap();
    // A role of that name that somebody made in v3 opens nothing.
    add_role(&root, "guest", Type::Read, "/", "0").await;
    assert_eq!(status(&fixture, "", "GET", "/keys/public", "").await, 401);
    assert_eq!(
        status(&fixture, "root:r", "DELETE", "/auth/enable", "").await,
        200
    );
    assert_eq!(status(&fixture, "", "GET", "/keys/public", "").await, 200);

    assert_eq!(status(&fixture, "", "PUT", "/auth/enable", "").await, 200);
    for _ in 0..2 {
        assert_eq!(status(&fixture, "", "GET", "/keys/public", "").await, 200);
        assert_eq!(
            status(&fixture, "", "PUT", "/keys/public", "value=2").await,
            401
        );
        // v3 knows no guests.
        Visitor::anonymous(&fixture)
            .kv()
            .put(put("/public", "2"))
            .await
            .unwrap_err();
        fixture.restart().await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn users_made_by_v2_log_in_on_v3() {
    let fixture = Fixture::start_with(&["--bcrypt-cost=4"]).await;
    for (target, body, expected) in [
        ("/auth/users/root", r#"{"user":"root","password":"r"}"#, 201),
        (
            "/auth/roles/app",
            r#"{"role":"app","permissions":{"kv":{"read":["/app/*"],"write":["/app/*"]}}}"#,
            201,
        ),
        (
            "/auth/users/ann",
            r#"{"user":"ann","password":"a","roles":["app"]}"#,
            200,
        ),
        (
            "/auth/users/bob",
            r#"{"user":"bob","password":"b","roles":["none"]}"#,
            404,
        ),
        ("/auth/enable", "", 200),
    ] {
        let (code, answer) = ask(&fixture, "", "PUT", target, body).await;
        assert_eq!(code, expected, "{target}: {answer}");
    }
    let ann = Visitor::login(&fixture, "ann", "a").await;
    ann.kv().put(put("/app/x", "1")).await.unwrap();
    ann.kv().put(put("/other", "1")).await.unwrap_err();
    // A new password by v2 ends what the old one opened on v3.
    let changed = r#"{"user":"ann","password":"new"}"#;
    assert_eq!(
        status(&fixture, "root:r", "PUT", "/auth/users/ann", changed).await,
        200
    );
    ann.kv().put(put("/app/x", "2")).await.unwrap_err();
    assert_eq!(
        status(&fixture, "ann:a", "GET", "/keys/app/x", "").await,
        401
    );
    assert_eq!(
        status(&fixture, "ann:new", "GET", "/keys/app/x", "").await,
        200
    );
    fixture.stop().await;
}
