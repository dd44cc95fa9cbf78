//! What operators do by hand: pushes where objects speak, drafts, edits, and who they are.

use std::os::unix::fs::PermissionsExt as _;

use crate::{
    entry, group, hosts, on_both_stores,
    stand::{Agents, Kind, Stand},
};

on_both_stores!(
    a_push_changes_objects_where_they_speak,
    a_draft_is_not_live,
    an_edit_loses_nothing,
    a_deleted_object_comes_back,
);

fn host(name: &str, role: &str) -> String {
    format!(
        "---\napiVersion: logconf/v1\nkind: Host\nmetadata: {{name: {name}, labels: {{role: {role}}}}}\nspec: {{}}\n"
    )
}

async fn a_push_changes_objects_where_they_speak(kind: Kind) {
    let stand = Stand::start(kind).await;
    let _agents = Agents::start(&stand, hosts(4)).await;
    let mut text = group("web", &hosts(2), "/a", "t");
    text.push_str(&host("10.0.0.1", "web"));
    text.push_str(&host("10.0.0.3", "db"));
    let file = stand.file("fleet.yaml", &text);
    stand
        .configctl(&["apply", "-f", &file, "--wait"])
        .await
        .exits(0);

    let push = [
        "push",
        "/b",
        "-t",
        "t",
        "--group",
        "web",
        "--wait",
        "--reason",
        "all of them",
    ];
    let said = stand.configctl(&push).await.exits(0);
    assert!(
        said.out.contains("Group/web: added /b → t")
            && said.out.contains("applied on 2/2 hosts, p99 "),
        "{}",
        said.out
    );
    let both = format!("[{},{}]", entry("/a", "t"), entry("/b", "t"));
    for host in ["10.0.0.1", "10.0.0.2"] {
        assert_eq!(stand.config(host).await.unwrap(), both, "{host}");
    }
    let said = stand.configctl(&push).await.exits(0);
    assert!(said.out.contains("already there"), "{}", said.out);

    // One host of the group goes its own way, and its key is not edited behind the objects' back.
    let said = stand
        .configctl(&["push", "/a", "-t", "canary", "-l", "role=web", "--wait"])
        .await
        .exits(0);
    assert!(
        said.out.contains("10.0.0.1: /a: topic changed t → canary")
            && said.out.contains("applied on 10.0.0.1 in "),
        "{}",
        said.out
    );
    let listed = stand
        .configctl(&["agents", "list", "-o", "wide"])
        .await
        .exits(0);
    assert!(
        !listed.out.contains("drifted") && listed.out.contains("HOSTNAME"),
        "{}",
        listed.out
    );
    // A host of which nothing speaks has its key written, as ever.
    stand
        .configctl(&["push", "/x", "-t", "t", "--host", "10.0.0.4", "--wait"])
        .await
        .exits(0);
    assert_eq!(
        stand.config("10.0.0.4").await.unwrap(),
        format!("[{}]", entry("/x", "t"))
    );
    let history = stand
        .configctl(&["history", "10.0.0.4", "-o", "name"])
        .await
        .exits(0);
    assert_eq!(history.out, "");

    stand
        .configctl(&["rm-path", "/b", "--host", "10.0.0.1", "--wait"])
        .await
        .exits(0);
    assert_eq!(
        stand.config("10.0.0.1").await.unwrap(),
        format!("[{}]", entry("/a", "canary"))
    );
    assert_eq!(stand.config("10.0.0.2").await.unwrap(), both);
    let shown = stand
        .configctl(&["describe", "10.0.0.1"])
        .await
        .exits(0)
        .out;
    assert!(
        shown.starts_with("10.0.0.1: applied") && shown.contains("web"),
        "{shown}"
    );
    let shown = stand
        .configctl(&["describe", "group/web"])
        .await
        .exits(0)
        .out;
    assert!(
        shown.contains("reaches 2 hosts: 10.0.0.1, 10.0.0.2"),
        "{shown}"
    );
    for (args, code) in [
        (&["push", "/b", "-t", "t", "--group", "none"][..], 9),
        (&["push", "/b", "-t", "t", "-l", "role=none"], 9),
        (&["push", "/b", "-t", "t", "-l", "role in"], 128),
        (&["push", "/b", "-t", "t"], 128),
        (&["rm-path", "/none", "--group", "web"], 9),
        (&["rm-path", "/none", "--host", "10.0.0.2"], 9),
        (&["describe", "nobody"], 9),
    ] {
        let said = stand.configctl(args).await;
        assert_eq!(said.code, code, "{args:?}: {said:?}");
    }
    stand.stop().await;
}

