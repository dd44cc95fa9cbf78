//! Starts a server for one test and talks to it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use config_center::flags::{self, Invocation, Settings};
use config_center::server::Server;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::lease_client::LeaseClient;
use schemas::etcdserverpb::watch_client::WatchClient;
use schemas::etcdserverpb::watch_request::RequestUnion;
use schemas::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Nothing in these tests takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// Fails the test instead of hanging it.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: timed out"))
}

/// One server and a connection to it.
pub(crate) struct Fixture {
    server: Option<Server>,
    flags: Vec<String>,
    folder: TempDir,
    pub(crate) channel: Channel,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let server = serve(&settings(&folder, &flags)).await;
        let channel = connect(server.client_addresses()[0]).await;
        Self {
            server: Some(server),
            flags,
            folder,
            channel,
        }
    }

    /// Stops the server and starts another one on the same data folder.
    pub(crate) async fn restart(&mut self) {
        within("shutdown", self.server.take().unwrap().shutdown()).await;
        let server = serve(&settings(&self.folder, &self.flags)).await;
        self.channel = connect(server.client_addresses()[0]).await;
        self.server = Some(server);
    }

    pub(crate) async fn stop(mut self) {
        within("shutdown", self.server.take().unwrap().shutdown()).await;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.as_ref().unwrap().client_addresses()[0]
    }

    pub(crate) fn server_revision(&self) -> i64 {
        self.server.as_ref().unwrap().node().engine().revision()
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    pub(crate) fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    /// Puts and returns the revision.
    pub(crate) async fn put(&self, key: &str, value: &str) -> i64 {
        let answer = self.kv().put(put(key, value)).await.unwrap().into_inner();
        answer.header.unwrap().revision
    }

    /// Deletes one key and returns the revision.
    pub(crate) async fn delete(&self, key: &str) -> i64 {
        let request = DeleteRangeRequest {
            key: bytes(key),
            ..DeleteRangeRequest::default()
        };
        let answer = self.kv().delete_range(request).await.unwrap().into_inner();
        answer.header.unwrap().revision
    }

    pub(crate) async fn watch(&self) -> Conversation {
        let (requests, outgoing) = mpsc::channel(1024);
        let mut client = WatchClient::new(self.channel.clone());
        let responses = client
            .watch(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        Conversation {
            requests,
            responses,
        }
    }

    /// Sends raw HTTP/1.1 and reads until the server closes.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        within("raw answer", stream.read_to_end(&mut answer))
            .await
            .unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Waits until a line of `/metrics` reads as expected.
    pub(crate) async fn metric_becomes(&self, line: &str) {
        let looking = async {
            loop {
                let page = self.raw(&get("/metrics")).await;
                if page.lines().any(|found| found == line) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(line, looking).await;
    }
}

pub(crate) fn settings(folder: &TempDir, flags: &[String]) -> Settings {
    let mut line = vec![
        "--listen-client-urls=http://127.0.0.1:0".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        format!("--data-dir={}", folder.path().join("data").display()),
    ];
    line.extend_from_slice(flags);
    match flags::parse(line, []) {
        Ok(Invocation::Serve(settings)) => *settings,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn serve(settings: &Settings) -> Server {
    within("start", Server::start(settings))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

async fn connect(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// One watch stream from the client's side.
pub(crate) struct Conversation {
    requests: mpsc::Sender<WatchRequest>,
    pub(crate) responses: Streaming<WatchResponse>,
}

impl Conversation {
    pub(crate) async fn say(&self, request: RequestUnion) {
        let request = WatchRequest {
            request_union: Some(request),
        };
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn create(&self, request: WatchCreateRequest) {
        self.say(RequestUnion::CreateRequest(request)).await;
    }

    pub(crate) async fn cancel(&self, watch_id: i64) {
        self.say(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
            .await;
    }

    pub(crate) async fn ask_progress(&self) {
        self.say(RequestUnion::ProgressRequest(WatchProgressRequest {}))
            .await;
    }

    pub(crate) async fn next(&mut self) -> WatchResponse {
        within("watch response", self.responses.message())
            .await
            .unwrap()
            .expect("an open stream")
    }

    /// Creates a watcher and takes the answer that announces it.
    pub(crate) async fn created(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.create(request).await;
        let response = self.next().await;
        assert!(
            response.created && response.events.is_empty(),
            "{response:?}"
        );
        response
    }

    /// Closes the client's side only.
    pub(crate) fn close_sending(self) -> Streaming<WatchResponse> {
        self.responses
    }
}

pub(crate) fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: bytes(key),
        value: bytes(value),
        ..PutRequest::default()
    }
}

pub(crate) fn range(key: &str) -> RangeRequest {
    RangeRequest {
        key: bytes(key),
        ..RangeRequest::default()
    }
}

pub(crate) fn watch_key(key: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: bytes(key),
        ..WatchCreateRequest::default()
    }
}

/// Every key that begins with this letter.
pub(crate) fn watch_letter(letter: char) -> WatchCreateRequest {
    let next = char::from_u32(u32::from(letter) + 1).unwrap();
    WatchCreateRequest {
        key: bytes(&letter.to_string()),
        range_end: bytes(&next.to_string()),
        ..WatchCreateRequest::default()
    }
}

/// Events as `revision key=value`, with `-` for a deletion.
pub(crate) fn told(response: &WatchResponse) -> Vec<String> {
    let line = |event: &schemas::mvccpb::Event| {
        let kv = event.kv.as_ref().unwrap();
        let key = String::from_utf8_lossy(&kv.key);
        match event.r#type() {
            schemas::mvccpb::event::EventType::Put => {
                format!(
                    "{} {key}={}",
                    kv.mod_revision,
                    String::from_utf8_lossy(&kv.value)
                )
            }
            schemas::mvccpb::event::EventType::Delete => format!("{} {key} -", kv.mod_revision),
        }
    };
    response.events.iter().map(line).collect()
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

pub(crate) fn assert_status<T: std::fmt::Debug>(
    outcome: Result<T, Status>,
    code: Code,
    message: &str,
) {
    let status = outcome.expect_err(message);
    assert_eq!((status.code(), status.message()), (code, message));
}
