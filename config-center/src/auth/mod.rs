//! Who is calling: what a request says about itself, the tokens that prove it, and the hashing of
//! passwords. What a caller may do is decided by the core.
//!
//! ```text
//! request metadata ── Credentials (a claim, unchecked)
//!                          │ Context::identify: token table, signature or certificate
//!                          ▼
//!                     Caller (established) ── State::authorize, before and again at the apply
//! ```

mod credentials;
mod ec_keys;
mod passwords;
mod signed_tokens;
mod simple_tokens;

pub(crate) use credentials::{CertificateName, Credentials, set_certificate_name};
pub(crate) use passwords::{PasswordError, Passwords};
pub(crate) use signed_tokens::SignedTokens;
pub use signed_tokens::{JwtSettings, TokenError};
pub(crate) use simple_tokens::{SimpleTokens, index_of, random_prefix};
