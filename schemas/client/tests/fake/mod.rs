//! A store that misbehaves on request: real gRPC on loopback, behaviour decided by the test.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::Request as HttpRequest, routing::post};
use schemas::etcdserverpb::{
    AuthenticateRequest, AuthenticateResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, ResponseHeader, StatusRequest, StatusResponse, WatchRequest, WatchResponse,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming, server::Grpc, service::Routes};
use tonic_prost::ProstCodec;

/// What to do with one request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Answer,
    /// Never answer; the connection stays open.
    Hang,
    Refuse(Code, &'static str),
    /// Close every connection without an answer.
    Die,
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) range: Mutex<VecDeque<Act>>,
    pub(crate) put: Mutex<VecDeque<Act>>,
    pub(crate) ranges: AtomicUsize,
    pub(crate) puts: AtomicUsize,
    pub(crate) authentications: AtomicUsize,
    /// Bytes in the value that a range answers with.
    pub(crate) value_bytes: AtomicUsize,
    /// Tokens seen with ranges, in order.
    pub(crate) tokens: Mutex<Vec<Option<String>>>,
    /// What a watch stream sends, in order, before it stays silent.
    pub(crate) watch: Mutex<Vec<WatchResponse>>,
    die: Mutex<Option<mpsc::Sender<()>>>,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    pub(crate) script: Arc<Script>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener).await
    }

    pub(crate) async fn start_on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Script::default());
        let (die, mut dying) = mpsc::channel(1);
        *script.die.lock().unwrap() = Some(die);
        let routes = routes(&script);
        let server = tokio::spawn(async move {
            // Connections live in tasks of their own runtime, so that dying closes all of them.
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    let listener = listener.into_std().unwrap();
                    let listener = TcpListener::from_std(listener).unwrap();
                    let server = tonic::transport::Server::builder()
                        .add_routes(routes)
                        .serve_with_incoming(TcpListenerStream::new(listener));
                    tokio::select! {
                        served = server => served.unwrap(),
                        _ = stopped => {}
                        _ = dying.recv() => {}
                    }
                });
            });
            // Aborting this task drops `stop`, which ends the thread.
            let _stop = stop;
            std::future::pending::<()>().await;
            drop(thread);
        });
        Self {
            url: format!("http://{address}"),
            script,
            server,
        }
    }

    pub(crate) fn plan_ranges(&self, acts: impl IntoIterator<Item = Act>) {
        self.script.range.lock().unwrap().extend(acts);
    }

    pub(crate) fn plan_puts(&self, acts: impl IntoIterator<Item = Act>) {
        self.script.put.lock().unwrap().extend(acts);
    }

    pub(crate) fn puts(&self) -> usize {
        self.script.puts.load(Ordering::SeqCst)
    }

    pub(crate) fn ranges(&self) -> usize {
        self.script.ranges.load(Ordering::SeqCst)
    }
}

/// An address on which nobody listens.
pub(crate) async fn refused_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A listener that lets the kernel accept connections and never says a word, as a stopped process.
pub(crate) async fn silent_listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn routes(script: &Arc<Script>) -> Routes {
    let range = {
        let script = script.clone();
        move |request| {
            unary(request, {
                let script = script.clone();
                move |request| on_range(script.clone(), request)
            })
        }
    };
    let put = {
        let script = script.clone();
        move |request| {
            unary(request, {
                let script = script.clone();
                move |request| on_put(script.clone(), request)
            })
        }
    };
    let authenticate = {
        let script = script.clone();
        move |request| {
            unary(request, {
                let script = script.clone();
                move |request| on_authenticate(script.clone(), request)
            })
        }
    };
    let watch = {
        let script = script.clone();
        move |request: HttpRequest| {
            let script = script.clone();
            async move {
                let service = tower::service_fn(move |request| on_watch(script.clone(), request));
                Grpc::new(ProstCodec::<WatchResponse, WatchRequest>::default())
                    .streaming(service, request)
                    .await
            }
        }
    };
    let status = |request| {
        unary(request, |_: Request<StatusRequest>| async {
            Ok(Response::new(StatusResponse::default()))
        })
    };
    Routes::from(
        Router::new()
            .route("/etcdserverpb.KV/Range", post(range))
            .route("/etcdserverpb.KV/Put", post(put))
            .route("/etcdserverpb.Auth/Authenticate", post(authenticate))
            .route("/etcdserverpb.Watch/Watch", post(watch))
            .route("/etcdserverpb.Maintenance/Status", post(status)),
    )
}

