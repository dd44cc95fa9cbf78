//! How to reach a store: the same choices, under the same names, as etcdctl's connection flags.
//!
//! Knows defaults and the spelling of endpoints. Opens nothing.

use std::{path::PathBuf, time::Duration};

use crate::ClientError;

/// etcdctl's default for `--dial-timeout`.
pub const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// etcdctl's default for `--command-timeout`.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// etcd answers pings that come more often than every 5 s with GOAWAY, so this stays well above.
pub const DEFAULT_KEEPALIVE_TIME: Duration = Duration::from_secs(10);
/// How long a ping may stay unanswered before the connection counts as dead.
pub const DEFAULT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(6);

/// Everything needed to open connections; `..Default::default()` fills what a caller leaves out.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// `http://host:port`, `https://host:port`, or `host:port`.
    pub endpoints: Vec<String>,
    pub username: Option<String>,
    pub password: Option<String>,
    /// PEM file with the certificates that servers are verified against.
    pub ca: Option<PathBuf>,
    /// PEM file with the client's own certificate; needs `key`.
    pub cert: Option<PathBuf>,
    /// PEM file with the private key of `cert`.
    pub key: Option<PathBuf>,
    /// Accept whatever certificate a server shows. For tests only.
    pub insecure_skip_tls_verify: bool,
    /// Speak plaintext to endpoints written without a scheme even when TLS files are given.
    pub insecure_transport: bool,
    /// Name expected in the server's certificate, when it differs from the endpoint's host.
    pub server_name: Option<String>,
    /// Longest wait for one connection, TLS handshake included.
    pub dial_timeout: Duration,
    /// Longest wait for one call, over all endpoints that it tries.
    pub request_timeout: Duration,
    pub keepalive_time: Duration,
    pub keepalive_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            username: None,
            password: None,
            ca: None,
            cert: None,
            key: None,
            insecure_skip_tls_verify: false,
            insecure_transport: false,
            server_name: None,
            dial_timeout: DEFAULT_DIAL_TIMEOUT,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            keepalive_time: DEFAULT_KEEPALIVE_TIME,
            keepalive_timeout: DEFAULT_KEEPALIVE_TIMEOUT,
        }
    }
}

impl ConnectOptions {
    /// Options for these endpoints and defaults for everything else.
    pub fn new<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// True when the options name TLS material, which makes bare endpoints `https`.
    fn asks_for_tls(&self) -> bool {
        !self.insecure_transport
            && (self.ca.is_some() || self.cert.is_some() || self.insecure_skip_tls_verify)
    }

    /// Writes an endpoint as a URL with scheme, host and port, or says what is wrong with it.
    pub(crate) fn endpoint_url(&self, endpoint: &str) -> Result<String, ClientError> {
        let invalid = |reason: &str| ClientError::InvalidEndpoint {
            endpoint: endpoint.to_owned(),
            reason: reason.to_owned(),
        };
        let trimmed = endpoint.trim().trim_end_matches('/');
        let (scheme, authority) = match trimmed.split_once("://") {
            Some((scheme @ ("http" | "https"), authority)) => (scheme, authority),
            Some(_) => return Err(invalid("only http:// and https:// are supported")),
            None if self.asks_for_tls() => ("https", trimmed),
            None => ("http", trimmed),
        };
        if authority.is_empty() {
            return Err(invalid("it has no host"));
        }
        if authority.contains(['/', '?', '#', '@', ' ']) {
            return Err(invalid(
                "write it as host:port, without a path or credentials",
            ));
        }
        let after_host = authority
            .rsplit_once(']')
            .map_or(authority, |(_, rest)| rest);
        let port = match after_host.rsplit_once(':') {
            Some((_, port)) => port,
            None => return Err(invalid("the port is missing: etcd's usual one is 2379")),
        };
        match port.parse::<u16>() {
            Ok(1..) => Ok(format!("{scheme}://{authority}")),
            _ => Err(invalid("the port is not a number between 1 and 65535")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_become_urls() {
        let plain = ConnectOptions::default();
        let tls = ConnectOptions {
            ca: Some("ca.pem".into()),
            ..Default::default()
        };
        let table = [
            (&plain, "127.0.0.1:2379", Some("http://127.0.0.1:2379")),
            (&plain, " http://h:1/ ", Some("http://h:1")),
            (&plain, "https://h:1", Some("https://h:1")),
            (&plain, "[::1]:2379", Some("http://[::1]:2379")),
            (&tls, "h:2379", Some("https://h:2379")),
            (&tls, "http://h:2379", Some("http://h:2379")),
            (&plain, "h", None),
            (&plain, "[::1]", None),
            (&plain, "h:0", None),
            (&plain, "h:99999", None),
            (&plain, "", None),
            (&plain, "http://", None),
            (&plain, "unix:///tmp/x", None),
            (&plain, "h:2379/v3", None),
            (&plain, "u:p@h:2379", None),
        ];
        for (options, given, expected) in table {
            let got = options.endpoint_url(given);
            assert_eq!(got.as_deref().ok(), expected, "{given}: {got:?}");
        }
    }
}
