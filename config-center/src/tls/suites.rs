//! Versions and cipher suites: Go's names for what rustls and ring can do.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, SupportedProtocolVersion, version};

use super::settings::{TlsError, TlsSettings};

/// The suites of TLS 1.2 that can be chosen; those of 1.3 cannot be, as in Go.
const SUITES: &[(&str, CipherSuite)] = &[
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// The cryptography, cut down to the chosen suites.
pub(super) fn provider(settings: &TlsSettings) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = ring::default_provider();
    if settings.cipher_suites.is_empty() {
        return Ok(Arc::new(provider));
    }
    if settings.min_version == "TLS1.3" {
        return Err(TlsError::Settings(
            "--cipher-suites chooses among the suites of TLS 1.2, which --tls-min-version excludes"
                .to_owned(),
        ));
    }
    let mut chosen = Vec::new();
    for name in &settings.cipher_suites {
        match SUITES.iter().find(|(known, _)| known == name) {
            Some((_, suite)) => chosen.push(*suite),
            None => {
                let known: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
                return Err(TlsError::Settings(format!(
                    "unexpected TLS cipher suite {name:?}; supported are {}",
                    known.join(", ")
                )));
            }
        }
    }
    provider
        .cipher_suites
        .retain(|suite| suite.tls13().is_some() || chosen.contains(&suite.suite()));
    Ok(Arc::new(provider))
}

pub(super) fn versions(
    settings: &TlsSettings,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let number = |text: &str, default: u8| match text {
        "" => Ok(default),
        "TLS1.2" => Ok(2),
        "TLS1.3" => Ok(3),
        other => Err(TlsError::Settings(format!(
            "unexpected TLS version {other:?}; it is TLS1.2 or TLS1.3"
        ))),
    };
    let (least, most) = (
        number(&settings.min_version, 2)?,
        number(&settings.max_version, 3)?,
    );
    let mut versions = Vec::new();
    if least <= 2 && most >= 2 {
        versions.push(&version::TLS12);
    }
    if least <= 3 && most >= 3 {
        versions.push(&version::TLS13);
    }
    if versions.is_empty() {
        return Err(TlsError::Settings(
            "--tls-min-version is above --tls-max-version".to_owned(),
        ));
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(suites: &[&str], min: &str, max: &str) -> TlsSettings {
        TlsSettings {
            cipher_suites: suites.iter().map(|name| (*name).to_owned()).collect(),
            min_version: min.to_owned(),
            max_version: max.to_owned(),
            ..TlsSettings::default()
        }
    }

    #[test]
    fn suites_are_chosen_by_gos_names_and_those_of_13_stay() {
        let chosen = provider(&settings(
            &["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
            "",
            "",
        ))
        .unwrap();
        let (new, old): (Vec<_>, Vec<_>) = chosen
            .cipher_suites
            .iter()
            .copied()
            .partition(|suite| suite.tls13().is_some());
        assert_eq!((new.len(), old.len()), (3, 1));
        let every = provider(&settings(&[], "", "")).unwrap();
        assert_eq!(every.cipher_suites.len(), 9);
        for (suites, min) in [
            (&["TLS_RSA_WITH_RC4_128_SHA"][..], ""),
            (&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], "TLS1.3"),
        ] {
            assert!(provider(&settings(suites, min, "")).is_err(), "{suites:?}");
        }
    }

    #[test]
    fn versions_are_a_span() {
        for (min, max, count) in [
            ("", "", 2),
            ("TLS1.3", "", 1),
            ("", "TLS1.2", 1),
            ("TLS1.2", "TLS1.3", 2),
        ] {
            assert_eq!(versions(&settings(&[], min, max)).unwrap().len(), count);
        }
        assert!(versions(&settings(&[], "TLS1.3", "TLS1.2")).is_err());
        assert!(versions(&settings(&[], "TLS1.1", "")).is_err());
    }
}
