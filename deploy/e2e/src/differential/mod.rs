//! The same generated operations on config-center and on a real etcd; every answer must be equal.
//!
//! There are four kinds of operations, each a [`Subject`]: the v3 API as its users call it, the same
//! with users and permissions, the v3 API in JSON, and the v2 API. A sequence begins on an empty
//! store, and revisions are counted from there. So sequences can run one after another on the same
//! two servers, and a failing one can be run again, shorter, until nothing can be left out of it.

mod auth;
mod auth_operations;
mod gateway;
mod json;
pub mod judged;
mod normal;
mod operations;
mod requests;
mod session;
mod v2;

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::store::runtime;

/// How long a failing sequence is made shorter.
const SHRINK: Duration = Duration::from_secs(60);
/// Generators are values inside of values, more than the stack of a test holds unoptimised.
const STACK_BYTES: usize = 64 << 20;
/// Sequences that a run may give up, because a server did not answer in time on a busy machine.
const ABANDONED: u64 = 10;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// KV, Lease and Watch over gRPC; the judge is etcd 3.7.
    V3,
    /// The same by users with and without rights, and what changes these; etcd 3.7 again.
    Auth,
    /// KV and Lease through the JSON gateway, also with broken bodies; etcd 3.7 again.
    Gateway,
    /// `/v2/keys`; the judge is etcd 3.4.
    V2,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::V3, Self::Auth, Self::Gateway, Self::V2];

    /// Connects to both by their URLs, generates and compares until the bounds are reached or
    /// something differs.
    ///
    /// An error means that a server could not be used at all, not that the two differ.
    pub fn compare(
        self,
        ours: &str,
        theirs: &str,
        seed: u64,
        bounds: Bounds,
    ) -> anyhow::Result<Outcome> {
        let compare = || match self {
            Self::V3 => Pair::<session::Session>::connect(ours, theirs)?.compare(seed, bounds),
            Self::Auth => Pair::<auth::Session>::connect(ours, theirs)?.compare(seed, bounds),
            Self::Gateway => Pair::<gateway::Session>::connect(ours, theirs)?.compare(seed, bounds),
            Self::V2 => Pair::<v2::Session>::connect(ours, theirs)?.compare(seed, bounds),
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let outcome = thread.spawn_scoped(scope, compare)?.join();
            outcome.unwrap_or_else(|_| anyhow::bail!("the comparison panicked"))
        })
    }
}

/// One server under generated operations of one kind.
trait Subject: Sized {
    type Operation: Clone + Debug;

    /// Sequences for one empty store.
    fn sequences() -> impl Strategy<Value = Vec<Self::Operation>>;

    fn connect(url: &str) -> impl Future<Output = anyhow::Result<Self>>;

    /// Leaves nothing of what was before.
    fn reset(&mut self) -> impl Future<Output = anyhow::Result<()>>;

    /// Sends one operation, and tells the answer as text.
    fn perform(
        &mut self,
        operation: &Self::Operation,
    ) -> impl Future<Output = anyhow::Result<String>>;

    /// What answers only at the end.
    fn finish(&mut self) -> impl Future<Output = anyhow::Result<String>>;
}

/// Both servers.
struct Pair<S> {
    ours: S,
    theirs: S,
}

/// The two texts that differ, ours first; or nothing does.
type Verdict = Result<(), (String, String)>;

/// What a run has come to.
pub type Outcome = Result<Compared, Box<Difference>>;

/// What has been compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    pub operations: u64,
    pub sequences: u64,
    /// Sequences without an answer to compare; they are not counted above.
    pub abandoned: u64,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub operations: u64,
    pub time: Duration,
}

