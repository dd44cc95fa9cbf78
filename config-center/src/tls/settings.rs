//! What the flags say about TLS, for one kind of connection.

use std::path::PathBuf;

/// One side's flags: `--cert-file` and its kin, or `--peer-cert-file` and its kin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Shown when this member is the client; the server's pair when absent.
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
    pub trusted_ca_file: Option<PathBuf>,
    pub crl_file: Option<PathBuf>,
    pub client_cert_auth: bool,
    /// Empty: any name will do.
    pub allowed_cns: Vec<String>,
    pub allowed_hostnames: Vec<String>,
    /// Peers only: the names in a certificate need not fit the address it comes from.
    pub skip_san_verification: bool,
    /// A certificate of our own making, below the data folder.
    pub auto: bool,
    pub self_signed_validity_years: u32,
    /// TLS 1.2 suites by Go's names; empty: all that are supported.
    pub cipher_suites: Vec<String>,
    /// `TLS1.2`, `TLS1.3` or empty.
    pub min_version: String,
    pub max_version: String,
}

impl TlsSettings {
    /// Whether there is something to serve https with.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.auto || (self.cert_file.is_some() && self.key_file.is_some())
    }
}

/// Why TLS cannot be had; one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {what}; nothing was changed", path.display())]
    File { path: PathBuf, what: String },
    #[error("the TLS settings cannot be used: {0}; nothing was changed")]
    Settings(String),
}
