//! Members among each other: both ends of a peer connection.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::certificate::Revoked;
use super::complaints::Complaints;
use super::files::{self, Reloaded};
use super::identity::Allowed;
use super::pinned::Pinned;
use super::server::ServerTls;
use super::settings::{TlsError, TlsSettings};
use super::suites;
use crate::raft::{BoxLink, PeerAcceptor, PeerDialer, PeerPort, Plain};
use crate::socket::{Listener, Socket};

/// A peer that does not finish its handshake is given up.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// The port of members. `is_secure` says whether this member's own peer urls are https; what it
/// dials goes by the scheme of each url.
///
/// # Errors
/// When a file cannot be used or the settings contradict each other.
pub fn peer_port(
    listeners: Vec<Listener>,
    is_secure: bool,
    settings: &TlsSettings,
    auto_folder: &Path,
    hosts: &[String],
) -> Result<PeerPort, TlsError> {
    if !settings.is_configured() {
        return Ok(PeerPort::plain(listeners));
    }
    let server = ServerTls::for_peers(settings, auto_folder, hosts)?;
    let acceptor: Arc<dyn PeerAcceptor> = if is_secure {
        Arc::new(Acceptor {
            tls: server,
            complaints: Complaints::default(),
        })
    } else {
        Arc::new(Plain)
    };
    Ok(PeerPort {
        listeners,
        dialer: Arc::new(Dialer::new(settings)?),
        acceptor,
    })
}

/// Connects to urls of either scheme; https is trusted as the settings say.
///
/// # Errors
/// When a file cannot be used or the settings contradict each other.
pub fn dialer(settings: &TlsSettings) -> Result<Arc<dyn PeerDialer>, TlsError> {
    Ok(Arc::new(Dialer::new(settings)?))
}

#[derive(Debug)]
struct Acceptor {
    tls: ServerTls,
    complaints: Complaints,
}

impl PeerAcceptor for Acceptor {
    fn accept(&self, stream: Socket) -> BoxFuture<'_, io::Result<BoxLink>> {
        Box::pin(async move {
            stream.set_nodelay()?;
            let remote = stream.remote();
            let accepted = self.tls.accept(stream, remote).await.inspect_err(|error| {
                let who = remote.map_or_else(String::new, |remote| remote.ip().to_string());
                self.complaints
                    .say("rejected connection from a peer", &who, error);
            })?;
            Ok(Box::new(accepted.stream) as BoxLink)
        })
    }
}

#[derive(Debug)]
struct Dialer {
    loaded: Reloaded<Loaded>,
    complaints: Complaints,
}

struct Loaded {
    config: Arc<ClientConfig>,
    revoked: Revoked,
}

impl Dialer {
    fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let settings = settings.clone();
        let paths = [
            &settings.cert_file,
            &settings.key_file,
            &settings.client_cert_file,
            &settings.client_key_file,
            &settings.trusted_ca_file,
            &settings.crl_file,
        ];
        let paths = paths.into_iter().flatten().cloned().collect();
        Ok(Self {
            loaded: Reloaded::new(paths, move || load(&settings))?,
            complaints: Complaints::default(),
        })
    }

    async fn connect(&self, url: &Uri) -> io::Result<BoxLink> {
        let stream = Plain::connect(url).await?;
        if !matches!(url.scheme_str(), Some("https" | "unixs")) {
            return Ok(Box::new(stream));
        }
        self.encrypt(stream, url).await.inspect_err(|error| {
            let peer = url.to_string();
            self.complaints
                .say("cannot agree with the peer on TLS", &peer, error);
        })
    }

    async fn encrypt(&self, stream: Socket, url: &Uri) -> io::Result<BoxLink> {
        let host = url.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let loaded = self.loaded.get();
        let handshake = TlsConnector::from(Arc::clone(&loaded.config)).connect(name, stream);
        let stream = tokio::time::timeout(HANDSHAKE_TIME, handshake)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        if chain.iter().any(|shown| loaded.revoked.contains(shown)) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the peer's certificate is revoked",
            ));
        }
        Ok(Box::new(stream))
    }
}

impl PeerDialer for Dialer {
    fn dial<'a>(&'a self, url: &'a Uri) -> BoxFuture<'a, io::Result<BoxLink>> {
        Box::pin(self.connect(url))
    }
}

fn load(settings: &TlsSettings) -> Result<Loaded, TlsError> {
    let wrong = |error: rustls::Error| TlsError::Settings(error.to_string());
    let provider = suites::provider(settings)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&suites::versions(settings)?)
        .map_err(wrong)?;
    let builder = match &settings.trusted_ca_file {
        Some(path) => {
            let roots = Arc::new(files::authorities(path)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| TlsError::Settings(error.to_string()))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Named {
                    signed: verifier,
                    pinned: Pinned::new(files::certificates(path)?),
                    allowed: Allowed::of(settings),
                }))
        }
        None if settings.auto => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        None => {
            return Err(TlsError::Settings(
                "https between members needs --peer-trusted-ca-file, or --peer-auto-tls".to_owned(),
            ));
        }
    };
    let own = settings
        .client_cert_file
        .as_ref()
        .or(settings.cert_file.as_ref());
    let key = settings
        .client_key_file
        .as_ref()
        .or(settings.key_file.as_ref());
    let mut config = match (own, key) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(files::certificates(certificate)?, files::private_key(key)?)
            .map_err(wrong)?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
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

/// Checks the authority, the host and then the list of allowed names, all within the handshake: so
/// the other side is told by an alert that its certificate was refused.
#[derive(Debug)]
struct Named {
    signed: Arc<WebPkiServerVerifier>,
    pinned: Pinned,
    allowed: Allowed,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = if self.pinned.admits_server(end_entity, server_name, now) {
            ServerCertVerified::assertion()
        } else {
            self.signed.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )?
        };
        if self.allowed.admits(Some(end_entity)) {
            Ok(verified)
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// `--peer-auto-tls`: certificates that every member makes for itself prove nothing, so only the
/// handshake is checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
