//! Rules about who may be at the other end, beyond "its certificate is signed by our authority".

use std::net::{IpAddr, SocketAddr};

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use super::certificate::Subject;
use super::settings::TlsSettings;

/// `--…-allowed-cn` and `--…-allowed-hostname`.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowed {
    cns: Vec<String>,
    hostnames: Vec<String>,
}

impl Allowed {
    pub(super) fn of(settings: &TlsSettings) -> Self {
        Self {
            cns: settings.allowed_cns.clone(),
            hostnames: settings.allowed_hostnames.clone(),
        }
    }

    /// With a list, there must be a certificate, and one of the list must fit it.
    pub(super) fn admits(&self, certificate: Option<&CertificateDer<'_>>) -> bool {
        if self.cns.is_empty() && self.hostnames.is_empty() {
            return true;
        }
        let Some(certificate) = certificate else {
            return false;
        };
        let by_name = || {
            Subject::of(certificate).is_some_and(|subject| self.cns.contains(&subject.common_name))
        };
        let by_host = || {
            ParsedCertificate::try_from(certificate).is_ok_and(|parsed| {
                self.hostnames.iter().any(|allowed| {
                    ServerName::try_from(allowed.as_str())
                        .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
                })
            })
        };
        by_name() || by_host()
    }
}

/// A peer's certificate that names hosts or addresses must name the one it comes from. A name is
/// looked up; one with a wildcard is not looked up backwards, and so fits nobody.
pub(super) async fn comes_from(certificate: &CertificateDer<'_>, remote: SocketAddr) -> bool {
    let Some(subject) = Subject::of(certificate) else {
        return false;
    };
    if subject.addresses.is_empty() && subject.dns_names.is_empty() {
        return true;
    }
    let remote = remote.ip().to_canonical();
    if subject
        .addresses
        .iter()
        .any(|named| named.to_canonical() == remote)
    {
        return true;
    }
    for name in subject
        .dns_names
        .iter()
        .filter(|name| !name.starts_with('*'))
    {
        if resolves_to(name, remote).await {
            return true;
        }
    }
    false
}

async fn resolves_to(name: &str, remote: IpAddr) -> bool {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(mut found) => found.any(|address| address.ip().to_canonical() == remote),
        Err(_) => false,
    }
}
