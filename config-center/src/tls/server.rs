//! The server's side of a handshake: for clients, and for peers that connect.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::{Revoked, Subject};
use super::files::{self, Reloaded};
use super::identity::{self, Allowed};
use super::pinned::{Clients, Pinned};
use super::self_signed;
use super::settings::{TlsError, TlsSettings};
use super::suites;

/// A client that does not finish its handshake is let go.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Serves TLS by one set of flags.
#[derive(Debug)]
pub struct ServerTls {
    loaded: Reloaded<Loaded>,
    allowed: Allowed,
    /// A certificate's common name counts as a user.
    names_users: bool,
    checks_address: bool,
}

struct Loaded {
    config: Arc<ServerConfig>,
    revoked: Revoked,
}

/// An encrypted connection, and who is at its other end.
#[derive(Debug)]
pub struct Accepted<S> {
    pub stream: TlsStream<S>,
    /// Negotiated by ALPN; without it, HTTP/1.1 is spoken.
    pub speaks_http2: bool,
    /// The verified common name, when certificates name users.
    pub certificate_name: Option<Arc<str>>,
}

impl ServerTls {
    /// For clients. `auto_folder` is where `--auto-tls` keeps its pair.
    ///
    /// # Errors
    /// When a file cannot be used or the settings contradict each other.
    pub fn for_clients(
        settings: &TlsSettings,
        auto_folder: &Path,
        hosts: &[String],
    ) -> Result<Self, TlsError> {
        Self::new(settings, auto_folder, hosts, false)
    }

    /// For members that connect.
    ///
    /// # Errors
    /// When a file cannot be used or the settings contradict each other.
    pub fn for_peers(
        settings: &TlsSettings,
        auto_folder: &Path,
        hosts: &[String],
    ) -> Result<Self, TlsError> {
        Self::new(
            settings,
            auto_folder,
            hosts,
            !settings.skip_san_verification,
        )
    }

    fn new(
        settings: &TlsSettings,
        auto_folder: &Path,
        hosts: &[String],
        checks_address: bool,
    ) -> Result<Self, TlsError> {
        let mut settings = settings.clone();
        if settings.cert_file.is_none() || settings.key_file.is_none() {
            let years = settings.self_signed_validity_years;
            let (certificate, key) = self_signed::pair(auto_folder, hosts, years)?;
            settings.cert_file = Some(certificate);
            settings.key_file = Some(key);
        }
        let allowed = Allowed::of(&settings);
        let names_users = settings.client_cert_auth;
        let paths = [
            &settings.cert_file,
            &settings.key_file,
            &settings.trusted_ca_file,
            &settings.crl_file,
        ];
        let paths = paths.into_iter().flatten().cloned().collect();
        let loaded = Reloaded::new(paths, move || load(&settings))?;
        Ok(Self {
            loaded,
            allowed,
            names_users,
            checks_address,
        })
    }

    /// Shakes hands, or closes the connection with an alert and a reason for the log.
    ///
    /// # Errors
    /// When the other end does not finish, speaks no TLS, or is not allowed.
    pub async fn accept<S>(&self, stream: S, remote: Option<SocketAddr>) -> io::Result<Accepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let loaded = self.loaded.get();
        let handshake = TlsAcceptor::from(Arc::clone(&loaded.config)).accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE_TIME, handshake)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let connection = stream.get_ref().1;
        let speaks_http2 = connection.alpn_protocol() == Some(HTTP2);
        // Owned: nothing of the connection may be held while a name is looked up.
        let chain = connection.peer_certificates().unwrap_or_default().to_vec();
        if chain.iter().any(|shown| loaded.revoked.contains(shown)) {
            return Err(refused("its certificate is revoked"));
        }
        if !self.allowed.admits(chain.first()) {
            return Err(refused("client certificate authentication failed"));
        }
        if self.checks_address
            && let (Some(shown), Some(remote)) = (chain.first(), remote)
            && !identity::comes_from(shown, remote).await
        {
            return Err(refused("its certificate names other hosts"));
        }
        let certificate_name = chain
            .first()
            .filter(|_| self.names_users)
            .and_then(|shown| Subject::of(shown))
            .map(|subject| subject.common_name.into());
        Ok(Accepted {
            speaks_http2,
            certificate_name,
            stream,
        })
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

fn load(settings: &TlsSettings) -> Result<Loaded, TlsError> {
    let (Some(certificate), Some(key)) = (&settings.cert_file, &settings.key_file) else {
        return Err(TlsError::Settings("there is no certificate".to_owned()));
    };
    let wrong = |error: rustls::Error| TlsError::Settings(error.to_string());
    let provider = suites::provider(settings)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&suites::versions(settings)?)
        .map_err(wrong)?;
    // As in etcd, an authority alone asks for certificates already.
    let builder = match &settings.trusted_ca_file {
        Some(path) => {
            let roots = Arc::new(files::authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| TlsError::Settings(error.to_string()))?;
            let pinned = Pinned::new(files::certificates(path)?);
            builder.with_client_cert_verifier(Arc::new(Clients {
                signed: verifier,
                pinned,
            }))
        }
        None if settings.client_cert_auth => {
            return Err(TlsError::Settings(
                "--client-cert-auth needs --trusted-ca-file, and --peer-client-cert-auth needs \
                 --peer-trusted-ca-file"
                    .to_owned(),
            ));
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(files::certificates(certificate)?, files::private_key(key)?)
        .map_err(wrong)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    let revoked = match &settings.crl_file {
        Some(path) => {
            let list = files::revocation_list(path)?;
            Revoked::read(&list).map_err(|what| TlsError::File {
                path: path.clone(),
                what,
            })?
        }
        None => Revoked::default(),
    };
    Ok(Loaded {
        config: Arc::new(config),
        revoked,
    })
}
