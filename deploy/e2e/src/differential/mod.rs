//! The same generated operations on config-center and on a real etcd; every answer must be equal.
//!
//! A sequence begins on an empty, freshly compacted keyspace, and revisions are counted from there.
//! So sequences can run one after another on the same two servers, and a failing one can be run
//! again, shorter, until nothing can be left out of it.

mod normal;
mod operations;
mod session;

use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

pub use operations::Operation;
use operations::sequence;
use session::Session;

use crate::store::runtime;

/// How long a failing sequence is made shorter.
const SHRINK: Duration = Duration::from_secs(60);

/// Both servers.
pub struct Pair {
    ours: Session,
    theirs: Session,
}

/// The two texts that differ, ours first; or nothing does.
type Verdict = Result<(), (String, String)>;

/// What has been compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    pub operations: u64,
    pub sequences: u64,
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
    pub sequence: Vec<Operation>,
    pub ours: String,
    pub theirs: String,
    /// Operations that had been compared when it was found.
    pub after: Compared,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "found after {} operations:", self.after.operations)?;
        for (number, operation) in self.sequence.iter().enumerate() {
            writeln!(f, "{number:3}  {operation:?}")?;
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

impl Pair {
    /// Connects to both by their URLs.
    pub fn connect(ours: &str, theirs: &str) -> anyhow::Result<Self> {
        runtime().block_on(async {
            Ok(Self {
                ours: Session::connect(ours).await?,
                theirs: Session::connect(theirs).await?,
            })
        })
    }

    /// Generates and compares until the bounds are reached or something differs.
    ///
    /// An error means that a server could not be used at all, not that the two differ.
    pub fn compare(
        &mut self,
        seed: u64,
        bounds: Bounds,
    ) -> anyhow::Result<Result<Compared, Box<Difference>>> {
        let began = Instant::now();
        let mut compared = Compared::default();
        let mut seed_bytes = [0; 32];
        seed_bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let sequences = sequence();
        while compared.operations < bounds.operations && began.elapsed() < bounds.time {
            let mut tree = sequences
                .new_tree(&mut runner)
                .map_err(|reason| anyhow::anyhow!("generate: {reason}"))?;
            let operations = tree.current();
            let (done, outcome) = self.run(&operations)?;
            compared.operations += done;
            compared.sequences += 1;
            if let Err((ours, theirs)) = outcome {
                let mut found = Difference {
                    sequence: operations,
                    ours,
                    theirs,
                    after: compared,
                };
                self.shrink(&mut tree, &mut found)?;
                return Ok(Err(Box::new(found)));
            }
        }
        Ok(Ok(compared))
    }

    /// Keeps simplifying as long as something differs, in whatever way.
    fn shrink(
        &mut self,
        tree: &mut impl ValueTree<Value = Vec<Operation>>,
        found: &mut Difference,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut simpler = tree.simplify();
        while simpler && began.elapsed() < SHRINK {
            let operations = tree.current();
            let (_, outcome) = self.run(&operations)?;
            simpler = match outcome {
                Err((ours, theirs)) => {
                    found.sequence = operations;
                    found.ours = ours;
                    found.theirs = theirs;
                    tree.simplify()
                }
                Ok(()) => tree.complicate(),
            };
        }
        // What follows the operation that differs has no part in it.
        let needed = self.run(&found.sequence)?.0 as usize;
        found.sequence.truncate(needed);
        Ok(())
    }

    /// Runs one sequence; how many operations were compared, and the texts that differ.
    fn run(&mut self, operations: &[Operation]) -> anyhow::Result<(u64, Verdict)> {
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
