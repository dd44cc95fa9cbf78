//! The flags about TLS and tokens, judged together.

use std::path::PathBuf;
use std::time::Duration;

use super::{ListenUrl, text};
use crate::auth::JwtSettings;
use crate::flags::UsageError;
use crate::flags::command_line::{Given, duration_ms};
use crate::tls::TlsSettings;

/// etcd's default for signed tokens.
const DEFAULT_JWT_TTL: Duration = Duration::from_secs(300);

/// `--auth-token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKind {
    Simple,
    Signed(JwtSettings),
}

pub(super) fn client_tls(given: &Given) -> Result<TlsSettings, UsageError> {
    let settings = TlsSettings {
        cert_file: path(given, "cert-file"),
        key_file: path(given, "key-file"),
        client_cert_file: path(given, "client-cert-file"),
        client_key_file: path(given, "client-key-file"),
        trusted_ca_file: path(given, "trusted-ca-file"),
        crl_file: path(given, "client-crl-file"),
        client_cert_auth: given.switch("client-cert-auth"),
        allowed_cns: list(given, "client-cert-allowed-cn"),
        allowed_hostnames: list(given, "client-cert-allowed-hostname"),
        skip_san_verification: true,
        auto: given.switch("auto-tls"),
        ..shared(given)
    };
    check(given, settings, "")
}

pub(super) fn peer_tls(given: &Given) -> Result<TlsSettings, UsageError> {
    let settings = TlsSettings {
        cert_file: path(given, "peer-cert-file"),
        key_file: path(given, "peer-key-file"),
        client_cert_file: path(given, "peer-client-cert-file"),
        client_key_file: path(given, "peer-client-key-file"),
        trusted_ca_file: path(given, "peer-trusted-ca-file"),
        crl_file: path(given, "peer-crl-file"),
        client_cert_auth: given.switch("peer-client-cert-auth"),
        allowed_cns: list(given, "peer-cert-allowed-cn"),
        allowed_hostnames: list(given, "peer-cert-allowed-hostname"),
        skip_san_verification: given.switch("peer-skip-client-san-verification")
            || given.switch("experimental-peer-skip-client-san-verification"),
        auto: given.switch("peer-auto-tls"),
        ..shared(given)
    };
    check(given, settings, "peer-")
}

fn shared(given: &Given) -> TlsSettings {
    TlsSettings {
        self_signed_validity_years: text(given, "self-signed-cert-validity")
            .parse()
            .unwrap_or(1),
        cipher_suites: list(given, "cipher-suites"),
        min_version: text(given, "tls-min-version").to_owned(),
        max_version: text(given, "tls-max-version").to_owned(),
        ..TlsSettings::default()
    }
}

/// What is half given is a mistake, and a mistake here must not pass for encryption.
fn check(given: &Given, settings: TlsSettings, side: &str) -> Result<TlsSettings, UsageError> {
    let half = |first: &str, second: &str, value: &Option<PathBuf>, other: &Option<PathBuf>| match (
        value, other,
    ) {
        (Some(_), None) => Some((first.to_owned(), second.to_owned())),
        (None, Some(_)) => Some((second.to_owned(), first.to_owned())),
        _ => None,
    };
    let (cert, key) = (format!("{side}cert-file"), format!("{side}key-file"));
    let lone = half(&cert, &key, &settings.cert_file, &settings.key_file);
    if let Some((is_given, missing)) = lone {
        let value = text(given, &is_given).to_owned();
        let fault = format!("it needs --{missing} as well");
        return Err(UsageError::invalid(
            &given.spelled(&is_given),
            &value,
            fault,
        ));
    }
    if !settings.allowed_cns.is_empty() && !settings.allowed_hostnames.is_empty() {
        let name = format!(
            "{}cert-allowed-cn",
            if side.is_empty() { "client-" } else { side }
        );
        let fault = "names and hostnames cannot both be given";
        return Err(UsageError::invalid(
            &given.spelled(&name),
            text(given, &name),
            fault,
        ));
    }
    let needs_authority = settings.client_cert_auth
        || !settings.allowed_cns.is_empty()
        || !settings.allowed_hostnames.is_empty();
    if needs_authority && settings.trusted_ca_file.is_none() {
        let name = format!("{side}client-cert-auth");
        let fault = format!("certificates can only be checked with --{side}trusted-ca-file");
        return Err(UsageError::invalid(&given.spelled(&name), "true", fault));
    }
    let auto = settings.auto && settings.cert_file.is_none();
    Ok(TlsSettings { auto, ..settings })
}

/// https needs a certificate, and a certificate behind http protects nobody.
pub(super) fn check_schemes(
    given: &Given,
    name: &str,
    urls: &[ListenUrl],
    tls: &TlsSettings,
    side: &str,
    warnings: &mut Vec<String>,
) -> Result<(), UsageError> {
    for url in urls {
        if url.is_secure && !tls.is_configured() {
            let fault = format!(
                "https needs --{side}cert-file and --{side}key-file, or --{}",
                if side.is_empty() {
                    "auto-tls"
                } else {
                    "peer-auto-tls"
                }
            );
            return Err(UsageError::invalid(&given.spelled(name), &url.text, fault));
        }
        if !url.is_secure && tls.is_configured() {
            warnings.push(format!(
                "{} {}: a certificate is configured, but http is served there without encryption",
                given.spelled(name),
                url.text
            ));
        }
    }
    Ok(())
}

/// `simple`, or `jwt,sign-method=…,pub-key=…,priv-key=…,ttl=…`.
pub(super) fn token_kind(
    given: &Given,
    warnings: &mut Vec<String>,
) -> Result<TokenKind, UsageError> {
    let value = text(given, "auth-token");
    let spelled = given.spelled("auth-token");
    let wrong = |fault: String| UsageError::invalid(&spelled, value, fault);
    let mut parts = value.split(',');
    match parts.next() {
        Some("simple") => Ok(TokenKind::Simple),
        Some("jwt") => {
            let mut jwt = JwtSettings {
                sign_method: String::new(),
                public_key: None,
                private_key: None,
                ttl: DEFAULT_JWT_TTL,
            };
            for part in parts {
                match part.split_once('=') {
                    Some(("sign-method", method)) => jwt.sign_method = method.to_owned(),
                    Some(("pub-key", file)) => jwt.public_key = Some(file.into()),
                    Some(("priv-key", file)) => jwt.private_key = Some(file.into()),
                    Some(("ttl", ttl)) => {
                        let ms = duration_ms(ttl)
                            .filter(|ms| *ms > 0)
                            .ok_or_else(|| wrong(format!("{ttl:?} is not a duration")))?;
                        jwt.ttl = Duration::from_millis(ms);
                    }
                    Some((other, _)) => warnings.push(format!("{spelled}: unknown option {other}")),
                    None => return Err(wrong(format!("{part:?} is not name=value"))),
                }
            }
            if jwt.sign_method.is_empty() {
                return Err(wrong("sign-method is missing".to_owned()));
            }
            Ok(TokenKind::Signed(jwt))
        }
        _ => Err(wrong("it is simple or jwt,…".to_owned())),
    }
}

fn path(given: &Given, name: &str) -> Option<PathBuf> {
    given
        .text(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn list(given: &Given, name: &str) -> Vec<String> {
    text(given, name)
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}
