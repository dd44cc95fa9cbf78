//! Private keys of elliptic curves as PEM files hold them: in PKCS#8, or as OpenSSL has always
//! written them (SEC1, `BEGIN EC PRIVATE KEY`), which becomes PKCS#8 here. Knows DER, no tokens.

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const VERSION_0: [u8; 3] = [0x02, 0x01, 0x00];
/// id-ecPublicKey, 1.2.840.10045.2.1.
const EC_PUBLIC_KEY: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// The curve that a signature algorithm is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// Its name in DER: 1.2.840.10045.3.1.7 and 1.3.132.0.34.
    fn name(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
        }
    }
}

/// The first private key of a PEM file, in PKCS#8. Whether it is one of this curve, whoever uses it
/// finds out.
pub(super) fn pkcs8(curve: Curve, pem: &[u8]) -> Result<Vec<u8>, String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    Ok(match &key {
        PrivateKeyDer::Sec1(sec1) => wrapped(curve, sec1.secret_sec1_der()),
        other => other.secret_der().to_vec(),
    })
}

/// PrivateKeyInfo (RFC 5208) around an ECPrivateKey (RFC 5915).
fn wrapped(curve: Curve, sec1: &[u8]) -> Vec<u8> {
    let algorithm = element(SEQUENCE, &[&EC_PUBLIC_KEY, curve.name()]);
    let key = element(OCTET_STRING, &[sec1]);
    element(SEQUENCE, &[&VERSION_0, &algorithm, &key])
}

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let bytes = content.len().to_be_bytes();
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    match digits {
        [] => der.push(0),
        [short] if *short < 0x80 => der.push(*short),
        digits => {
            der.push(0x80 | digits.len() as u8);
            der.extend(digits);
        }
    }
    der.extend(content);
    der
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};

    use super::*;

    /// The ECPrivateKey inside of a PKCS#8 key, with the curve's name as OpenSSL adds it.
    #[test]
    fn what_was_unwrapped_is_wrapped_as_it_was() {
        for (curve, kind) in [
            (Curve::P256, &PKCS_ECDSA_P256_SHA256),
            (Curve::P384, &PKCS_ECDSA_P384_SHA384),
        ] {
            let whole = KeyPair::generate_for(kind).unwrap().serialize_der();
            let head = [&EC_PUBLIC_KEY, curve.name()].concat();
            let after = whole
                .windows(head.len())
                .position(|window| window == head)
                .unwrap()
                + head.len();
            // An octet string with a length of one or two bytes.
            let inner = match whole[after + 1] {
                0x81 => &whole[after + 3..],
                _ => &whole[after + 2..],
            };
            assert_eq!(wrapped(curve, inner), whole);
        }
    }

    #[test]
    fn lengths_are_as_short_as_der_wants_them() {
        assert_eq!(element(4, &[]), [4, 0]);
        assert_eq!(element(4, &[&[7; 0x7f]])[..2], [4, 0x7f]);
        assert_eq!(element(4, &[&[7; 0x80]])[..3], [4, 0x81, 0x80]);
        assert_eq!(element(4, &[&[7; 0x1234]])[..4], [4, 0x82, 0x12, 0x34]);
    }
}
