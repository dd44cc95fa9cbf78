//! What an operator is told about handshakes that fail. Members try again many times a second, so
//! the same fault of the same peer is said once in a while.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::{AlertDescription, CertificateError, Error};

/// Before the same is said again.
const SILENCE: Duration = Duration::from_secs(10);
/// Peers that are remembered; beyond, nothing is said until some are forgotten.
const MAX_REMEMBERED: usize = 256;

/// Who was complained of, and when.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<HashMap<(String, String), Instant>>);

impl Complaints {
    pub(super) fn say(&self, what: &'static str, peer: &str, error: &io::Error) {
        // Members look whether a peer's port is open, and port scanners do; neither is a fault.
        if matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ) {
            return;
        }
        let reason = reason(error);
        if self.is_new(peer, &reason, Instant::now()) {
            tracing::warn!(peer, error = reason, "{what}");
        }
    }

    fn is_new(&self, peer: &str, reason: &str, now: Instant) -> bool {
        let mut said = self.0.lock();
        said.retain(|_, at| now.duration_since(*at) < SILENCE);
        if said.len() >= MAX_REMEMBERED {
            return false;
        }
        let key = (peer.to_owned(), reason.to_owned());
        match said.get(&key) {
            Some(_) => false,
            None => said.insert(key, now).is_none(),
        }
    }
}

/// In the words that operators of etcd look for.
fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Error::AlertReceived(AlertDescription::BadCertificate)) => {
            "remote error: tls: bad certificate".to_owned()
        }
        Some(Error::InvalidCertificate(CertificateError::NotValidForName)) => {
            "client certificate authentication failed".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while() {
        let complaints = Complaints::default();
        let now = Instant::now();
        assert!(complaints.is_new("a", "x", now));
        assert!(!complaints.is_new("a", "x", now + SILENCE / 2));
        assert!(complaints.is_new("a", "y", now));
        assert!(complaints.is_new("b", "x", now));
        assert!(complaints.is_new("a", "x", now + SILENCE));
    }

    #[test]
    fn a_flood_is_bounded() {
        let complaints = Complaints::default();
        let now = Instant::now();
        for peer in 0..2 * MAX_REMEMBERED {
            complaints.is_new(&peer.to_string(), "x", now);
        }
        assert_eq!(complaints.0.lock().len(), MAX_REMEMBERED);
        assert!(complaints.is_new("later", "x", now + SILENCE));
    }

    #[test]
    fn refusals_have_etcds_words() {
        let as_io = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let refused = Error::AlertReceived(AlertDescription::BadCertificate);
        assert_eq!(
            reason(&as_io(refused)),
            "remote error: tls: bad certificate"
        );
        let stranger = Error::InvalidCertificate(CertificateError::NotValidForName);
        assert_eq!(
            reason(&as_io(stranger)),
            "client certificate authentication failed"
        );
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(reason(&reset), reset.to_string());
    }
}
