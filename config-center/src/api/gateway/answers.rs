//! What a gRPC status is over HTTP: its code's HTTP status, and a body that clients of every etcd
//! understand: 3.4 and 3.5 have `error`, later ones `message`, and 3.4's stream errors a third shape.

use axum::body::Body;
use http::{Response, StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status};

pub(super) const JSON: &str = "application/json";
/// nginx's number for "the client closed the request"; gRPC gateways use it for `Canceled`.
const CLIENT_CLOSED_REQUEST: u16 = 499;

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
    message: &'a str,
    code: i32,
}

#[derive(Serialize)]
struct StreamRefusal<'a> {
    error: StreamError<'a>,
}

#[derive(Serialize)]
struct StreamError<'a> {
    grpc_code: i32,
    http_code: u16,
    message: &'a str,
    http_status: &'a str,
    code: i32,
}

pub(super) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => {
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::REQUEST_TIMEOUT)
        }
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The answer of a call that was refused.
pub(super) fn refused(status: &Status) -> Response<Body> {
    let message = status.message();
    respond(
        http_status(status.code()),
        to_json(&Refusal {
            error: message,
            message,
            code: status.code() as i32,
        }),
    )
}

/// The answer of a stream that was refused before its first message.
pub(super) fn stream_refused(status: &Status) -> Response<Body> {
    respond(http_status(status.code()), stream_error(status))
}

/// The last line of a stream that breaks off.
pub(super) fn stream_error(status: &Status) -> Vec<u8> {
    let http = http_status(status.code());
    let mut line = to_json(&StreamRefusal {
        error: StreamError {
            grpc_code: status.code() as i32,
            http_code: http.as_u16(),
            message: status.message(),
            http_status: http.canonical_reason().unwrap_or_default(),
            code: status.code() as i32,
        },
    });
    line.push(b'\n');
    line
}

pub(super) fn respond(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
    response
}

/// Numbers and strings always have a JSON form.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_statuses_of_the_contract() {
        for (status, codes) in [
            (400, &[3, 9, 11][..]),
            (401, &[16]),
            (403, &[7]),
            (404, &[5]),
            (409, &[6, 10]),
            (429, &[8]),
            (499, &[1]),
            (500, &[2, 13, 15]),
            (501, &[12]),
            (503, &[14]),
            (504, &[4]),
        ] {
            for code in codes {
                assert_eq!(
                    http_status(Code::from_i32(*code)).as_u16(),
                    status,
                    "{code}"
                );
            }
        }
    }

    #[test]
    fn a_streams_error_has_both_shapes_in_one_line() {
        assert_eq!(
            String::from_utf8(stream_error(&Status::not_found("gone \"x\""))).unwrap(),
            "{\"error\":{\"grpc_code\":5,\"http_code\":404,\"message\":\"gone \\\"x\\\"\",\
             \"http_status\":\"Not Found\",\"code\":5}}\n"
        );
    }
}