async fn a_draft_is_not_live(kind: Kind) {
    let stand = Stand::start(kind).await;
    let file = stand.file("live.yaml", &group("web", &hosts(1), "/a", "t"));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let changed = stand.file("draft.yaml", &group("web", &hosts(1), "/a", "u"));
    let create = [
        "draft", "create", "next", "-f", &changed, "--reason", "tomorrow",
    ];
    stand.configctl(&create).await.exits(0);
    stand.configctl(&create).await.exits(4);
    // Neither what is shown, nor what is rendered, nor what is exported knows of it.
    for args in [
        &["show", "Group/web"][..],
        &["export"],
        &["effective", "10.0.0.1"],
    ] {
        let live = stand.configctl(args).await.exits(0).out;
        assert!(!live.contains("topic: u"), "{args:?}: {live}");
    }
    let list = stand.configctl(&["draft", "list"]).await.exits(0).out;
    assert!(
        list.contains("next") && list.contains("Group/web") && list.contains("tomorrow"),
        "{list}"
    );
    let diff = stand
        .configctl(&["draft", "diff", "next"])
        .await
        .exits(1)
        .out;
    assert!(diff.contains("topic t → u"), "{diff}");
    let shown = stand
        .configctl(&["draft", "show", "next"])
        .await
        .exits(0)
        .out;
    assert!(shown.contains("topic: u"), "{shown}");

    // Somebody else publishes the same object: the draft would take that back, so it does not.
    let other = stand.file("other.yaml", &group("web", &hosts(1), "/b", "t"));
    stand.configctl(&["apply", "-f", &other]).await.exits(0);
    stand
        .configctl(&["draft", "publish", "next"])
        .await
        .exits(4);
    stand
        .configctl(&["draft", "discard", "next"])
        .await
        .exits(0);
    stand
        .configctl(&["draft", "discard", "next"])
        .await
        .exits(9);

    stand.configctl(&create).await.exits(0);
    stand
        .configctl(&["draft", "publish", "next"])
        .await
        .exits(0);
    stand.configctl(&["draft", "show", "next"]).await.exits(9);
    stand
        .eventually("the draft is live", async || {
            stand.config("10.0.0.1").await == Some(format!("[{}]", entry("/a", "u")))
        })
        .await;
    let history = stand.configctl(&["history"]).await.exits(0).out;
    assert!(
        history.contains("tomorrow"),
        "the reason of the draft is kept: {history}"
    );
    stand.stop().await;
}

/// An editor that is a program: it changes topics, as `sed` would.
fn editor(stand: &Stand, script: &str) -> String {
    let path = stand.file("editor.sh", &format!("#!/bin/sh\n{script}\n"));
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    path
}

async fn an_edit_loses_nothing(kind: Kind) {
    let stand = Stand::start(kind).await;
    let file = stand.file("live.yaml", &group("web", &hosts(1), "/a", "t"));
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    let edit = async |script: &str| {
        let editor = editor(&stand, script);
        let mut command = stand.command(&["edit", "Group/web"]);
        command
            .env("VISUAL", editor)
            .env("TMPDIR", stand.folder.path());
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    };
    assert_eq!(edit("true").await.0, 0);
    assert_eq!(edit("sed -i 's/topic: t/topic: u/' \"$1\"").await.0, 0);
    let live = stand.configctl(&["show", "Group/web"]).await.exits(0).out;
    assert!(live.contains("topic: u"), "{live}");
    let (code, said) = edit("sed -i 's/topic/tpoic/' \"$1\"").await;
    assert!(
        code == 3 && said.contains("did you mean \"topic\"?"),
        "{code}: {said}"
    );
    let kept = said.rsplit_once("kept in ").unwrap().1.trim();
    assert!(std::fs::read_to_string(kept).unwrap().contains("tpoic"));
    // While one edits, somebody else publishes.
    let other = stand.file("other.yaml", &group("web", &hosts(1), "/b", "t"));
    let meanwhile = format!(
        "{} --endpoints {} apply -f {other} >/dev/null && sed -i 's/topic: u/topic: v/' \"$1\"",
        env!("CARGO_BIN_EXE_configctl"),
        stand.endpoint
    );
    let (code, said) = edit(&meanwhile).await;
    assert!(code == 4 && said.contains("kept in "), "{code}: {said}");
    let live = stand.configctl(&["show", "Group/web"]).await.exits(0).out;
    assert!(live.contains("path: /b"), "{live}");
    assert_eq!(edit("false").await.0, 6);
    stand.stop().await;
}

