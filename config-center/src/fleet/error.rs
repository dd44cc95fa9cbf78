//! Why the fleet service could not do what it was asked to.

use config_center_core::fleet::{
    change::MassRemoval, inventory::Problem, render::RenderProblem, rollout::CommandError,
};
use schemas_client::ClientError;

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Objects that are wrong by themselves or together.
    #[error("{}", lines(.0))]
    Objects(Vec<Problem>),
    /// Objects that cannot all be true on some host.
    #[error("{}", lines(.0))]
    Rendering(Vec<RenderProblem>),
    #[error(transparent)]
    MassRemoval(#[from] MassRemoval),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("{0}")]
    NotFound(String),
    /// Others changed the same things in each round.
    #[error(
        "others changed the fleet in each of {rounds} rounds; nothing of this was written. Try again"
    )]
    RaceLost { rounds: u32 },
    /// Somebody changed what was to be changed, and going on would undo it.
    #[error("{0}")]
    Stale(String),
    /// The revision that the caller saw is not the newest any more.
    #[error("{0}")]
    Precondition(String),
    #[error("{0} has not drifted: its key is as published")]
    NoDrift(String),
    /// A key of the fleet layer does not hold what it should.
    #[error("{key} cannot be read: {reason}. Nothing was changed")]
    Corrupt { key: String, reason: String },
    #[error("{0}")]
    Invalid(String),
}

fn lines<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
