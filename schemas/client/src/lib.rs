//! A thin etcd v3 client over the generated stubs of `schemas`.
//!
//! Knows etcd's retry contract: reads go on to the next endpoint when one does not answer, a write
//! is sent again only when it certainly never left this process. Holds no cache and no recipes, and
//! needs no protoc to build.
//!
//! ```no_run
//! # async fn example() -> Result<(), schemas_client::ClientError> {
//! use schemas_client::{Client, ConnectOptions};
//! let client = Client::new(ConnectOptions::new(["http://127.0.0.1:2379"]))?;
//! let found = client.get("/ningxin/backend/logagent/config/192.168.56.1").await?;
//! println!("{:?} at store revision {}", found.kv, found.revision);
//! # Ok(())
//! # }
//! ```

mod attempt;
mod client;
mod credentials;
mod endpoint;
mod error;
mod lease;
mod options;
mod snapshot;
mod tls;
mod watch;

pub use client::{Client, Found, prefix_end};
pub use endpoint::Pipe;
pub use error::{Attempt, Attempts, ClientError};
pub use lease::LeaseKeeper;
pub use options::{
    ConnectOptions, DEFAULT_DIAL_TIMEOUT, DEFAULT_KEEPALIVE_TIME, DEFAULT_KEEPALIVE_TIMEOUT,
    DEFAULT_REQUEST_TIMEOUT,
};
pub use snapshot::SnapshotPieces;
pub use tonic::Code;
pub use watch::WatchStream;
