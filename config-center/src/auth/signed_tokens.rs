//! Signed tokens (JWT): no member remembers them, each can check them. A token says whose it is and
//! at which revision of the users it was made; it is good for its time and until users change.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::signature::KeyPair as _;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::ec_keys::{self, Curve};

/// What `--auth-token jwt,…` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    pub sign_method: String,
    pub public_key: Option<PathBuf>,
    pub private_key: Option<PathBuf>,
    pub ttl: Duration,
}

/// Why tokens cannot be signed or checked; one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("--auth-token: cannot read {}: {what}; nothing was changed", path.display())]
    File { path: PathBuf, what: String },
    #[error("--auth-token: {0}; nothing was changed")]
    Settings(String),
}

/// The keys.
pub(crate) struct SignedTokens {
    algorithm: Algorithm,
    /// Without it, tokens come from elsewhere and are only checked.
    signing: Option<EncodingKey>,
    checking: DecodingKey,
    ttl: Duration,
}

/// Whose token it is, and when it was made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) user: String,
    pub(crate) auth_revision: u64,
}

impl SignedTokens {
    pub(crate) fn load(settings: &JwtSettings) -> Result<Self, TokenError> {
        let refused = |what: String| TokenError::Settings(what);
        let algorithm: Algorithm = settings.sign_method.parse().map_err(|_| {
            refused(format!(
                "sign-method {:?} is not supported; these are: RS256, RS384, RS512, PS256, PS384, \
                 PS512, ES256, ES384, EdDSA, HS256, HS384, HS512",
                settings.sign_method
            ))
        })?;
        let private = settings.private_key.as_deref().map(read).transpose()?;
        let public = settings.public_key.as_deref().map(read).transpose()?;
        let unusable = |path: &Option<PathBuf>, error: String| TokenError::File {
            path: path.clone().unwrap_or_default(),
            what: error,
        };
        let signing = private
            .as_deref()
            .map(|pem| signing_key(algorithm, pem))
            .transpose()
            .map_err(|error| unusable(&settings.private_key, error))?;
        let checking = match (&public, &private) {
            (Some(pem), _) if !is_symmetric(algorithm) => checking_key(algorithm, pem)
                .map_err(|error| unusable(&settings.public_key, error))?,
            (_, Some(pem)) => derived_key(algorithm, pem)
                .map_err(|error| unusable(&settings.private_key, error))?,
            _ => return Err(refused("missing key data".to_owned())),
        };
        let tokens = Self {
            algorithm,
            signing,
            checking,
            ttl: settings.ttl,
        };
        // Two keys that do not belong together would lock everybody out, one login later.
        if let Some(probe) = tokens.sign("probe", 1)
            && tokens.check(&probe).is_none()
        {
            return Err(refused("public and private keys don't match".to_owned()));
        }
        Ok(tokens)
    }

