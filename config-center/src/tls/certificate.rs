//! What is read out of a certificate beyond what rustls verifies: its common name, its addresses,
//! its serial number.

use std::collections::HashSet;
use std::net::IpAddr;

use x509_parser::prelude::{
    CertificateRevocationList, FromDer as _, GeneralName, ParsedExtension, X509Certificate,
};

/// The parts of an end entity's certificate that rules of ours look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// Empty when there is none.
    pub(super) common_name: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) dns_names: Vec<String>,
}

impl Subject {
    /// `None` when it cannot be read.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let common_name = certificate
            .subject()
            .iter_common_name()
            .last()
            .and_then(|name| name.as_str().ok())
            .unwrap_or_default()
            .to_owned();
        let mut subject = Self {
            common_name,
            ..Self::default()
        };
        for extension in certificate.extensions() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension()
            else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => subject.dns_names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => subject.addresses.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        Some(subject)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Serial numbers that a list has revoked. As in etcd, whoever issued them: a list for the wrong
/// authority must not fail open.
#[derive(Debug, Default)]
pub(super) struct Revoked(HashSet<Vec<u8>>);

impl Revoked {
    pub(super) fn read(der: &[u8]) -> Result<Self, String> {
        let (_, list) = CertificateRevocationList::from_der(der)
            .map_err(|error| format!("it is no revocation list: {error}"))?;
        let serials = list
            .iter_revoked_certificates()
            .map(|revoked| plain(revoked.raw_serial()));
        Ok(Self(serials.collect()))
    }

    /// What cannot be read counts as revoked.
    pub(super) fn contains(&self, der: &[u8]) -> bool {
        X509Certificate::from_der(der)
            .is_ok_and(|(_, certificate)| self.0.contains(&plain(certificate.raw_serial())))
            || X509Certificate::from_der(der).is_err()
    }
}

/// Without the zero that keeps a number positive.
fn plain(serial: &[u8]) -> Vec<u8> {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial[zeros..].to_vec()
}
