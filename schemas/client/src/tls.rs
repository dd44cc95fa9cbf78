//! TLS material from PEM files, and the verifier behind `insecure_skip_tls_verify`.
//!
//! Files are read once, when the client is made. Knows nothing of endpoints.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::{ClientError, ConnectOptions};

/// Where Linux distributions and macOS keep the certificates that the system trusts.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The TLS settings that every endpoint of a client shares.
#[derive(Debug, Clone)]
pub(crate) struct TlsSettings {
    config: ClientTlsConfig,
    skip_verify: bool,
}

impl TlsSettings {
    /// Reads the files that the options name; only called when an endpoint is `https`.
    pub(crate) fn load(options: &ConnectOptions) -> Result<Self, ClientError> {
        let mut config = ClientTlsConfig::new().timeout(options.dial_timeout);
        if let Some(name) = &options.server_name {
            config = config.domain_name(name);
        }
        match (&options.cert, &options.key) {
            (Some(cert), Some(key)) => {
                config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
            }
            (None, None) => {}
            (Some(_), None) => return Err(half_identity("certificate", "its key")),
            (None, Some(_)) => return Err(half_identity("key", "its certificate")),
        }
        if !options.insecure_skip_tls_verify {
            config = config.ca_certificate(Certificate::from_pem(trusted(options)?));
        }
        Ok(Self {
            config,
            skip_verify: options.insecure_skip_tls_verify,
        })
    }

    pub(crate) fn apply(&self, endpoint: Endpoint) -> Result<Endpoint, tonic::transport::Error> {
        if self.skip_verify {
            endpoint.tls_config_with_verifier(self.config.clone(), Arc::new(AcceptAny))
        } else {
            endpoint.tls_config(self.config.clone())
        }
    }
}

fn half_identity(given: &str, missing: &str) -> ClientError {
    ClientError::Tls {
        reason: format!("a client {given} is given without {missing}: give both files or neither"),
    }
}

fn trusted(options: &ConnectOptions) -> Result<Vec<u8>, ClientError> {
    if let Some(ca) = &options.ca {
        return read(ca);
    }
    SYSTEM_BUNDLES
        .iter()
        .find_map(|bundle| fs::read(bundle).ok())
        .ok_or_else(|| ClientError::Tls {
            reason: "an endpoint is https, no CA file is given and the system has no bundle of \
                     trusted certificates: name the CA file"
                .into(),
        })
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    fs::read(path).map_err(|error| ClientError::TlsFile {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Accepts any certificate: the operator asked for it by name.
#[derive(Debug)]
struct AcceptAny;

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme as S;
        vec![
            S::ECDSA_NISTP256_SHA256,
            S::ECDSA_NISTP384_SHA384,
            S::ED25519,
            S::RSA_PSS_SHA256,
            S::RSA_PSS_SHA384,
            S::RSA_PSS_SHA512,
            S::RSA_PKCS1_SHA256,
            S::RSA_PKCS1_SHA384,
            S::RSA_PKCS1_SHA512,
        ]
    }
}