    /// `None` when there is only a key to check with.
    pub(crate) fn sign(&self, user: &str, auth_revision: u64) -> Option<String> {
        let key = self.signing.as_ref()?;
        let claims = json!({
            "username": user,
            "revision": auth_revision,
            "exp": (now() + self.ttl).as_secs(),
        });
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, key).ok()
    }

    /// `None` for whatever is not signed by our key, has run out, or says nothing of a user.
    pub(crate) fn check(&self, token: &str) -> Option<Claims> {
        let mut rules = Validation::new(self.algorithm);
        // The times are judged below: a claim of another type must not count as a missing one.
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        rules.validate_nbf = false;
        rules.validate_aud = false;
        let claims = jsonwebtoken::decode::<Value>(token, &self.checking, &rules)
            .ok()?
            .claims;
        let now_s = now().as_secs_f64();
        let is_within = |name: &str, judge: fn(f64, f64) -> bool| match claims.get(name) {
            None => true,
            Some(time) => time.as_f64().is_some_and(|time| judge(time, now_s)),
        };
        if !is_within("exp", |end, now| now < end) || !is_within("nbf", |begin, now| begin <= now) {
            return None;
        }
        let revision = claims.get("revision")?;
        Some(Claims {
            user: claims.get("username")?.as_str()?.to_owned(),
            auth_revision: revision.as_u64()?,
        })
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn read(path: &Path) -> Result<Vec<u8>, TokenError> {
    std::fs::read(path).map_err(|error| TokenError::File {
        path: path.to_owned(),
        what: error.to_string(),
    })
}

fn is_symmetric(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}

fn signing_key(algorithm: Algorithm, pem: &[u8]) -> Result<EncodingKey, String> {
    use Algorithm::{
        ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
    };
    let key = match algorithm {
        HS256 | HS384 | HS512 => Ok(EncodingKey::from_secret(pem)),
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => EncodingKey::from_rsa_pem(pem),
        ES256 | ES384 => {
            // Looked at before: whatever is no key of the curve could only fail to sign later.
            derived_key(algorithm, pem)
                .map_err(|error| format!("no private key for this sign-method: {error}"))?;
            let der = ec_keys::pkcs8(curve_of(algorithm), pem)?;
            Ok(EncodingKey::from_ec_der(&der))
        }
        EdDSA => EncodingKey::from_ed_pem(pem),
    };
    key.map_err(|error| format!("no private key for this sign-method (PKCS#8 in PEM): {error}"))
}

fn checking_key(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, String> {
    use Algorithm::{
        ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
    };
    let key = match algorithm {
        HS256 | HS384 | HS512 => Ok(DecodingKey::from_secret(pem)),
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => DecodingKey::from_rsa_pem(pem),
        ES256 | ES384 => DecodingKey::from_ec_pem(pem),
        EdDSA => DecodingKey::from_ed_pem(pem),
    };
    key.map_err(|error| format!("no public key for this sign-method: {error}"))
}

fn curve_of(algorithm: Algorithm) -> Curve {
    match algorithm {
        Algorithm::ES384 => Curve::P384,
        _ => Curve::P256,
    }
}

/// The public half of a private key.
fn derived_key(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, String> {
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, RsaKeyPair,
    };
    if is_symmetric(algorithm) {
        return Ok(DecodingKey::from_secret(pem));
    }
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    let wrong = |error: ring::error::KeyRejected| error.to_string();
    let bytes = der.secret_der();
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => {
            let curve = match algorithm {
                Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
                _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
            };
            let random = ring::rand::SystemRandom::new();
            let bytes = ec_keys::pkcs8(curve_of(algorithm), pem)?;
            let pair = EcdsaKeyPair::from_pkcs8(curve, &bytes, &random).map_err(wrong)?;
            Ok(DecodingKey::from_ec_der(pair.public_key().as_ref()))
        }
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map_err(wrong)?;
            Ok(DecodingKey::from_ed_der(pair.public_key().as_ref()))
        }
        _ => {
            let pair = match der {
                PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes),
                _ => RsaKeyPair::from_pkcs8(bytes),
            };
            let pair = pair.map_err(wrong)?;
            Ok(DecodingKey::from_rsa_der(pair.public_key().as_ref()))
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    const OLDER_PRIVATE: &str = "-----BEGIN EC PARAMETERS-----\n\
BggqhkjOPQMBBw==\n\
-----END EC PARAMETERS-----\n\
-----BEGIN EC PRIVATE KEY-----\n\
MHcCAQEEIOJvJ/fV0X2BdSOdTVGiXBRBdnR0G8Wq0WKPX+no5FYyoAoGCCqGSM49\n\
AwEHoUQDQgAE81LfdLmr6uFW6Y0KC4ykZzrPKRpxDUvxySQ88gvWoYEOu5gSY/NO\n\
oMu3ImiqMW2mOUEB/KWNL5aXd1D5e68LrQ==\n\
-----END EC PRIVATE KEY-----\n";
    const OLDER_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE81LfdLmr6uFW6Y0KC4ykZzrPKRpx\n\
DUvxySQ88gvWoYEOu5gSY/NOoMu3ImiqMW2mOUEB/KWNL5aXd1D5e68LrQ==\n\
-----END PUBLIC KEY-----\n";

    struct Keys {
        folder: tempfile::TempDir,
    }

    impl Keys {
        fn new(pair: &KeyPair) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("key"), pair.serialize_pem()).unwrap();
            std::fs::write(folder.path().join("pub"), pair.public_key_pem()).unwrap();
            Self { folder }
        }

        fn settings(&self, method: &str, public: bool, private: bool) -> JwtSettings {
            let path = |name: &str, is_given: bool| is_given.then(|| self.folder.path().join(name));
            JwtSettings {
                sign_method: method.to_owned(),
                public_key: path("pub", public),
                private_key: path("key", private),
                ttl: Duration::from_secs(60),
            }
        }
    }

    #[test]
    fn each_method_signs_and_checks_with_one_key_or_two() {
        for (method, kind) in [
            ("ES256", &PKCS_ECDSA_P256_SHA256),
            ("ES384", &PKCS_ECDSA_P384_SHA384),
            ("EdDSA", &PKCS_ED25519),
        ] {
            let keys = Keys::new(&KeyPair::generate_for(kind).unwrap());
            let both = SignedTokens::load(&keys.settings(method, true, true)).unwrap();
            let private = SignedTokens::load(&keys.settings(method, false, true)).unwrap();
            let public = SignedTokens::load(&keys.settings(method, true, false)).unwrap();
            let token = both.sign("ann", 7).unwrap();
            for checker in [&both, &private, &public] {
                let claims = checker.check(&token).unwrap();
                assert_eq!((claims.user.as_str(), claims.auth_revision), ("ann", 7));
            }
            assert!(public.sign("ann", 7).is_none(), "{method}: only checks");
            let other = Keys::new(&KeyPair::generate_for(kind).unwrap());
            let stranger = SignedTokens::load(&other.settings(method, true, true)).unwrap();
            assert_eq!(stranger.check(&token), None);
        }
    }

    /// As `openssl ecparam -name prime256v1 -genkey` has written them.
    #[test]
    fn keys_in_the_older_form_sign_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys { folder };
        let path = keys.folder.path();
        std::fs::write(path.join("key"), OLDER_PRIVATE).unwrap();
        std::fs::write(path.join("pub"), OLDER_PUBLIC).unwrap();
        let both = SignedTokens::load(&keys.settings("ES256", true, true)).unwrap();
        let private = SignedTokens::load(&keys.settings("ES256", false, true)).unwrap();
        let token = private.sign("ann", 7).unwrap();
        assert_eq!(both.check(&token).unwrap().user, "ann");
        let wrong = SignedTokens::load(&keys.settings("ES384", false, true));
        assert!(wrong.err().unwrap().to_string().contains("no private key"));
    }

    #[test]
    fn keys_that_do_not_belong_together_are_refused() {
        let keys = Keys::new(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        std::fs::write(keys.folder.path().join("pub"), other.public_key_pem()).unwrap();
        for (settings, said) in [
            (keys.settings("ES256", true, true), "don't match"),
            (keys.settings("RS256", false, true), "no private key"),
            // Its curve, P-521, is beyond the cryptography that is built in.
            (keys.settings("ES512", true, true), "is not supported"),
            (keys.settings("ES384", true, true), "no private key"),
            (keys.settings("none", true, true), "is not supported"),
            (keys.settings("ES256", false, false), "missing key data"),
        ] {
            let error = SignedTokens::load(&settings).err().unwrap().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    fn secret() -> SignedTokens {
        SignedTokens {
            algorithm: Algorithm::HS256,
            signing: Some(EncodingKey::from_secret(b"secret")),
            checking: DecodingKey::from_secret(b"secret"),
            ttl: Duration::from_secs(60),
        }
    }

    #[test]
    fn only_whole_and_timely_claims_count() {
        let tokens = secret();
        let of = |claims: Value| {
            let key = EncodingKey::from_secret(b"secret");
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
        };
        let far = 9_999_999_999_u64;
        for (claims, is_good) in [
            (json!({"username": "a", "revision": 3, "exp": far}), true),
            (json!({"username": "a", "revision": 3}), true),
            (json!({"username": "a", "revision": 3, "exp": 1}), false),
            (
                json!({"username": "a", "revision": 3, "exp": "never"}),
                false,
            ),
            (json!({"username": "a", "revision": 3, "nbf": far}), false),
            (json!({"username": "a", "exp": far}), false),
            (json!({"revision": 3, "exp": far}), false),
            (json!({"username": 1, "revision": 3, "exp": far}), false),
        ] {
            assert_eq!(
                tokens.check(&of(claims.clone())).is_some(),
                is_good,
                "{claims}"
            );
        }
    }

    #[test]
    fn another_algorithm_or_none_is_no_signature() {
        let tokens = secret();
        let claims = json!({"username": "root", "revision": 3});
        let key = EncodingKey::from_secret(b"secret");
        let other = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, &key).unwrap();
        assert_eq!(tokens.check(&other), None);
        // {"alg":"none"} and the claims, without a signature.
        let unsigned = "eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6M30.";
        assert_eq!(tokens.check(unsigned), None);
        let mut changed = tokens.sign("ann", 3).unwrap();
        changed.pop();
        assert_eq!(tokens.check(&changed), None);
    }
}
