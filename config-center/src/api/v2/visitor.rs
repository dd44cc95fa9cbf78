//! Who asks on v2: a user by name and password, a user by certificate, or nobody, whose rights are
//! the role guest's where v2 has turned authentication on. The users are those of v3, and the
//! decision is the core's.

use std::sync::Arc;

use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config_center_core::{Access, Caller, Refusal, Reply, State};
use http::header;
use schemas::command::command::Op;
use schemas::etcdserverpb::ResponseHeader;

use crate::api::{Context, Fault};
use crate::auth::CertificateName;

/// A change of users between the decision and its repetition when the command is applied is tried
/// again this often.
const ATTEMPTS: usize = 3;

/// What a request says about its sender. Nothing is checked yet.
#[derive(Clone)]
pub(super) struct Visitor {
    /// `None` inside: there is a header, and it names nobody.
    login: Option<Option<(String, String)>>,
    certificate_name: Option<Arc<str>>,
}

/// Why somebody may not, or could not be asked about.
pub(super) enum Denied {
    Insufficient,
    Failed(Fault),
}

impl From<Fault> for Denied {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(Refusal::PermissionDenied | Refusal::UserEmpty) => Self::Insufficient,
            fault => Self::Failed(fault),
        }
    }
}

impl Visitor {
    pub(super) fn of(parts: &Parts) -> Self {
        let certificate = parts.extensions.get::<CertificateName>();
        Self {
            login: parts.headers.get(header::AUTHORIZATION).map(|value| {
                let encoded = value.to_str().ok()?.strip_prefix("Basic ")?;
                let plain = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
                let (name, password) = plain.split_once(':')?;
                Some((name.to_owned(), password.to_owned()))
            }),
            certificate_name: certificate.map(|CertificateName(name)| Arc::clone(name)),
        }
    }

    /// Establishes who it is; `None` when what was said is not true.
    async fn identify(&self, context: &Context) -> Result<Option<Caller>, Fault> {
        let known = |name: &str| {
            context.engine().read(|state| {
                let caller = Caller::User {
                    name: name.to_owned(),
                    auth_revision: state.auth_revision(),
                };
                let user = state.user(name)?;
                Some((caller, user.password.clone()))
            })
        };
        match (&self.login, &self.certificate_name) {
            (Some(None), _) => Ok(None),
            (Some(Some((name, password))), _) => {
                let (caller, hash) = known(name).unzip();
                let hash = hash.filter(|hash| !hash.is_empty());
                let passwords = &context.passwords;
                let fits = passwords.check(password.clone(), hash).await?;
                Ok(caller.filter(|_| fits))
            }
            (None, Some(name)) => {
                let caller = known(name).map(|(caller, _)| caller);
                Ok(Some(caller.unwrap_or(Caller::Anonymous)))
            }
            (None, None) => Ok(Some(Caller::Anonymous)),
        }
    }

    /// Who it is, if they may do that. While authentication is off nobody is asked.
    ///
    /// A member that lags behind may not know a user or a permission yet, so a no counts only after
    /// a look at what the cluster has agreed on.
    pub(super) async fn permit(
        &self,
        context: &Context,
        access: Access<'_>,
    ) -> Result<Caller, Denied> {
        let asked_at = context.engine().read(State::auth_revision);
        match self.decide(context, access).await {
            Err(Denied::Insufficient) => {}
            decided => return decided,
        }
        if context.node.read_barrier().await.is_err()
            || context.engine().read(State::auth_revision) == asked_at
        {
            return Err(Denied::Insufficient);
        }
        self.decide(context, access).await
    }

    async fn decide(&self, context: &Context, access: Access<'_>) -> Result<Caller, Denied> {
        if !context.engine().auth_enabled() {
            return Ok(Caller::Anonymous);
        }
        let caller = self.identify(context).await?;
        let caller = caller.ok_or(Denied::Insufficient)?;
        let judged = context
            .engine()
            .read(|state| state.authorize(&caller, access));
        // Whatever the reason is, it is none of this visitor's business.
        judged.map_err(|_| Denied::Insufficient)?;
        Ok(caller)
    }

    /// Replicates a command if they may, and says who they are.
    pub(super) async fn propose(
        &self,
        context: &Context,
        op: Op,
    ) -> Result<(Reply, ResponseHeader, Caller), Denied> {
        for _ in 1..ATTEMPTS {
            match self.propose_once(context, op.clone()).await {
                // Users have changed in between; nothing was done.
                Err(Denied::Failed(Fault::Refused(Refusal::AuthRevisionOld))) => {}
                outcome => return outcome,
            }
        }
        self.propose_once(context, op).await
    }

    async fn propose_once(
        &self,
        context: &Context,
        op: Op,
    ) -> Result<(Reply, ResponseHeader, Caller), Denied> {
        let caller = self.permit(context, Access::of(&op)).await?;
        let (reply, header) = context.propose_as(&caller, op).await?;
        Ok((reply, header, caller))
    }
}
