//! TLS as clients meet it: who is let in, as whom, and what a renewed file changes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use config_center::server::Server;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};
use schemas::authpb::{UserAddOptions, permission::Type};
use schemas::etcdserverpb::kv_client::KvClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::fixture::{assert_status, put, range, serve, settings, within};

/// An authority, with what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, common_name: &str, hosts: &[&str], serial: u64) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &*self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn revoke(&self, serial: u64) -> String {
        let now = std::time::SystemTime::now();
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + std::time::Duration::from_secs(3600)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&*self.0).unwrap().pem().unwrap()
    }
}

struct Guarded {
    server: Server,
    address: SocketAddr,
    authority: Authority,
    folder: TempDir,
}

impl Guarded {
    /// Serves https with this authority's certificate, and asks for client certificates.
    async fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let own = authority.sign("server", &["127.0.0.1", "localhost"], 1);
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name).display().to_string()
        };
        let mut line = vec![
            "--listen-client-urls=https://127.0.0.1:0".to_owned(),
            "--advertise-client-urls=https://127.0.0.1:2379".to_owned(),
            "--bcrypt-cost=4".to_owned(),
            "--client-cert-auth".to_owned(),
            format!("--cert-file={}", file("cert", &own.certificate)),
            format!("--key-file={}", file("key", &own.key)),
            format!("--trusted-ca-file={}", file("ca", &authority.pem())),
            format!("--client-crl-file={}", file("crl", &authority.revoke(4711))),
        ];
        line.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let server = serve(&settings(&folder, &line)).await;
        let address = server.client_addresses()[0];
        Self {
            server,
            address,
            authority,
            folder,
        }
    }

    fn write(&self, name: &str, text: &str) {
        // Renamed over, as tools that renew certificates do.
        let beside = self.folder.path().join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, self.folder.path().join(name)).unwrap();
    }

    async fn connect(
        &self,
        trusted: &str,
        own: Option<&Pair>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(trusted))
            .domain_name("localhost");
        if let Some(pair) = own {
            tls = tls.identity(Identity::from_pem(&pair.certificate, &pair.key));
        }
        Channel::from_shared(format!("https://{}", self.address))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
    }

    /// Whether a call gets through; with TLS 1.3 a client learns only then that it was refused.
    async fn lets_in(&self, trusted: &str, own: Option<&Pair>) -> bool {
        match self.connect(trusted, own).await {
            Ok(channel) => KvClient::new(channel).range(range("a")).await.is_ok(),
            Err(_) => false,
        }
    }
}

#[tokio::test]
async fn only_holders_of_a_good_certificate_are_let_in() {
    let guarded = Guarded::start(&[]).await;
    let trusted = guarded.authority.pem();
    let good = guarded.authority.sign("ann", &[], 2);
    assert!(guarded.lets_in(&trusted, Some(&good)).await);
    assert!(!guarded.lets_in(&trusted, None).await);
    let stranger = Authority::new();
    let foreign = stranger.sign("ann", &[], 3);
    assert!(!guarded.lets_in(&trusted, Some(&foreign)).await);
    assert!(
        !guarded.lets_in(&stranger.pem(), Some(&good)).await,
        "the client checks too"
    );
    let revoked = guarded.authority.sign("ann", &[], 4711);
    assert!(!guarded.lets_in(&trusted, Some(&revoked)).await);

    // A client without TLS is sent away and not kept waiting.
    let mut plain = TcpStream::connect(guarded.address).await.unwrap();
    plain
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end.
    drop(within("the end", plain.read_to_end(&mut answer)).await);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    within("shutdown", guarded.server.shutdown()).await;
}

