//! Certificates that are their own authority. Who makes one self-signed certificate, shows it and
//! names it as the only authority, means exactly that certificate; Go's verification takes it so,
//! while webpki wants an authority and what it signed to be two.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What a certificate is shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Client,
    Server,
}

/// The certificates of an authority file.
#[derive(Debug, Clone)]
pub(super) struct Pinned(Vec<CertificateDer<'static>>);

impl Pinned {
    pub(super) fn new(authorities: Vec<CertificateDer<'static>>) -> Self {
        Self(authorities)
    }

    /// Whether this very certificate is one of them, valid now, and meant for this.
    pub(super) fn admits(
        &self,
        certificate: &CertificateDer<'_>,
        purpose: Purpose,
        now: UnixTime,
    ) -> bool {
        if !self.0.iter().any(|pinned| pinned == certificate) {
            return false;
        }
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        let is_valid =
            validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp();
        // Without a list of purposes it is meant for every one.
        let is_meant = match parsed.extended_key_usage() {
            Ok(None) => true,
            Ok(Some(usage)) => {
                let usage = usage.value;
                usage.any
                    || match purpose {
                        Purpose::Client => usage.client_auth,
                        Purpose::Server => usage.server_auth,
                    }
            }
            Err(_) => false,
        };
        is_valid && is_meant
    }

    /// The same of a server that must have this name.
    pub(super) fn admits_server(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        self.admits(certificate, Purpose::Server, now)
            && ParsedCertificate::try_from(certificate)
                .is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

/// Clients whose certificate is signed by an authority, or is one.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) signed: Arc<dyn ClientCertVerifier>,
    pub(super) pinned: Pinned,
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.signed.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.signed.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if self.pinned.admits(end_entity, Purpose::Client, now) {
            return Ok(ClientCertVerified::assertion());
        }
        self.signed
            .verify_client_cert(end_entity, intermediates, now)
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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
    };

    use super::*;

    fn made(usages: &[ExtendedKeyUsagePurpose]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = usages.to_vec();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn year(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs((year - 1970) * 31_557_600))
    }

    #[test]
    fn only_the_pinned_certificate_counts_and_only_for_what_it_is() {
        let any = made(&[]);
        let server = made(&[ExtendedKeyUsagePurpose::ServerAuth]);
        let pinned = Pinned::new(vec![any.clone(), server.clone()]);
        let now = year(2025);
        assert!(pinned.admits(&any, Purpose::Client, now));
        assert!(pinned.admits(&any, Purpose::Server, now));
        assert!(pinned.admits(&server, Purpose::Server, now));
        assert!(!pinned.admits(&server, Purpose::Client, now));
        assert!(
            !pinned.admits(&made(&[]), Purpose::Client, now),
            "another key"
        );
        assert!(!pinned.admits(&any, Purpose::Client, year(2031)));
        assert!(!pinned.admits(&any, Purpose::Client, year(2019)));
        let name = |name: &str| ServerName::try_from(name.to_owned()).unwrap();
        assert!(pinned.admits_server(&any, &name("localhost"), now));
        assert!(!pinned.admits_server(&any, &name("example.org"), now));
    }
}