async fn a_deleted_object_comes_back(kind: Kind) {
    let stand = Stand::start(kind).await;
    let text =
        host("10.0.0.1", "web").replace("spec: {}", "spec: {logs: [{path: /own, topic: t}]}");
    let file = stand.file("host.yaml", &text);
    stand.configctl(&["apply", "-f", &file]).await.exits(0);
    stand
        .configctl(&["undelete", "Host/10.0.0.1"])
        .await
        .exits(3);
    stand
        .configctl(&["agents", "retire", "10.0.0.1"])
        .await
        .exits(0);
    stand
        .eventually("its key is gone", async || {
            stand.config("10.0.0.1").await.is_none()
        })
        .await;
    stand
        .configctl(&["undelete", "Host/10.0.0.1", "--reason", "slip"])
        .await
        .exits(0);
    stand
        .eventually("it collects again", async || {
            stand.config("10.0.0.1").await == Some(format!("[{}]", entry("/own", "t")))
        })
        .await;
    let shown = stand
        .configctl(&["show", "Host/10.0.0.1"])
        .await
        .exits(0)
        .out;
    assert!(
        shown.contains("role: web"),
        "its labels are back, too: {shown}"
    );
    stand.configctl(&["undelete", "Host/never"]).await.exits(9);
    // The last publish is undone as it was made.
    stand.configctl(&["undo"]).await.exits(0);
    stand
        .eventually("it is gone again", async || {
            stand.config("10.0.0.1").await.is_none()
        })
        .await;
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_kept_and_shown() {
    let stand = Stand::start(Kind::Own).await;
    let home = stand.folder.path().join("home");
    let run = async |args: &[&str], input: &str| {
        let mut command = stand.command(args);
        command.env("XDG_CONFIG_HOME", &home);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes())
            .await
            .unwrap_or_default();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.code().unwrap(),
            text + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, said) = run(&["whoami"], "").await;
    assert!(
        code == 0 && said.contains("authentication is off"),
        "{said}"
    );
    let etcdctl = async |args: &[&str]| {
        let mut command = tokio::process::Command::new("etcdctl");
        let endpoint = stand.endpoint.trim_start_matches("http://");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", endpoint])
            .args(args);
        let output = command.output().await.expect("install etcd-client");
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    etcdctl(&["user", "add", "root:secret"]).await;
    etcdctl(&["user", "grant-role", "root", "root"]).await;
    etcdctl(&["role", "add", "fleet"]).await;
    etcdctl(&[
        "role",
        "grant-permission",
        "fleet",
        "--prefix=true",
        "readwrite",
        "/ningxin/backend/",
    ])
    .await;
    etcdctl(&["user", "add", "olga:o"]).await;
    etcdctl(&["user", "grant-role", "olga", "fleet"]).await;
    etcdctl(&["auth", "enable"]).await;
    assert_eq!(run(&["whoami"], "").await.0, 8);
    assert_eq!(run(&["login", "--user", "olga"], "wrong\n").await.0, 8);
    assert_eq!(run(&["login"], "o\n").await.0, 128);
    let (code, said) = run(&["login", "--user", "olga"], "o\n").await;
    assert_eq!(code, 0, "{said}");
    let kept = home.join("configctl/logins.json");
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, said) = run(&["whoami"], "").await;
    assert!(
        code == 0 && said.contains("olga, roles: fleet") && said.contains("read and write"),
        "{said}"
    );
    // What is published now is olga's, and carried out by the server on its own.
    let file = stand.file("g.yaml", &group("web", &hosts(1), "/a", "t"));
    let (code, said) = run(&["apply", "-f", &file], "").await;
    assert_eq!(code, 0, "{said}");
    let (_, history) = run(&["history"], "").await;
    assert!(history.contains("olga"), "{history}");
    assert_eq!(run(&["login", "--forget"], "").await.0, 0);
    assert_eq!(run(&["whoami"], "").await.0, 8);
    assert_eq!(run(&["history"], "").await.0, 8);
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_has_a_manual_page() {
    let stand = Stand::start(Kind::Own).await;
    let folder = stand.folder.path().join("man");
    stand
        .configctl(&["man", folder.to_str().unwrap()])
        .await
        .exits(0);
    for page in [
        "configctl.1",
        "configctl-push.1",
        "configctl-draft-publish.1",
        "configctl-rollout.1",
    ] {
        let text = std::fs::read_to_string(folder.join(page))
            .unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH NAME"), "{page}");
    }
    stand.stop().await;
}
