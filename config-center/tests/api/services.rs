//! What generic gRPC tools ask of any server: health, and which services there are.

use schemas::grpc_health::health_check_response::ServingStatus;
use schemas::grpc_health::health_client::HealthClient;
use schemas::grpc_health::{HealthCheckRequest, HealthListRequest};
use tonic::Code;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient as AlphaClient;

use crate::fixture::{Fixture, assert_status, within};

#[tokio::test]
async fn the_server_is_healthy_until_it_stops() {
    let fixture = Fixture::start().await;
    let mut client = HealthClient::new(fixture.channel.clone());
    let whole = HealthCheckRequest::default();
    let other = HealthCheckRequest {
        service: "etcdserverpb.KV".to_owned(),
    };
    let answer = client.check(whole.clone()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    assert_status(
        client.check(other.clone()).await,
        Code::NotFound,
        "unknown service",
    );
    let listed = client.list(HealthListRequest {}).await.unwrap();
    let statuses = listed.into_inner().statuses;
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[""].status(), ServingStatus::Serving);

    let mut unknown = client.watch(other).await.unwrap().into_inner();
    let first = within("status", unknown.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    let mut known = client.watch(whole).await.unwrap().into_inner();
    let first = within("status", known.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    fixture.stop().await;
    let last = within("the end", known.message()).await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
}

fn services(answer: ServerReflectionResponse) -> Vec<String> {
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|one| one.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn reflection_names_every_service_and_describes_it() {
    let fixture = Fixture::start().await;
    let mut client = ServerReflectionClient::new(fixture.channel.clone());
    let asked = |request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let requests = [
        asked(MessageRequest::ListServices(String::new())),
        asked(MessageRequest::FileContainingSymbol(
            "v3lockpb.Lock".to_owned(),
        )),
    ];
    let mut answers = client
        .server_reflection_info(tokio_stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let listed = within("list", answers.message()).await.unwrap().unwrap();
    let mut names = services(listed);
    names.sort();
    assert_eq!(
        names,
        [
            "etcdserverpb.Auth",
            "etcdserverpb.Cluster",
            "etcdserverpb.KV",
            "etcdserverpb.Lease",
            "etcdserverpb.Maintenance",
            "etcdserverpb.Watch",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "v3electionpb.Election",
            "v3lockpb.Lock",
        ]
    );
    let described = within("file", answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::FileDescriptorResponse(files)) = described.message_response else {
        panic!("{described:?}");
    };
    let text = String::from_utf8_lossy(&files.file_descriptor_proto[0]).into_owned();
    assert!(text.contains("v3lockpb") && text.contains("LockRequest"));

    let mut alpha = AlphaClient::new(fixture.channel.clone());
    let request = tonic_reflection::pb::v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            ),
        ),
    };
    let mut answers = alpha
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let listed = within("list", answers.message()).await.unwrap().unwrap();
    assert!(format!("{listed:?}").contains("etcdserverpb.KV"));
    fixture.stop().await;
}