/// The first operation whose answers differ, and everything before it.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The operations as text, the last being the one that shows it.
    pub sequence: Vec<String>,
    pub ours: String,
    pub theirs: String,
    /// Operations that had been compared when it was found.
    pub after: Compared,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "found after {} operations:", self.after.operations)?;
        for (number, operation) in self.sequence.iter().enumerate() {
            writeln!(f, "{number:3}  {operation}")?;
        }
        let mut equal = true;
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (self.ours.lines().collect(), self.theirs.lines().collect());
        for at in 0..ours.len().max(theirs.len()) {
            let (our, their) = (ours.get(at).copied(), theirs.get(at).copied());
            if our != their {
                equal = false;
                writeln!(f, "  etcd: {}", their.unwrap_or("(nothing)"))?;
                writeln!(f, "  ours: {}", our.unwrap_or("(nothing)"))?;
            }
        }
        if equal {
            writeln!(f, "  ours: {}", self.ours)?;
        }
        Ok(())
    }
}

impl<S: Subject> Pair<S> {
    fn connect(ours: &str, theirs: &str) -> anyhow::Result<Self> {
        runtime().block_on(async {
            Ok(Self {
                ours: S::connect(ours).await?,
                theirs: S::connect(theirs).await?,
            })
        })
    }

    fn compare(&mut self, seed: u64, bounds: Bounds) -> anyhow::Result<Outcome> {
        let began = Instant::now();
        let mut compared = Compared::default();
        let mut seed_bytes = [0; 32];
        seed_bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let sequences = S::sequences();
        while compared.operations < bounds.operations && began.elapsed() < bounds.time {
            let mut tree = sequences
                .new_tree(&mut runner)
                .map_err(|reason| anyhow::anyhow!("generate: {reason}"))?;
            let operations = tree.current();
            let (done, outcome) = match self.run(&operations) {
                Ok(ran) => ran,
                // The next sequence begins on an empty store again.
                Err(_) if compared.abandoned < ABANDONED => {
                    compared.abandoned += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            compared.operations += done;
            compared.sequences += 1;
            if let Err(texts) = outcome {
                let (sequence, (ours, theirs)) = self.shrink(&mut tree, operations, texts);
                return Ok(Err(Box::new(Difference {
                    sequence: sequence.iter().map(|one| format!("{one:?}")).collect(),
                    ours,
                    theirs,
                    after: compared,
                })));
            }
        }
        Ok(Ok(compared))
    }

    /// Keeps simplifying as long as something differs, in whatever way. A server that is lost on
    /// the way ends it: the difference is worth more than its brevity.
    fn shrink(
        &mut self,
        tree: &mut impl ValueTree<Value = Vec<S::Operation>>,
        mut sequence: Vec<S::Operation>,
        mut texts: (String, String),
    ) -> (Vec<S::Operation>, (String, String)) {
        let began = Instant::now();
        let mut simpler = tree.simplify();
        while simpler && began.elapsed() < SHRINK {
            let operations = tree.current();
            simpler = match self.run(&operations) {
                Ok((_, Err(differing))) => {
                    (sequence, texts) = (operations, differing);
                    tree.simplify()
                }
                Ok((_, Ok(()))) => tree.complicate(),
                Err(_) => return (sequence, texts),
            };
        }
        // What follows the operation that differs has no part in it.
        if let Ok((needed, Err(_))) = self.run(&sequence) {
            sequence.truncate(needed as usize);
        }
        (sequence, texts)
    }

    /// Runs one sequence; how many operations were compared, and the texts that differ.
    fn run(&mut self, operations: &[S::Operation]) -> anyhow::Result<(u64, Verdict)> {
        let Self { ours, theirs } = self;
        runtime().block_on(async {
            let (our_start, their_start) = tokio::join!(ours.reset(), theirs.reset());
            our_start?;
            their_start?;
            for (number, operation) in operations.iter().enumerate() {
                let (our, their) = tokio::join!(ours.perform(operation), theirs.perform(operation));
                let (our, their) = (our?, their?);
                if our != their {
                    return Ok((number as u64 + 1, Err((our, their))));
                }
            }
            let (our, their) = tokio::join!(ours.finish(), theirs.finish());
            let (our, their) = (our?, their?);
            let done = operations.len() as u64;
            if our != their {
                return Ok((done, Err((our, their))));
            }
            Ok((done, Ok(())))
        })
    }
}
