//! `config-center gateway` and `config-center grpc-proxy` before a real server: etcd's own client
//! works through both, a dead endpoint is left out, and what they do not do is refused.

use std::process::Command;

use e2e::process::Process;
use e2e::tools::{run, run_etcdctl};
use e2e::wait::{DEADLINE, wait_until};
use e2e::{Center, binaries, ports};

const KINDS: [&str; 2] = ["gateway", "grpc-proxy"];

fn proxy(kind: &str, endpoints: &str, port: u16) -> anyhow::Result<Command> {
    let mut command = Command::new(binaries::program("config-center")?);
    command.args([
        kind,
        "start",
        &format!("--endpoints={endpoints}"),
        &format!("--listen-addr=127.0.0.1:{port}"),
    ]);
    Ok(command)
}

#[test]
fn etcdctl_works_through_both() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let center = Center::start(folder.path())?;
    for kind in KINDS {
        let (port, nobody) = (ports::free_port(), ports::free_port());
        let endpoints = format!("127.0.0.1:{nobody},{}", center.url());
        let log = folder.path().join(format!("{kind}.log"));
        let mut process = Process::spawn(kind, proxy(kind, &endpoints, port)?, &log)?;
        wait_until("the proxy listens", DEADLINE, || {
            (!ports::is_free(port)).then_some(())
        })?;
        // Several clients, so that each endpoint has its turn.
        for value in ["1", "2", "3"] {
            run_etcdctl(port, &["put", kind, value], "")?.ok()?;
            let got = run_etcdctl(port, &["get", "--print-value-only", kind], "")?.ok()?;
            assert_eq!(got.trim(), value, "{kind}");
        }
        // A status comes behind the messages, in the trailers.
        let gone = run_etcdctl(port, &["lease", "revoke", "1234"], "")?;
        assert!(
            gone.stderr.contains("requested lease not found"),
            "{gone:?}"
        );
        // Streams in both directions: a lease is kept alive, a key is watched.
        let held = run_etcdctl(port, &["lock", kind, "echo", "held"], "")?.ok()?;
        assert!(held.contains("held"), "{kind}: {held}");
        process.terminate()?;
    }
    assert_eq!(
        center.store()?.get("gateway")?.map(|kv| kv.value),
        Some("3".into())
    );
    Ok(())
}

#[test]
fn what_they_do_not_do_is_refused() -> anyhow::Result<()> {
    let port = ports::free_port();
    let own = format!("127.0.0.1:{port}");
    for (kind, flag, text) in [
        ("gateway", "--discovery-srv=example.org", "give --endpoints"),
        (
            "gateway",
            "--trusted-ca-file=ca.pem",
            "does not look into it",
        ),
        ("grpc-proxy", "--namespace=/a", "passed on as they are"),
        (
            "grpc-proxy",
            "--resolver-prefix=/a",
            "does not register itself",
        ),
        ("grpc-proxy", "--cert-file=a.pem", "go together"),
    ] {
        let mut command = proxy(kind, "127.0.0.1:1", port)?;
        let refused = run(command.arg(flag), "")?;
        assert_eq!(refused.code, Some(1), "{flag}: {refused:?}");
        assert!(refused.stderr.contains(text), "{flag}: {refused:?}");
    }
    for kind in KINDS {
        let looped = run(&mut proxy(kind, &own, port)?, "")?;
        assert!(
            looped.stderr.contains("the address that is listened on"),
            "{looped:?}"
        );
    }
    Ok(())
}
