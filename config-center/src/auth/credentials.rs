//! What a request claims about its sender. Nothing is checked here.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderName, HeaderValue, Request};
use tonic::metadata::MetadataMap;

/// Carries the name through the services, which see nothing of a request but its metadata.
const CERTIFICATE_NAME: HeaderName = HeaderName::from_static("config-center-certificate-name-bin");

/// A token, a certificate's name, both or neither.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Without `Bearer `. `Some("")` is a token too, and a wrong one.
    pub(crate) token: Option<String>,
    /// The common name of a verified client certificate.
    pub(crate) certificate_name: Option<String>,
}

/// Tokens are secrets: a log line says only that there is one.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("has_token", &self.token.is_some())
            .field("certificate_name", &self.certificate_name)
            .finish()
    }
}

impl Credentials {
    /// `token` is what gRPC clients send, `authorization` what comes through the JSON gateway.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        let token = metadata
            .get("token")
            .or_else(|| metadata.get("authorization"))
            .map(|value| {
                let text = value.to_str().unwrap_or_default();
                text.strip_prefix("Bearer ").unwrap_or(text).to_owned()
            });
        let certificate_name = metadata
            .get_bin(CERTIFICATE_NAME.as_str())
            .and_then(|value| value.to_bytes().ok())
            .and_then(|name| String::from_utf8(name.to_vec()).ok());
        Self {
            token,
            certificate_name,
        }
    }
}

/// The common name of the verified certificate of a connection, which the server puts into the
/// extensions of every request on it; no client can reach those.
#[derive(Debug, Clone)]
pub(crate) struct CertificateName(pub(crate) Arc<str>);

/// Makes the connection's certificate part of the metadata, in place of whatever a client sent
/// under that name. Done once, where every call enters the services.
pub(crate) fn set_certificate_name<B>(request: &mut Request<B>) {
    request.headers_mut().remove(CERTIFICATE_NAME);
    let name = request.extensions().get::<CertificateName>().cloned();
    if let Some(CertificateName(name)) = name
        && let Ok(value) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(&*name))
    {
        request.headers_mut().insert(CERTIFICATE_NAME, value);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Credentials {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        Credentials::of(&MetadataMap::from_headers(map))
    }

    #[test]
    fn the_token_comes_from_either_field_with_or_without_bearer() {
        for (headers, token) in [
            (&[("token", "abc.1")][..], Some("abc.1")),
            (&[("token", "Bearer abc.1")], Some("abc.1")),
            (&[("authorization", "abc.1")], Some("abc.1")),
            (&[("authorization", "Bearer abc.1")], Some("abc.1")),
            (&[("token", "a"), ("authorization", "b")], Some("a")),
            (&[("token", "")], Some("")),
            (&[], None),
        ] {
            assert_eq!(of(headers).token.as_deref(), token, "{headers:?}");
        }
    }

    #[test]
    fn a_client_cannot_name_itself() {
        let mut request = Request::new(());
        for _ in 0..2 {
            let root = HeaderValue::from_static("cm9vdA");
            request.headers_mut().append(CERTIFICATE_NAME, root);
        }
        let seen = |request: &Request<()>| {
            Credentials::of(&MetadataMap::from_headers(request.headers().clone()))
        };
        set_certificate_name(&mut request);
        assert_eq!(seen(&request), Credentials::default());
        let name = CertificateName("Jörg, Ops".into());
        request.extensions_mut().insert(name);
        set_certificate_name(&mut request);
        let name = seen(&request).certificate_name;
        assert_eq!(name.as_deref(), Some("Jörg, Ops"));
    }

    #[test]
    fn a_log_line_holds_no_token() {
        let line = format!("{:?}", of(&[("token", "secret.7")]));
        assert!(!line.contains("secret"), "{line}");
    }
}
