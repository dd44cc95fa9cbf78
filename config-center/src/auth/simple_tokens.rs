//! Simple tokens: random letters, a dot, and the index of the log entry that created them. Every
//! member applies that entry, so each knows the token, in memory only; a token is gone after a
//! restart or when it was not used for its time.

use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use rustc_hash::FxHashMap;

const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const PREFIX_LETTERS: usize = 16;
/// etcd's default of `--auth-token-ttl`.
const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// Between two searches for tokens that have run out.
const SWEEP_INTERVAL_MS: u64 = 1_000;

/// The random half of a token; `None` when the system has no randomness to give.
pub(crate) fn random_prefix() -> Option<String> {
    let random = SystemRandom::new();
    let mut prefix = String::with_capacity(PREFIX_LETTERS);
    while prefix.len() < PREFIX_LETTERS {
        let mut bytes = [0; PREFIX_LETTERS];
        random.fill(&mut bytes).ok()?;
        // 208 is the largest multiple of 52 in a byte: above it some letters would come more often.
        for byte in bytes.iter().filter(|byte| **byte < 208) {
            if prefix.len() < PREFIX_LETTERS {
                prefix.push(LETTERS[usize::from(byte % 52)].into());
            }
        }
    }
    Some(prefix)
}

/// The index of the entry that created a token; `None` when it is no simple token at all.
pub(crate) fn index_of(token: &str) -> Option<u64> {
    let (prefix, index) = token.split_once('.')?;
    if prefix.is_empty() || index.is_empty() || !index.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    index.parse().ok()
}

#[derive(Debug)]
struct Token {
    user: String,
    until_ms: u64,
}

/// The tokens that this member knows.
#[derive(Debug)]
pub(crate) struct SimpleTokens {
    tokens: FxHashMap<String, Token>,
    ttl_ms: u64,
    swept_ms: u64,
}

impl Default for SimpleTokens {
    fn default() -> Self {
        let mut tokens = Self {
            tokens: FxHashMap::default(),
            ttl_ms: 0,
            swept_ms: 0,
        };
        tokens.set_ttl(DEFAULT_TTL);
        tokens
    }
}

impl SimpleTokens {
    pub(crate) fn set_ttl(&mut self, ttl: Duration) {
        self.ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    }

    pub(crate) fn assign(&mut self, prefix: &str, index: u64, user: &str, now_ms: u64) {
        // Here and not in a task: only this makes the table grow.
        if now_ms.saturating_sub(self.swept_ms) >= SWEEP_INTERVAL_MS {
            self.swept_ms = now_ms;
            self.tokens.retain(|_, token| token.until_ms > now_ms);
        }
        let token = Token {
            user: user.to_owned(),
            until_ms: now_ms.saturating_add(self.ttl_ms),
        };
        self.tokens.insert(format!("{prefix}.{index}"), token);
    }

    /// Whose token it is. A token lives for its time after each use.
    pub(crate) fn user(&mut self, token: &str, now_ms: u64) -> Option<String> {
        let known = self.tokens.get_mut(token)?;
        if known.until_ms <= now_ms {
            self.tokens.remove(token);
            return None;
        }
        known.until_ms = now_ms.saturating_add(self.ttl_ms);
        Some(known.user.clone())
    }

    /// The password was changed, or the user is gone.
    pub(crate) fn forget_user(&mut self, user: &str) {
        self.tokens.retain(|_, token| token.user != user);
    }

    pub(crate) fn forget_where(&mut self, is_gone: impl Fn(&str) -> bool) {
        self.tokens.retain(|_, token| !is_gone(&token.user));
    }

    pub(crate) fn forget_all(&mut self) {
        self.tokens.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_sixteen_letters_and_never_the_same() {
        let (a, b) = (random_prefix().unwrap(), random_prefix().unwrap());
        assert_eq!(a.len(), 16);
        assert!(a.bytes().all(|letter| LETTERS.contains(&letter)), "{a}");
        assert_ne!(a, b);
    }

    #[test]
    fn only_letters_dot_index_is_a_simple_token() {
        assert_eq!(index_of("abc.42"), Some(42));
        for wrong in [
            "",
            "abc",
            "abc.",
            ".42",
            "abc.-1",
            "a.b.c",
            "abc.+4",
            "abc.99999999999999999999999",
        ] {
            assert_eq!(index_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn each_use_prolongs_a_token_and_rest_ends_it() {
        let mut tokens = SimpleTokens::default();
        tokens.set_ttl(Duration::from_secs(10));
        tokens.assign("p", 7, "ann", 0);
        assert_eq!(tokens.user("p.7", 9_999).as_deref(), Some("ann"));
        assert_eq!(tokens.user("p.7", 19_998).as_deref(), Some("ann"));
        assert_eq!(tokens.user("p.7", 29_998), None);
        assert_eq!(tokens.user("p.7", 0), None, "gone for good");
        // What nobody asks for again is swept away.
        tokens.assign("q", 8, "ann", 30_000);
        tokens.assign("r", 9, "bob", 50_000);
        assert_eq!(tokens.tokens.len(), 1);
    }

    #[test]
    fn a_users_tokens_end_together() {
        let mut tokens = SimpleTokens::default();
        tokens.assign("p", 1, "ann", 0);
        tokens.assign("q", 2, "ann", 0);
        tokens.assign("r", 3, "bob", 0);
        tokens.forget_user("ann");
        assert_eq!(tokens.user("p.1", 0), None);
        assert_eq!(tokens.user("q.2", 0), None);
        assert_eq!(tokens.user("r.3", 0).as_deref(), Some("bob"));
        tokens.forget_all();
        assert_eq!(tokens.user("r.3", 0), None);
    }
}
