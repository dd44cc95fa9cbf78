//! The products with certificates and tokens: configctl and logagent against a center that lets
//! only known clients in, and tokens that one member of a cluster gives and another one is shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::agent::{self, AgentSetup, HOST, config_key, status_key};
use e2e::cluster::Cluster;
use e2e::store::runtime;
use e2e::tools::{Output, run};
use e2e::{DEADLINE, Kafka, Process, binaries, center, ports, wait_until};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use schemas::authpb::{Permission, permission::Type};
use schemas::etcdserverpb as pb;
use schemas::etcdserverpb::auth_client::AuthClient;
use schemas::etcdserverpb::kv_client::KvClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const OLD_REVISION: &str = "etcdserver: revision of auth store is old";

/// An authority whose certificates lie in a folder as PEM files.
struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = folder.join(name);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("ca.pem"), issuer.pem()).expect("written");
        Self { folder, issuer }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str) {
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params
            .signed_by(&key, &*self.issuer)
            .expect("a certificate");
        fs::write(self.folder.join(format!("{name}.pem")), certificate.pem()).expect("written");
        fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }
}

/// A member that speaks TLS and asks each client for a certificate.
struct Guarded {
    process: Process,
    url: String,
    authority: Authority,
    stranger: Authority,
}

impl Guarded {
    fn start(folder: &Path) -> Self {
        let authority = Authority::new(folder, "authority");
        let stranger = Authority::new(folder, "stranger");
        authority.issue("server");
        for name in ["operator", "agent"] {
            authority.issue(name);
        }
        stranger.issue("operator");
        let (client_port, peer_port) = (ports::free_port(), ports::free_port());
        let url = format!("https://127.0.0.1:{client_port}");
        let mut command =
            center::command(&folder.join("center.data"), client_port, peer_port).expect("built");
        // The last of two equal flags counts.
        command.args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ]);
        command.args(["--client-cert-auth", "--bcrypt-cost=4"]);
        command.args(["--cert-file", &authority.file("server.pem")]);
        command.args(["--key-file", &authority.file("server.key")]);
        command.args(["--trusted-ca-file", &authority.file("ca.pem")]);
        let log = folder.join("config-center.log");
        let process = Process::spawn("config-center", command, &log).expect("started");
        let guarded = Self {
            process,
            url,
            authority,
            stranger,
        };
        wait_until("the member to answer configctl", DEADLINE, || {
            let output = guarded.configctl(&guarded.authority, "operator", &["kv", "get", "a"]);
            (output.code != Some(2)).then_some(())
        })
        .expect("a member");
        guarded
    }

    fn configctl(&self, authority: &Authority, name: &str, arguments: &[&str]) -> Output {
        let own = [
            "--cacert".to_owned(),
            self.authority.file("ca.pem"),
            "--cert".to_owned(),
            authority.file(&format!("{name}.pem")),
            "--key".to_owned(),
            authority.file(&format!("{name}.key")),
        ];
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.configctl_with(&own, arguments)
    }

    fn configctl_with(&self, own: &[&str], arguments: &[&str]) -> Output {
        let mut command = Command::new(binaries::program("configctl").expect("built"));
        command
            .args(["--endpoints", &self.url])
            .args(own)
            .args(arguments);
        run(&mut command, "").expect("configctl runs")
    }

    fn operator(&self, arguments: &[&str]) -> Output {
        self.configctl(&self.authority, "operator", arguments)
    }
}

