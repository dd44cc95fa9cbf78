//! etcd's v2 errors: number, text, HTTP status, and the index at which they were found.

use axum::response::Response;
use config_center_core::v2::V2Refusal;
use http::{HeaderValue, StatusCode};

use super::events::{INDEX, quoted};
use super::json;
use super::visitor::Denied;
use crate::api::Fault;

/// A refusal as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) cause: String,
    /// 0 for what was refused before the store was asked.
    pub(super) index: i64,
}

/// What can be wrong with a request's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) enum BadParameter {
    PrevValue = 201,
    Ttl = 202,
    Index = 203,
    Field = 209,
    Form = 210,
    RefreshValue = 211,
    RefreshTtl = 212,
}

/// The cluster could not be asked.
const RAFT_INTERNAL: u16 = 300;
const UNAUTHORIZED: u16 = 110;

impl BadParameter {
    pub(super) fn with(self, cause: impl Into<String>) -> Refusal {
        Refusal {
            code: self as u16,
            cause: cause.into(),
            index: 0,
        }
    }
}

impl From<V2Refusal> for Refusal {
    fn from(refusal: V2Refusal) -> Self {
        Self {
            code: refusal.code as u16,
            cause: refusal.cause,
            index: refusal.index,
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self {
            code: RAFT_INTERNAL,
            cause: fault.to_string(),
            index: 0,
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Insufficient => Self {
                code: UNAUTHORIZED,
                cause: "Insufficient credentials".to_owned(),
                index: 0,
            },
            Denied::Failed(fault) => fault.into(),
        }
    }
}

impl Refusal {
    fn text(&self) -> &'static str {
        match self.code {
            100 => "Key not found",
            101 => "Compare failed",
            102 => "Not a file",
            104 => "Not a directory",
            105 => "Key already exists",
            107 => "Root is read only",
            108 => "Directory not empty",
            UNAUTHORIZED => "The request requires user authentication",
            201 => "PrevValue is Required in POST form",
            202 => "The given TTL in POST form is not a number",
            203 => "The given index in POST form is not a number",
            209 => "Invalid field",
            210 => "Invalid POST form",
            211 => "Value provided on refresh",
            212 => "A TTL must be provided on refresh",
            401 => "The event in requested index is outdated and cleared",
            _ => "Raft Internal Error",
        }
    }

    fn status(&self) -> StatusCode {
        match self.code {
            100 => StatusCode::NOT_FOUND,
            101 | 105 => StatusCode::PRECONDITION_FAILED,
            102 | 108 => StatusCode::FORBIDDEN,
            UNAUTHORIZED => StatusCode::UNAUTHORIZED,
            RAFT_INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn into_response(self) -> Response {
        let body = format!(
            "{{\"errorCode\":{},\"message\":{},\"cause\":{},\"index\":{}}}\n",
            self.code,
            quoted(self.text().as_bytes()),
            quoted(self.cause.as_bytes()),
            self.index
        );
        let mut response = json(self.status(), body);
        let headers = response.headers_mut();
        headers.insert(INDEX, HeaderValue::from(self.index));
        response
    }
}

/// The numbers are etcd's, so the core's are checked against the texts here.
#[cfg(test)]
mod tests {
    use config_center_core::v2::V2Code;

    use super::*;

    #[test]
    fn every_code_of_the_core_has_a_text_of_its_own() {
        for code in [
            V2Code::KeyNotFound,
            V2Code::CompareFailed,
            V2Code::NotAFile,
            V2Code::NotADirectory,
            V2Code::KeyExists,
            V2Code::RootIsReadOnly,
            V2Code::DirectoryNotEmpty,
            V2Code::EventCleared,
        ] {
            let refusal = Refusal::from(V2Refusal {
                code,
                cause: String::new(),
                index: 1,
            });
            assert_ne!(refusal.text(), "Raft Internal Error", "{code:?}");
        }
    }
}
