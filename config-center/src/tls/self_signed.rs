//! `--auto-tls`: a certificate of our own making. It keeps eavesdroppers out and proves nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

use super::settings::TlsError;

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// A year in which no certificate runs out a day early.
const DAYS_PER_YEAR: u64 = 365;

/// The pair in this folder, made now unless it is there already.
pub(super) fn pair(
    folder: &Path,
    hosts: &[String],
    validity_years: u32,
) -> Result<(PathBuf, PathBuf), TlsError> {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    if validity_years == 0 {
        return Err(TlsError::Settings(
            "--self-signed-cert-validity must be at least 1 year".to_owned(),
        ));
    }
    let (certificate_pem, key_pem) = make(hosts, validity_years)
        .map_err(|error| TlsError::Settings(format!("no certificate could be made: {error}")))?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| TlsError::File {
            path,
            what: error.to_string(),
        }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed(folder))?;
    // The key first: a certificate without its key would be taken for a pair half made.
    write(&key, key_pem.as_bytes(), 0o600).map_err(failed(&key))?;
    write(&certificate, certificate_pem.as_bytes(), 0o644).map_err(failed(&certificate))?;
    tracing::warn!(
        folder = %folder.display(),
        validity_years,
        "made a self-signed certificate; connections are encrypted, but prove nobody's identity"
    );
    Ok((certificate, key))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn make(hosts: &[String], validity_years: u32) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "config-center");
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let now = SystemTime::now();
    let validity_s = u64::from(validity_years) * DAYS_PER_YEAR * 86_400;
    params.not_before = now.into();
    params.not_after = (now + std::time::Duration::from_secs(validity_s)).into();
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Subject;
    use super::super::files;
    use super::*;

    #[test]
    fn a_pair_is_made_once_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("fixtures/client");
        let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let (certificate, key) = pair(&folder, &hosts, 1).unwrap();
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        files::private_key(&key).unwrap();
        let subject = Subject::of(&files::certificates(&certificate).unwrap()[0]).unwrap();
        assert_eq!(subject.addresses, [std::net::IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(subject.dns_names, ["localhost"]);
        let before = fs::read(&certificate).unwrap();
        pair(&folder, &hosts, 1).unwrap();
        assert_eq!(fs::read(&certificate).unwrap(), before);
        assert!(pair(&folder.join("other"), &hosts, 0).is_err());
    }
}