#[test]
fn configctl_and_logagent_are_known_by_their_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut guarded = Guarded::start(folder.path());
    let kafka = Kafka::mock().expect("a broker");
    kafka.create_topic("nginx_log", 1).expect("a topic");
    let watched = folder.path().join("access.log");
    fs::write(&watched, "one line\n").expect("written");

    // The operator's certificate opens; none, a stranger's, and a stranger's server do not.
    guarded
        .operator(&["kv", "put", "a", "1"])
        .ok()
        .expect("a put");
    let ca = guarded.authority.file("ca.pem");
    let foreign_ca = guarded.stranger.file("ca.pem");
    let refused = [
        guarded.configctl_with(&["--cacert", &ca], &["kv", "get", "a"]),
        guarded.configctl(&guarded.stranger, "operator", &["kv", "get", "a"]),
        guarded.configctl_with(&["--cacert", &foreign_ca], &["kv", "get", "a"]),
    ];
    for output in refused {
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{output:?}"
        );
    }
    // Half an identity is a mistake that is named before anything is sent.
    let cert = guarded.authority.file("operator.pem");
    let half = guarded.configctl_with(&["--cacert", &ca, "--cert", &cert], &["kv", "get", "a"]);
    assert!(
        half.code != Some(0) && half.stderr.contains("key"),
        "{half:?}"
    );

    // The agent has a certificate of its own.
    let setup = AgentSetup::new(&guarded.url, kafka.bootstrap(), folder.path());
    let yaml = setup.yaml(&folder.path().join("agent.data"));
    let identity = format!(
        ", ca: {:?}, cert: {:?}, key: {:?} }}\nkey:",
        ca,
        guarded.authority.file("agent.pem"),
        guarded.authority.file("agent.key"),
    );
    let yaml = yaml.replacen(" }\nkey:", &identity, 1);
    assert!(yaml.contains("agent.pem"), "{yaml}");
    let file = folder.path().join("agent.yaml");
    fs::write(&file, yaml).expect("written");
    let log = folder.path().join("logagent.log");
    let mut agent =
        Process::spawn("logagent", agent::command(&file).expect("built"), &log).expect("started");
    let path = watched.display().to_string();
    let push = [
        "push",
        &path,
        "--topic",
        "nginx_log",
        "--host",
        HOST,
        "--wait",
    ];
    let printed = guarded.operator(&push).ok().expect("applied");
    assert!(printed.contains(&format!("applied on {HOST}")), "{printed}");
    let status = guarded
        .operator(&["kv", "get", &status_key(HOST)])
        .ok()
        .expect("a status");
    assert!(status.contains("nginx_log"), "{status}");

    // With users on, the names in the certificates are users, each with its own rights.
    let user = |arguments: &[&str]| etcdctl(&guarded, "operator", arguments);
    for arguments in [
        &["user", "add", "root", "--no-password"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "host"],
        &[
            "role",
            "grant-permission",
            "host",
            "--prefix=true",
            "readwrite",
            "/ningxin/",
        ],
        &["user", "add", "agent", "--no-password"],
        &["user", "grant-role", "agent", "host"],
        &["user", "add", "operator", "--no-password"],
        &["user", "grant-role", "operator", "host"],
    ] {
        user(arguments).ok().expect("done");
    }
    guarded.authority.issue("root");
    etcdctl(&guarded, "root", &["auth", "enable"])
        .ok()
        .expect("enabled");
    let denied = guarded.operator(&["kv", "put", "a", "2"]);
    assert_eq!(denied.code, Some(8), "{denied:?}");
    let rm = ["rm-path", &path, "--host", HOST];
    guarded.operator(&rm).ok().expect("allowed");
    let config = guarded
        .operator(&["kv", "get", &config_key(HOST)])
        .ok()
        .expect("a config");
    assert!(!config.contains("access.log"), "{config}");
    guarded
        .operator(&push)
        .ok()
        .expect("applied by the agent, as the user in its certificate");

    assert!(agent.is_running() && guarded.process.is_running());
    agent.terminate().expect("ended");
}

/// etcdctl 3.7.1 with this certificate.
fn etcdctl(guarded: &Guarded, name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(e2e::peer::newest_etcdctl().expect("etcdctl"));
    let file = |end: &str| guarded.authority.file(&format!("{name}.{end}"));
    command.args([
        "--endpoints",
        &guarded.url,
        "--cacert",
        &guarded.authority.file("ca.pem"),
    ]);
    command.args(["--cert", &file("pem"), "--key", &file("key")]);
    run(command.args(arguments), "").expect("etcdctl runs")
}

/// One member of a cluster, with or without a token.
struct Visitor {
    channel: Channel,
    token: String,
}