#[tokio::test]
async fn renewed_files_count_for_the_next_connection() {
    let guarded = Guarded::start(&[]).await;
    let first = guarded.authority.pem();
    let good = guarded.authority.sign("ann", &[], 2);
    assert!(guarded.lets_in(&first, Some(&good)).await);
    // Revoked while the server runs.
    guarded.write("crl", &guarded.authority.revoke(2));
    assert!(!guarded.lets_in(&first, Some(&good)).await);
    guarded.write("crl", &guarded.authority.revoke(4711));
    assert!(guarded.lets_in(&first, Some(&good)).await);
    // Another authority for both sides.
    let second = Authority::new();
    let own = second.sign("server", &["localhost"], 1);
    guarded.write("cert", &own.certificate);
    guarded.write("key", &own.key);
    guarded.write("ca", &second.pem());
    let good_now = second.sign("ann", &[], 2);
    assert!(guarded.lets_in(&second.pem(), Some(&good_now)).await);
    assert!(!guarded.lets_in(&second.pem(), Some(&good)).await);
    // What cannot be used changes nothing.
    guarded.write("cert", "no certificate");
    assert!(guarded.lets_in(&second.pem(), Some(&good_now)).await);
    within("shutdown", guarded.server.shutdown()).await;
}

#[tokio::test]
async fn only_listed_names_are_let_in() {
    let guarded = Guarded::start(&["--client-cert-allowed-hostname=good.example"]).await;
    let trusted = guarded.authority.pem();
    let listed = guarded.authority.sign("x", &["good.example"], 2);
    let unlisted = guarded.authority.sign("good.example", &["bad.example"], 3);
    assert!(guarded.lets_in(&trusted, Some(&listed)).await);
    assert!(!guarded.lets_in(&trusted, Some(&unlisted)).await);
    within("shutdown", guarded.server.shutdown()).await;
}

#[tokio::test]
async fn the_common_name_is_a_user_and_the_gateway_says_that_it_is_not() {
    use super::auth::{add_role_by, add_user_by, enable_by};
    let guarded = Guarded::start(&[]).await;
    let trusted = guarded.authority.pem();
    let root = guarded.authority.sign("root", &[], 2);
    let ann = guarded.authority.sign("ann", &[], 3);
    let as_root = guarded.connect(&trusted, Some(&root)).await.unwrap();
    let no_password = Some(UserAddOptions { no_password: true });
    add_user_by(as_root.clone(), "root", no_password, Some("root")).await;
    add_role_by(as_root.clone(), "editor", Type::Readwrite, "a", "c").await;
    add_user_by(as_root.clone(), "ann", no_password, Some("editor")).await;
    enable_by(as_root.clone()).await;

    let as_ann = guarded.connect(&trusted, Some(&ann)).await.unwrap();
    let mut kv = KvClient::new(as_ann);
    assert!(kv.put(put("a", "1")).await.is_ok());
    let outcome = kv.put(put("z", "1")).await;
    assert_status(
        outcome,
        Code::PermissionDenied,
        "etcdserver: permission denied",
    );
    assert!(KvClient::new(as_root).put(put("z", "1")).await.is_ok());

    let body = r#"{"key":"YQ=="}"#;
    let request = format!(
        "POST /v3/kv/range HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = speak_http1(&guarded, &trusted, &root, &request).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let text = "CommonName of client sending a request against gateway will be ignored and not \
                used as expected\n";
    assert!(answer.ends_with(text), "{answer}");
    let health = "GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = speak_http1(&guarded, &trusted, &root, health).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    within("shutdown", guarded.server.shutdown()).await;
}

/// One HTTP/1.1 exchange over TLS.
async fn speak_http1(guarded: &Guarded, trusted: &str, own: &Pair, request: &str) -> String {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(guarded.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_certificate_of_its_own_making_serves_whoever_trusts_it() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--listen-client-urls=https://127.0.0.1:0".to_owned(),
        "--advertise-client-urls=https://127.0.0.1:2379".to_owned(),
        "--auto-tls".to_owned(),
    ];
    let server = serve(&settings(&folder, &flags)).await;
    let made: &Path = &folder.path().join("data/fixtures/client/cert.pem");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(std::fs::read(made).unwrap()))
        .domain_name("127.0.0.1");
    let channel = Channel::from_shared(format!("https://{}", server.client_addresses()[0]))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let answer = KvClient::new(channel).put(put("a", "1")).await.unwrap();
    assert_eq!(answer.into_inner().header.unwrap().revision, 2);
    within("shutdown", server.shutdown()).await;
}
