//! Errors as `application/problem+json` (RFC 9457), with codes that stay the same.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemas_client::{ClientError, Code};
use serde::Serialize;

use crate::fleet::error::FleetError;

/// What a client can act upon; the title is for people, the code for programs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: String,
    /// One line per fault, with file, line and column where there is a text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<String>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            code,
            detail: detail.into(),
            faults: Vec::new(),
        }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "The request cannot be carried out",
            detail,
        )
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "The request is not understood",
            detail,
        )
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "There is no such thing",
            detail,
        )
    }

    pub(super) fn with_faults(mut self, faults: Vec<String>) -> Self {
        self.faults = faults;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            let how = HeaderValue::from_static("Basic realm=\"config-center\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        }
        response
    }
}

impl From<FleetError> for Problem {
    fn from(error: FleetError) -> Self {
        let detail = error.to_string();
        let lines = |detail: &str| detail.lines().map(str::to_owned).collect();
        match error {
            FleetError::Client(error) => error.into(),
            FleetError::Objects(_) => {
                Self::invalid("the objects are not right").with_faults(lines(&detail))
            }
            FleetError::Rendering(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "conflict_of_objects",
                "The objects contradict each other",
                "the objects cannot all be true",
            )
            .with_faults(lines(&detail)),
            FleetError::Corrupt { .. } | FleetError::Invalid(_) => Self::invalid(detail),
            FleetError::MassRemoval(_) => Self::new(
                StatusCode::CONFLICT,
                "mass_removal",
                "Many hosts would stop collecting",
                detail,
            ),
            FleetError::Command(_) => Self::new(
                StatusCode::CONFLICT,
                "wrong_phase",
                "The rollout cannot do that now",
                detail,
            ),
            FleetError::NoDrift(_) => Self::new(
                StatusCode::CONFLICT,
                "no_drift",
                "The host has not drifted",
                detail,
            ),
            FleetError::NotFound(_) => Self::not_found(detail),
            FleetError::Precondition(_) => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                "Somebody changed it meanwhile",
                detail,
            ),
            FleetError::RaceLost { .. } => Self::new(
                StatusCode::CONFLICT,
                "race_lost",
                "Others were faster each time",
                detail,
            ),
            FleetError::Stale(_) => Self::new(
                StatusCode::CONFLICT,
                "stale",
                "It was changed again meanwhile",
                detail,
            ),
        }
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let detail = error.to_string();
        if error.is_denied() {
            let wants_credentials = error.code() == Some(Code::Unauthenticated)
                || detail.contains("authentication failed")
                || detail.contains("user name is empty");
            return if wants_credentials {
                Self::new(
                    StatusCode::UNAUTHORIZED,
                    "unauthenticated",
                    "The store wants other credentials",
                    detail,
                )
            } else {
                Self::new(
                    StatusCode::FORBIDDEN,
                    "denied",
                    "The store does not permit it",
                    detail,
                )
            };
        }
        match error {
            ClientError::OutcomeUnknown { .. } => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "outcome_unknown",
                "It may or may not have been carried out",
                detail,
            ),
            error if error.is_transient() => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "The store does not answer",
                detail,
            ),
            _ => Self::new(
                StatusCode::BAD_GATEWAY,
                "refused",
                "The store refused it",
                detail,
            ),
        }
    }
}

pub(crate) async fn no_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_route",
        "There is no such route",
        "see /openapi.json",
    )
}

pub(super) async fn no_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "no_method",
        "The route does not have this method",
        "see /openapi.json",
    )
}
