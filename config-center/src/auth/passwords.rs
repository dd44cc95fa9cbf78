//! Hashing and checking of passwords with bcrypt: deliberately slow, so it runs beside the runtime
//! and only a few at a time, and whoever asks for too much at once is turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Semaphore;

/// bcrypt looks at no more than this; a longer password is refused instead of being cut, as in Go.
const MAX_PASSWORD_BYTES: usize = 72;
/// Requests that wait for a hash; each is tens of milliseconds of a processor.
const MAX_WAITING: usize = 512;
/// A hash of nothing in particular, with the default cost: an unknown user takes as long as a known
/// one, so that names cannot be found out by timing.
const NOBODYS_HASH: &str = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

/// Why there is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PasswordError {
    /// The text of etcd's library.
    #[error("bcrypt: password length exceeds 72 bytes")]
    TooLong,
    #[error("bcrypt: the password cannot be hashed")]
    NotHashable,
    #[error("etcdserver: too many requests")]
    TooManyRequests,
}

/// Shared by all calls of a member.
#[derive(Debug)]
pub(crate) struct Passwords {
    cost: u32,
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Passwords {
    /// `cost` is `--bcrypt-cost`, checked by the flags.
    pub(crate) fn new(cost: u32) -> Self {
        // Half of the processors stay for everybody else.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cost,
            running: Arc::new(Semaphore::new((processors / 2).max(1))),
            waiting: AtomicUsize::new(0),
        }
    }

    pub(crate) async fn hash(&self, password: String) -> Result<Bytes, PasswordError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(PasswordError::TooLong);
        }
        let cost = self.cost;
        let hashed = self
            .beside(move || bcrypt::hash_with_result(password, cost))
            .await?
            .map_err(|_| PasswordError::NotHashable)?;
        // The version that etcd writes, so that its tools find nothing unusual.
        Ok(hashed.format_for_version(bcrypt::Version::TwoA).into())
    }

    /// Whether the password belongs to this hash; without a hash the answer is no, and as slow.
    pub(crate) async fn check(
        &self,
        password: String,
        hash: Option<Bytes>,
    ) -> Result<bool, PasswordError> {
        self.beside(move || {
            let known = hash.as_deref().map(String::from_utf8_lossy);
            let against = known.as_deref().unwrap_or(NOBODYS_HASH);
            // A stored value that is no hash belongs to no password.
            let is_equal = bcrypt::verify(&password, against).unwrap_or(false);
            is_equal && known.is_some() && password.len() <= MAX_PASSWORD_BYTES
        })
        .await
    }

    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let waiting = Waiting::enter(&self.waiting).ok_or(PasswordError::TooManyRequests)?;
        let permit = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_| PasswordError::NotHashable)?;
        drop(waiting);
        // The permit goes with the work: a caller that gave up frees no processor.
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
        .map_err(|_| PasswordError::NotHashable)
    }
}

/// A place in the queue, given back when it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let place = Self(count);
        (before < MAX_WAITING).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: u32 = 4;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let passwords = Passwords::new(CHEAP);
        for password in ["123", "", "pässwörd", &"x".repeat(72)] {
            let hash = passwords.hash(password.to_owned()).await.unwrap();
            assert!(hash.starts_with(b"$2a$04$"), "{hash:?}");
            let fits = |text: &str| passwords.check(text.to_owned(), Some(hash.clone()));
            assert_eq!(fits(password).await, Ok(true));
            assert_eq!(fits("other").await, Ok(false));
        }
    }

    /// Made by golang.org/x/crypto/bcrypt, as an etcd client may send it.
    #[tokio::test]
    async fn a_hash_from_go_is_understood() {
        let passwords = Passwords::new(CHEAP);
        let known = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        let check = |text: &str| {
            passwords.check(text.to_owned(), Some(Bytes::from_static(known.as_bytes())))
        };
        assert_eq!(check("allmine").await, Ok(true));
        assert_eq!(check("allmin").await, Ok(false));
    }

    #[tokio::test]
    async fn nobody_has_a_password() {
        let passwords = Passwords::new(CHEAP);
        let check = |hash: Option<&'static str>| {
            passwords.check(
                String::new(),
                hash.map(|hash| Bytes::from_static(hash.as_bytes())),
            )
        };
        assert_eq!(check(None).await, Ok(false));
        assert_eq!(check(Some("")).await, Ok(false));
        assert_eq!(check(Some("plain")).await, Ok(false));
    }

    #[tokio::test]
    async fn a_password_that_bcrypt_would_cut_is_refused() {
        let passwords = Passwords::new(CHEAP);
        let refused = passwords.hash("x".repeat(73)).await;
        assert_eq!(refused, Err(PasswordError::TooLong));
    }

    #[tokio::test]
    async fn a_full_queue_turns_callers_away() {
        let passwords = Passwords::new(CHEAP);
        passwords.waiting.store(MAX_WAITING, Ordering::Relaxed);
        let refused = passwords.hash("x".to_owned()).await;
        assert_eq!(refused, Err(PasswordError::TooManyRequests));
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), MAX_WAITING);
    }
}