impl Visitor {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !self.token.is_empty() {
            request
                .metadata_mut()
                .insert("token", self.token.parse().expect("a token"));
        }
        request
    }

    async fn put(&self, key: &str) -> Result<(), Status> {
        let put = pb::PutRequest {
            key: key.to_owned().into(),
            ..pb::PutRequest::default()
        };
        KvClient::new(self.channel.clone())
            .put(self.request(put))
            .await
            .map(drop)
    }

    /// A member that has not yet applied a change of users proposes with the revision before it, and
    /// the write is refused for that, here as in etcd; its clients then ask once more.
    async fn put_when_caught_up(&self, key: &str) -> Result<(), Status> {
        let asking = async {
            loop {
                match self.put(key).await {
                    Err(status) if status.message() == OLD_REVISION => {
                        tokio::task::yield_now().await;
                    }
                    answer => return answer,
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, asking).await;
        in_time.expect("the member never caught up")
    }

    async fn login(&mut self, name: &str) -> Result<(), Status> {
        let login = pb::AuthenticateRequest {
            name: name.to_owned(),
            password: "p".to_owned(),
        };
        let answer = AuthClient::new(self.channel.clone())
            .authenticate(login)
            .await?;
        self.token = answer.into_inner().token;
        Ok(())
    }

    /// root, and ann who may write `a`.
    async fn enable(&self) -> Result<(), Status> {
        let mut auth = AuthClient::new(self.channel.clone());
        let role = "editor".to_owned();
        auth.role_add(pb::AuthRoleAddRequest { name: role.clone() })
            .await?;
        let permission = Permission {
            perm_type: Type::Readwrite as i32,
            key: "a".into(),
            ..Permission::default()
        };
        let grant = pb::AuthRoleGrantPermissionRequest {
            name: role,
            perm: Some(permission),
        };
        auth.role_grant_permission(grant).await?;
        for (user, role) in [("root", "root"), ("ann", "editor")] {
            let add = pb::AuthUserAddRequest {
                name: user.to_owned(),
                password: "p".to_owned(),
                ..pb::AuthUserAddRequest::default()
            };
            auth.user_add(add).await?;
            let grant = pb::AuthUserGrantRoleRequest {
                user: user.to_owned(),
                role: role.to_owned(),
            };
            auth.user_grant_role(grant).await?;
        }
        auth.auth_enable(pb::AuthEnableRequest {}).await.map(drop)
    }

    async fn change_users(&self) -> Result<(), Status> {
        let add = pb::AuthRoleAddRequest {
            name: "another".to_owned(),
        };
        AuthClient::new(self.channel.clone())
            .role_add(self.request(add))
            .await
            .map(drop)
    }
}

/// Logs in at the first member and shows the token to all.
async fn token_is_known_everywhere(visitors: &mut [Visitor]) {
    visitors[0].enable().await.expect("authentication");
    visitors[0].login("ann").await.expect("a token");
    let token = visitors[0].token.clone();
    for visitor in visitors.iter_mut() {
        visitor.token.clone_from(&token);
        visitor.put("a").await.expect("ann's key");
        let refused = visitor.put("b").await.expect_err("not ann's key");
        assert_eq!(refused.code(), Code::PermissionDenied);
        let forged = Visitor {
            channel: visitor.channel.clone(),
            token: "abcdefghijklmnop.1".into(),
        };
        let refused = forged.put("a").await.expect_err("nobody's token");
        assert_eq!(refused.message(), "etcdserver: invalid auth token");
    }
}

fn visitors(cluster: &Cluster) -> Vec<Visitor> {
    let channel = |seat: &e2e::cluster::Seat| seat.channel().expect("a channel");
    let visitor = |channel| Visitor {
        channel,
        token: String::new(),
    };
    cluster.seats.iter().map(channel).map(visitor).collect()
}

#[test]
fn a_simple_token_of_one_member_is_known_to_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start_with(folder.path(), 3, &["--bcrypt-cost=4"]).expect("a cluster");
    let mut visitors = visitors(&cluster);
    runtime().block_on(async {
        token_is_known_everywhere(&mut visitors).await;
        // Users change: simple tokens go on, except those of whoever has changed.
        let mut root = Visitor {
            channel: visitors[1].channel.clone(),
            token: String::new(),
        };
        root.login("root").await.expect("a token");
        root.change_users().await.expect("a role");
        for visitor in &visitors {
            let put = visitor.put_when_caught_up("a").await;
            put.expect("ann's key");
        }
        let change = pb::AuthUserChangePasswordRequest {
            name: "ann".to_owned(),
            password: "q".to_owned(),
            ..pb::AuthUserChangePasswordRequest::default()
        };
        let mut auth = AuthClient::new(root.channel.clone());
        auth.user_change_password(root.request(change))
            .await
            .expect("a password");
        // A member that has not heard of it yet still knows the token.
        for visitor in &visitors {
            loop {
                match visitor.put_when_caught_up("a").await {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(status) => {
                        assert_eq!(status.message(), "etcdserver: invalid auth token");
                        break;
                    }
                }
            }
        }
    });
}

#[test]
fn a_signed_token_of_one_member_is_known_to_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let (private, public) = (folder.path().join("jwt.key"), folder.path().join("jwt.pub"));
    fs::write(&private, pair.serialize_pem()).expect("written");
    fs::write(&public, pair.public_key_pem()).expect("written");
    let tokens = format!(
        "--auth-token=jwt,sign-method=ES256,priv-key={},pub-key={},ttl=10m",
        private.display(),
        public.display()
    );
    let flags = ["--bcrypt-cost=4", &tokens];
    let cluster = Cluster::start_with(folder.path(), 3, &flags).expect("a cluster");
    let mut visitors = visitors(&cluster);
    runtime().block_on(async {
        token_is_known_everywhere(&mut visitors).await;
        assert_eq!(visitors[0].token.matches('.').count(), 2, "no JWT");
        // Users change: what was signed before does not count any more, on no member.
        let mut root = Visitor {
            channel: visitors[1].channel.clone(),
            token: String::new(),
        };
        root.login("root").await.expect("a token");
        root.change_users().await.expect("a role");
        for visitor in &visitors {
            let refused = visitor.put("a").await.expect_err("an old token");
            assert_eq!(refused.message(), OLD_REVISION);
        }
    });
}
