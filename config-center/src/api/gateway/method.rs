//! The RPCs as the gateway sees them: where they are called, and what their messages look like.

use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use tonic::Status;

use super::INLINE_BYTES;
use super::json::{self, Notation};
use crate::metrics::Rpc;

/// The schema, by which methods are looked up.
pub(in crate::api) struct Methods(DescriptorPool);

/// One RPC.
#[derive(Debug)]
pub(in crate::api) struct Method {
    uri: Uri,
    descriptor: MethodDescriptor,
}

impl Methods {
    /// # Panics
    /// Never, for the schema that this program was built with.
    #[expect(
        clippy::expect_used,
        reason = "the descriptors are part of the program; a test decodes them"
    )]
    pub(in crate::api) fn load() -> Self {
        Self(DescriptorPool::decode(schemas::DESCRIPTORS).expect("the built-in descriptors"))
    }

    /// `None` when the schema does not know the RPC.
    pub(in crate::api) fn get(&self, rpc: Rpc) -> Option<Method> {
        let service = self.0.get_service_by_name(rpc.service())?;
        let descriptor = service.methods().find(|m| m.name() == rpc.method())?;
        let uri = format!("/{}/{}", rpc.service(), rpc.method())
            .parse()
            .ok()?;
        Some(Method { uri, descriptor })
    }
}

impl Method {
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// It answers with any number of messages.
    pub(super) fn is_stream(&self) -> bool {
        self.descriptor.is_server_streaming()
    }

    /// It takes any number of messages.
    pub(super) fn hears_stream(&self) -> bool {
        self.descriptor.is_client_streaming()
    }

    /// A request in JSON as a protobuf message.
    pub(super) async fn request(
        self: &Arc<Self>,
        json: Bytes,
        notation: Notation,
    ) -> Result<Bytes, Status> {
        let method = Arc::clone(self);
        elsewhere_if_large(json.len(), move || {
            json::to_protobuf(&json, &method.descriptor.input(), notation)
                .map_err(|error| Status::invalid_argument(error.to_string()))
        })
        .await
    }

    /// Appends an answer as JSON.
    pub(super) async fn answer(
        self: &Arc<Self>,
        message: Bytes,
        notation: Notation,
        mut out: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        let method = Arc::clone(self);
        elsewhere_if_large(message.len(), move || {
            let output: MessageDescriptor = method.descriptor.output();
            json::from_protobuf(message, &output, notation, &mut out)
                .map(|()| out)
                .map_err(|error| Status::internal(format!("the answer has no JSON form: {error}")))
        })
        .await
    }

    /// One line of a stream.
    pub(super) async fn line(
        self: &Arc<Self>,
        message: Bytes,
        notation: Notation,
    ) -> Result<Vec<u8>, Status> {
        let mut line = self
            .answer(message, notation, b"{\"result\":".to_vec())
            .await?;
        line.extend_from_slice(b"}\n");
        Ok(line)
    }
}

async fn elsewhere_if_large<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    if bytes <= INLINE_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