async fn unary<Q, A, F, Fut>(
    request: HttpRequest,
    answer: F,
) -> axum::http::Response<tonic::body::Body>
where
    Q: prost_message::Message,
    A: prost_message::Message,
    F: FnMut(Request<Q>) -> Fut + Send,
    Fut: Future<Output = Result<Response<A>, Status>> + Send,
{
    Grpc::new(ProstCodec::<A, Q>::default())
        .unary(tower::service_fn(answer), request)
        .await
}

/// The bounds that the codec asks of a message.
mod prost_message {
    pub(super) trait Message: prost::Message + Default + Send + 'static {}
    impl<T: prost::Message + Default + Send + 'static> Message for T {}
}

async fn act(script: &Script, plan: &Mutex<VecDeque<Act>>) -> Result<(), Status> {
    let act = plan.lock().unwrap().pop_front().unwrap_or(Act::Answer);
    match act {
        Act::Answer => Ok(()),
        Act::Refuse(code, message) => Err(Status::new(code, message)),
        Act::Hang => std::future::pending().await,
        Act::Die => {
            let die = script.die.lock().unwrap().clone();
            die.unwrap().send(()).await.unwrap();
            std::future::pending().await
        }
    }
}

async fn on_range(
    script: Arc<Script>,
    request: Request<RangeRequest>,
) -> Result<Response<RangeResponse>, Status> {
    script.ranges.fetch_add(1, Ordering::SeqCst);
    let token = request
        .metadata()
        .get("token")
        .map(|t| t.to_str().unwrap().to_owned());
    script.tokens.lock().unwrap().push(token);
    act(&script, &script.range).await?;
    let value = vec![b'x'; script.value_bytes.load(Ordering::SeqCst)];
    Ok(Response::new(RangeResponse {
        header: Some(ResponseHeader {
            revision: 7,
            ..Default::default()
        }),
        kvs: vec![schemas::mvccpb::KeyValue {
            key: request.into_inner().key,
            value: value.into(),
            mod_revision: 5,
            ..Default::default()
        }],
        count: 1,
        ..Default::default()
    }))
}

async fn on_put(
    script: Arc<Script>,
    _: Request<PutRequest>,
) -> Result<Response<PutResponse>, Status> {
    script.puts.fetch_add(1, Ordering::SeqCst);
    act(&script, &script.put).await?;
    Ok(Response::new(PutResponse::default()))
}

async fn on_authenticate(
    script: Arc<Script>,
    request: Request<AuthenticateRequest>,
) -> Result<Response<AuthenticateResponse>, Status> {
    let number = script.authentications.fetch_add(1, Ordering::SeqCst) + 1;
    if request.get_ref().password != "right" {
        return Err(Status::invalid_argument(
            "etcdserver: authentication failed, invalid user ID or password",
        ));
    }
    Ok(Response::new(AuthenticateResponse {
        header: None,
        token: format!("token.{number}"),
    }))
}

async fn on_watch(
    script: Arc<Script>,
    request: Request<Streaming<WatchRequest>>,
) -> Result<Response<ReceiverStream<Result<WatchResponse, Status>>>, Status> {
    let mut requests = request.into_inner();
    requests.message().await?;
    let planned = script.watch.lock().unwrap().clone();
    let (send, receive) = mpsc::channel(planned.len() + 1);
    for response in planned {
        send.send(Ok(response)).await.unwrap();
    }
    // The stream stays open as long as the client's half does.
    tokio::spawn(async move {
        while let Ok(Some(_)) = requests.message().await {}
        drop(send);
    });
    Ok(Response::new(ReceiverStream::new(receive)))
}
