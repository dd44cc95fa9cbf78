//! Files that may change while the process runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::Subject;
use super::settings::TlsError;

/// What tells one state of a file from the next, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<(SystemTime, u64, u64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let stamp = fs::metadata(path).ok().and_then(|meta| {
            // A renamed-over file may keep time and size, but not its number.
            Some((meta.modified().ok()?, meta.len(), meta.ino()))
        });
        Self(stamp)
    }
}

/// A value made from files, made anew when one of them has changed.
pub(super) struct Reloaded<T> {
    paths: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>,
    current: Mutex<(Vec<Stamp>, Arc<T>)>,
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reloaded").field(&self.paths).finish()
    }
}

impl<T> Reloaded<T> {
    pub(super) fn new(
        paths: Vec<PathBuf>,
        make: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // Before reading: a change in between is noticed the next time.
        let stamps = paths.iter().map(|path| Stamp::of(path)).collect();
        let current = Mutex::new((stamps, Arc::new(make()?)));
        Ok(Self {
            paths,
            make: Box::new(make),
            current,
        })
    }

    /// As the files are now; as they were, while they cannot be used.
    pub(super) fn get(&self) -> Arc<T> {
        let stamps: Vec<Stamp> = self.paths.iter().map(|path| Stamp::of(path)).collect();
        let mut current = self.current.lock();
        if current.0 != stamps {
            match (self.make)() {
                Ok(made) => {
                    tracing::info!(files = ?self.paths, "TLS files were read again");
                    current.1 = Arc::new(made);
                }
                Err(error) => {
                    tracing::warn!(%error, "renewed TLS files cannot be used; the old ones stay");
                }
            }
            // Also when they cannot be used: said once, and tried again at the next change.
            current.0 = stamps;
        }
        Arc::clone(&current.1)
    }
}

fn unreadable(path: &Path, what: impl std::fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, error))?;
    if found.is_empty() {
        return Err(unreadable(path, "it holds no certificate in PEM"));
    }
    Ok(found)
}

/// The common name in the first certificate of a file; empty when it has none.
///
/// # Errors
/// When the file holds no certificate that can be read.
pub fn common_name(path: &Path) -> Result<String, TlsError> {
    let chain = certificates(path)?;
    let subject = chain.first().and_then(|first| Subject::of(first));
    let subject = subject.ok_or_else(|| TlsError::File {
        path: path.to_owned(),
        what: "it holds no certificate that can be read".to_owned(),
    })?;
    Ok(subject.common_name)
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, error))
}

pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| unreadable(path, error))?;
    }
    Ok(roots)
}

/// In DER, as etcd reads it, or in PEM.
pub(super) fn revocation_list(path: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, error))?;
    if !bytes.starts_with(b"-----BEGIN") {
        return Ok(bytes);
    }
    rustls::pki_types::CertificateRevocationListDer::from_pem_slice(&bytes)
        .map(|list| list.as_ref().to_vec())
        .map_err(|error| unreadable(path, error))
}
