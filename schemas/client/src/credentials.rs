//! User name, password and the token they are exchanged for.
//!
//! A token is fetched on the first call and again on exactly the three messages by which etcd says
//! that one is spent; any other refusal is the caller's answer.

use tokio::sync::Mutex;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::Channel,
};

use schemas::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};

const SPENT_TOKEN: [&str; 3] = [
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
    "etcdserver: user name is empty",
];
const AUTH_DISABLED: &str = "etcdserver: authentication is not enabled";

/// Adds the token to the metadata of every request of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

#[derive(Debug)]
pub(crate) struct Credentials {
    name: String,
    password: String,
    token: Mutex<Option<Token>>,
}

impl Credentials {
    pub(crate) fn new(name: String, password: String) -> Self {
        Self {
            name,
            password,
            token: Mutex::default(),
        }
    }

    /// The token at hand, or a new one from the server behind `channel`.
    pub(crate) async fn token(&self, channel: &Channel) -> Result<Token, Status> {
        let mut held = self.token.lock().await;
        if let Some(token) = &*held {
            return Ok(token.clone());
        }
        let request = AuthenticateRequest {
            name: self.name.clone(),
            password: self.password.clone(),
        };
        let token = match AuthClient::new(channel.clone()).authenticate(request).await {
            Ok(answer) => {
                let value = MetadataValue::try_from(answer.into_inner().token)
                    .map_err(|_| Status::internal("the token is not plain text"))?;
                Token(Some(value))
            }
            // A store without authentication serves everybody: go on without a token.
            Err(status) if status.message() == AUTH_DISABLED => Token::default(),
            Err(status) => return Err(status),
        };
        *held = Some(token.clone());
        Ok(token)
    }

    /// Forgets a spent token, unless another call has already fetched a newer one.
    pub(crate) async fn forget(&self, spent: &Token) {
        let mut held = self.token.lock().await;
        if held.as_ref().is_some_and(|token| token.0 == spent.0) {
            *held = None;
        }
    }
}

/// True when a fresh token may turn this refusal into an answer.
pub(crate) fn is_spent_token(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument)
        && SPENT_TOKEN.contains(&status.message())
}
